"""A watch that moves with its connection: it is begun there anew, and then the old one ends.

Each message of such a watch is the whole state as it is then, and none may be older than the one before. So the new
watch counts from a first message before which, since it was begun, nothing was heard of the old one.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc

from thunderline.rpc.lines import broken
from thunderline.rpc.moving import Moving

# A watch that could not be begun where the connection is now is tried again after this time.
AGAIN_S = 0.2
# So long nothing is heard of the old watch while the new one begins. It has just answered: a round trip will do.
HOLD_S = 1.0


async def follow(moving: Moving, begin: Callable[[], Any]) -> AsyncGenerator[Any, None]:
    """The messages. `begin` makes the call, by a stub of `moving`. Raises grpc.aio.AioRpcError when it breaks."""
    following = _Following(moving, begin)
    try:
        while (message := await following.next()) is not grpc.aio.EOF:
            yield message
    finally:
        following.leave()


class _Following:
    def __init__(self, moving: Moving, begin: Callable[[], Any]) -> None:
        self._moving = moving
        self._begin = begin
        self._watch = _Watch(begin())
        # Where the connection is now, until it has told something.
        self._coming: _Watch | None = None
        # The old one was heard since the new one was begun; it is not heard meanwhile.
        self._is_late = self._holds = False
        self._moved = asyncio.ensure_future(moving.changes.after(moving.changes.version))

    async def next(self) -> Any:
        """The next message, or grpc.aio.EOF. Raises grpc.aio.AioRpcError."""
        while True:
            if self._coming is not None and self._coming.reading.done():
                self._arrive(self._coming)
            elif self._moved.done():
                self._come(holds=False)
                self._moved = asyncio.ensure_future(self._moving.changes.after(self._moving.changes.version))
            elif self._is_heard:
                message = self._watch.message()
                if message is not grpc.aio.EOF:
                    self._watch.read()
                    self._is_late = True
                return message
            else:
                await self._wait()

    @property
    def _is_heard(self) -> bool:
        """One that broke is waited for no more, if the other one may come."""
        if not self._watch.reading.done() or self._holds:
            return False
        return self._coming is None or self._watch.has_told

    async def _wait(self) -> None:
        waits = {self._moved, *([self._coming.reading] if self._coming else [])}
        if not self._holds and not self._watch.reading.done():
            waits.add(self._watch.reading)
        limit_s = HOLD_S if self._holds else None
        done, _ = await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            self._holds = False

    def _come(self, holds: bool) -> None:
        if self._coming is not None:
            self._coming.leave()
        self._coming, self._holds, self._is_late = _Watch(self._begin()), holds, False

    def _arrive(self, coming: "_Watch") -> None:
        """Whether it takes the place of the old one."""
        if coming.has_told and self._is_late:
            # It may know less than was heard meanwhile.
            self._come(holds=True)
            return
        self._coming, self._holds = None, False
        if coming.has_told:
            self._watch.leave()
            self._watch = coming
        else:
            # Nobody is there yet; it may be so in a moment.
            self._moved.cancel()
            self._moved = asyncio.ensure_future(asyncio.sleep(AGAIN_S, self._moving.changes.version))

    def leave(self) -> None:
        self._moved.cancel()
        self._watch.leave()
        if self._coming is not None:
            self._coming.leave()


class _Watch:
    """One call of a watch, and the message of it that is waited for."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.read()

    def read(self) -> None:
        self.reading: asyncio.Task[Any] = asyncio.ensure_future(self._call.read())

    @property
    def has_told(self) -> bool:
        """Of one whose read has ended: whether a message came."""
        is_broken = self.reading.cancelled() or self.reading.exception() is not None
        return not is_broken and self.reading.result() is not grpc.aio.EOF

    def message(self) -> Any:
        """Raises grpc.aio.AioRpcError."""
        if self.reading.cancelled():
            raise broken("the connection was closed")
        return self.reading.result()

    def leave(self) -> None:
        self._call.cancel()
        self.reading.cancel()
        # Else asyncio tells of an error that nobody asked for.
        self.reading.add_done_callback(lambda reading: reading.cancelled() or reading.exception())
