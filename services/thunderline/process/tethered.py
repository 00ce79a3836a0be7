"""A child that does not outlive us, however we end: it holds the read end of a pipe whose write end is ours alone.

`python -m thunderline.process.tethered MODULE [ARGUMENT ...]` runs any module so; one of ours may call
`end_with_parent` itself.
"""

import asyncio
import contextlib
import os
import runpy
import signal
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence

from thunderline.process.stopping import LIFELINE


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a tethered Python module."""
    return [sys.executable, "-m", "thunderline.process.tethered", module, *arguments]


@contextlib.asynccontextmanager
async def child(
    command: Sequence[str],
    stderr: int,
    environment: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child in a session of its own, stdout a pipe; leaving the block ends the whole session. Raises OSError.

    `inherited` are descriptors that it keeps open, a lock's for example.
    """
    reading, writing = os.pipe()
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                pass_fds=(reading, *inherited),
                env={**os.environ, **(environment or {}), LIFELINE: str(reading)},
            )
        finally:
            os.close(reading)
        try:
            yield process
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
    finally:
        os.close(writing)


def end_with_parent() -> None:
    """From now on the end of our parent is ours too, and that of our session when we lead it; without one, nothing."""
    if (descriptor := os.environ.pop(LIFELINE, None)) is not None:
        threading.Thread(target=_end_after, args=(int(descriptor),), name="lifeline", daemon=True).start()


def _end_after(descriptor: int) -> None:
    # Nothing is ever written: it returns when the other end is closed.
    os.read(descriptor, 1)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    end_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
