"""Requests at the scheduler's admission, by the names that a test gives them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from scheduler.test_admission import settled, soon
from thunderline.scheduler.admission import Admission, Place
from thunderline.scheduler.routing import UNKNOWN, Kind, Request


class Requests:
    """`inside`: those who have a place, in the order of their coming."""

    def __init__(self, door: Admission) -> None:
        self.door = door
        self.inside: dict[str, Place] = {}
        self._leaving: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()

    @contextlib.asynccontextmanager
    async def coming(self) -> AsyncIterator[None]:
        """At the end all leave, those who still wait as soon as they are inside."""
        async with asyncio.timeout(10), self._group:
            yield
            while self.inside:
                await self.leaves(*self.inside)
        assert (self.door.depth("m"), self.door.depth("n")) == (0, 0)

    async def comes(self, name: str, kind: Kind = Kind.NEW, word: str = "m", request: Request = UNKNOWN) -> None:
        self._leaving[name] = asyncio.Event()
        self._tasks[name] = self._group.create_task(self._stay(name, kind, word, request))
        await settled()

    async def _stay(self, name: str, kind: Kind, word: str, request: Request) -> None:
        async with self.door.admitted(word, kind, soon(), request) as place:
            self.inside[name] = place
            await self._leaving[name].wait()
        del self.inside[name]

    async def leaves(self, *names: str) -> None:
        for name in names:
            self._leaving[name].set()
        await settled()

    async def gives_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await settled()

    async def speaks(self, name: str) -> None:
        self.door.spoke(self.inside[name])
        await settled()

    @property
    def names(self) -> list[str]:
        return list(self.inside)
