"""Files that take a process's output, kept small while it writes: copied aside and emptied in place.

Not renamed: the process goes on with the file that it has open, so that it must have been opened to append. What it
writes between the copy and the emptying is lost: a few lines of millions.
"""

import contextlib
import os
from pathlib import Path

BYTES_MAX = 4 * 1024 * 1024
# How often to look: a process in a tight loop writes some MB in this time.
LOOK_EVERY_S = 2.0


def keep_small(path: Path, bytes_max: int = BYTES_MAX) -> None:
    """Moves the end of a file that is larger than this to NAME.1, and empties it. A full disk leaves it as it is."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > bytes_max:
            _former(path).write_bytes(_end(path, bytes_max))
            os.truncate(path, 0)


def forget(path: Path) -> None:
    """Removes a log and what was moved aside of it."""
    for one in (path, _former(path)):
        one.unlink(missing_ok=True)


def tail(path: Path, bytes_max: int) -> str:
    """The end of what was written, also when it was moved aside a moment ago; empty without a file."""
    end = _end(path, bytes_max)
    return (_end(_former(path), bytes_max - len(end)) + end).decode(errors="replace")


def _former(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _end(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - bytes_max))
            return file.read(bytes_max)
    except OSError:
        return b""
