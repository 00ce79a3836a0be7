"""A channel that outlives its certificate: each call goes by the newest one, calls under way end where they are."""

import asyncio
from collections.abc import Callable

import grpc

from thunderline.cluster.errors import Unauthenticated
from thunderline.process.trust import Identity, Wallet
from thunderline.rpc.lines import Line, LineChannel


class LastingChannel(LineChannel):
    """As gRPC's own. `make` dials with an identity; the wallet is looked at before each call, for some microseconds.

    gRPC keeps a channel's certificate for its whole life: after a renewal its next handshake would show the old one.
    """

    def __init__(self, wallet: Wallet, make: Callable[[Identity], grpc.aio.Channel]) -> None:
        """Raises Unauthenticated when others would not take our certificate."""
        self._wallet = wallet
        self._make = make
        self._identity = wallet.checked()
        self._line = Line(make(self._identity))
        self._old: list[Line] = []
        self._closed = False

    def _newest(self) -> Line:
        try:
            identity = self._wallet.identity()
        except Unauthenticated:
            # A file that is broken just now: the one we have may still do.
            identity = None
        if self._closed or identity is None or identity == self._identity:
            return self._line
        former, self._line, self._identity = self._line, Line(self._make(identity)), identity
        former.retire()
        self._old = [one for one in (*self._old, former) if not one.is_gone]
        return self._line

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        await asyncio.gather(*(line.close(grace) for line in (self._line, *self._old)))
