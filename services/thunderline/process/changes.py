"""Something that changes, and those who watch it: a watcher sees the newest state, never a queue of old ones."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from thunderline.cluster.errors import Draining

T = TypeVar("T")


class Changes:
    """Counts changes. Belongs to one event loop."""

    def __init__(self) -> None:
        self.version = 0
        self.stopped = False
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Ends every watch: the role is stopping."""
        self.stopped = True
        self.notify()

    async def after(self, seen: int) -> int:
        """Waits until the version is not `seen`. Callers bound the wait, or end with `stop`."""
        while self.version == seen:
            await self._changed.wait()
        return self.version


async def watch(changes: Changes, snapshot: Callable[[], T], pace_s: float) -> AsyncIterator[T]:
    """The state now, then again after every change, at most once in `pace_s`. Raises Draining when the role stops."""
    while not changes.stopped:
        seen = changes.version
        yield snapshot()
        await asyncio.sleep(pace_s)
        await changes.after(seen)
    raise Draining("the role is stopping")
