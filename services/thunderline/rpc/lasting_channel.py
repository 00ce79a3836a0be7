"""A channel that outlives its certificate: each call goes by the newest one, calls under way end where they are."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from thunderline.cluster.errors import Unauthenticated
from thunderline.process.trust import Identity, Wallet


class _Line:
    """One real channel, the identity that it was made with, and how many of its calls are under way."""

    def __init__(self, channel: grpc.aio.Channel, identity: Identity) -> None:
        self.channel = channel
        self.identity = identity
        self.call_count = 0
        # A newer one takes the calls from now on.
        self.is_old = False
        self._closing: asyncio.Task[None] | None = None

    def entered(self, call: Any) -> None:
        self.call_count += 1
        call.add_done_callback(self._left)

    def _left(self, _: Any) -> None:
        self.call_count -= 1
        self.tidy()

    @property
    def is_gone(self) -> bool:
        return self._closing is not None and self._closing.done()

    def tidy(self) -> None:
        if self.is_old and self.call_count == 0 and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.close())

    async def close(self, grace: float | None = None) -> None:
        await self.channel.close(grace)


class LastingChannel(grpc.aio.Channel):
    """As gRPC's own. `make` dials with an identity; the wallet is looked at before each call, for some microseconds.

    gRPC keeps a channel's certificate for its whole life: after a renewal its next handshake would show the old one.
    """

    def __init__(self, wallet: Wallet, make: Callable[[Identity], grpc.aio.Channel]) -> None:
        """Raises Unauthenticated when others would not take our certificate."""
        identity = wallet.checked()
        self._wallet = wallet
        self._make = make
        self._line = _Line(make(identity), identity)
        self._old: list[_Line] = []
        self._closed = False

    def _newest(self) -> _Line:
        try:
            identity = self._wallet.identity()
        except Unauthenticated:
            # A file that is broken just now: the one we have may still do.
            identity = None
        if self._closed or identity is None or identity == self._line.identity:
            return self._line
        former, self._line = self._line, _Line(self._make(identity), identity)
        former.is_old = True
        former.tidy()
        self._old = [one for one in (*self._old, former) if not one.is_gone]
        return self._line

    def _calls(self, arity: str, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """What a stub calls: it finds the newest line first."""
        line: _Line | None = None
        multicallable: Any = None

        def call(*request: Any, **about: Any) -> Any:
            nonlocal line, multicallable
            newest = self._newest()
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

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        await asyncio.gather(*(line.close(grace) for line in (self._line, *self._old)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._newest().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._line.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._newest().channel.channel_ready()
