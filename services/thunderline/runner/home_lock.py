"""One runner on a home: its lock, and its Unix socket's file."""

import contextlib
import fcntl
import socket
from collections.abc import Iterator
from pathlib import Path

from thunderline.process.entry import CannotStart

ANSWER_S = 1.0


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Holds the home's runner lock. Raises CannotStart when another runner has it, or the home cannot be written."""
    path = home / "run" / "runner.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise CannotStart(f"{path} cannot be opened: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"another runner serves {home}") from None
        yield


def free_socket(path: Path) -> None:
    """Removes the file that a killed runner left. Raises CannotStart when somebody answers there.

    gRPC would take a living server's path over, silently.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_S)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise CannotStart(f"another process answers on {path}")
