"""A channel in front of real ones: a call takes the line that is the newest when it begins, and ends where it is."""

import asyncio
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self

import grpc


class Line:
    """One real channel, and how many of its calls are under way."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.call_count = 0
        # Another one takes the calls from now on.
        self._is_old = False
        self._closing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def entered(self, call: Any) -> None:
        self.call_count += 1
        self._loop = asyncio.get_running_loop()
        call.add_done_callback(self._left)

    def _left(self, _: Any) -> None:
        """An abandoned call ends when it is collected: in whichever thread, and maybe after the loop."""
        self.call_count -= 1
        if self._is_old and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tidy)

    @property
    def is_gone(self) -> bool:
        return self._closing is not None and self._closing.done()

    def retire(self) -> None:
        """Closes it once the last of its calls has ended: each has a deadline, or is a watch that moves.

        gRPC keeps the connection itself until nobody holds one of its calls any more.
        """
        self._is_old = True
        self._tidy()

    async def left(self) -> None:
        """Retires it, and waits for its end where none of its calls is under way."""
        self.retire()
        if self._closing is not None:
            await self._closing

    def _tidy(self) -> None:
        if self._is_old and self.call_count == 0 and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.close())

    async def close(self, grace: float | None = None) -> None:
        await self.channel.close(grace)


def broken(why: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> grpc.aio.AioRpcError:
    """As of a peer that cannot be reached."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=why)


class NoCall:
    """A call that could not be begun: it fails as one does whose peer is gone."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    def __await__(self) -> Generator[Any, None, Any]:
        return self.read().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        raise self._error

    async def read(self) -> Any:
        raise self._error

    async def write(self, _: Any) -> None:
        raise self._error

    async def done_writing(self) -> None:
        """There is nobody to whom it would be said."""

    async def code(self) -> grpc.StatusCode:
        return self._error.code()

    async def details(self) -> str | None:
        return self._error.details()

    def cancel(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)


class LineChannel(grpc.aio.Channel):
    """For stubs and clients it is a channel. Who derives from it says which line is the newest."""

    def _newest(self) -> Line:
        """Raises grpc.aio.AioRpcError when there is none."""
        raise NotImplementedError

    def _calls(self, arity: str, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """What a stub calls: it finds the newest line first."""
        line: Line | None = None
        multicallable: Any = None

        def call(*request: Any, **about: Any) -> Any:
            nonlocal line, multicallable
            try:
                newest = self._newest()
            except grpc.aio.AioRpcError as error:
                return NoCall(error)
            if newest is not line:
                line, multicallable = newest, getattr(newest.channel, arity)(method, *arguments, **options)
            made = multicallable(*request, **about)
            newest.entered(made)
            return made

        return call

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._calls("unary_unary", method, arguments, options)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._calls("unary_stream", method, arguments, options)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._calls("stream_unary", method, arguments, options)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._calls("stream_stream", method, arguments, options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._newest().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._newest().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._newest().channel.channel_ready()
