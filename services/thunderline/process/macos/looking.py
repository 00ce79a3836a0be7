"""Where a command is: a folder of PATH may lie on a network disk that hangs, and then nobody waits for it.

A thread that hangs is left behind, for each command at most one: whoever asks meanwhile waits for the same. It holds up
no process's end.
"""

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Callable

Which = Callable[[str, str | None], str | None]
Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[str | None]"]

# By the command's name and PATH: who waits for a thread that looks for it, each in a loop of its own.
_waiting: dict[tuple[str, str | None], set[Waiter]] = {}
_lock = threading.Lock()


def _which(name: str, path: str | None) -> str | None:
    return shutil.which(name, path=path)


async def program(name: str, path: str | None, timeout_s: float, which: Which = _which) -> str | None:
    """Its file, None where it is in no folder of `path`. From any loop. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[str | None] = loop.create_future()
    me = (loop, found)
    with _lock:
        waiting = _waiting.get((name, path))
        if waiting is None:
            threading.Thread(target=_look, args=(name, path, which), name=f"which {name}", daemon=True).start()
            waiting = _waiting[name, path] = set()
        waiting.add(me)
    try:
        async with asyncio.timeout(timeout_s):
            return await found
    finally:
        with _lock:
            waiting.discard(me)


def _look(name: str, path: str | None, which: Which) -> None:
    found = None
    try:
        found = which(name, path)
    finally:
        with _lock:
            waiting = _waiting.pop((name, path))
            for loop, future in waiting:
                # It may be closed since.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_settle, future, found)


def _settle(future: "asyncio.Future[str | None]", found: str | None) -> None:
    if not future.done():
        future.set_result(found)
