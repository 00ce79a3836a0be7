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
    A role that restarts after `cluster init` or `leave` speaks TLS, or no longer: who talks with it does so too, once
    the connection as it was has failed. The others still speak as before.
    """

    def __init__(self, wallet: Wallet, make: Callable[[Identity | None], grpc.aio.Channel]) -> None:
        """Raises Unauthenticated when others would not take our certificate, or `make` has none and needs one."""
        self._wallet = wallet
        self._make = make
        self._identity = wallet.checked() if wallet.identity() else None
        self._line = Line(make(self._identity))
        self._old: list[Line] = []
        self._closed = False

    def _newest(self) -> Line:
        if self._closed:
            return self._line
        try:
            identity = self._wallet.identity()
            if identity == self._identity or not self._may_take(identity):
                return self._line
            fresh = Line(self._make(identity))
        except Unauthenticated:
            # A file that is broken just now: the one we have may still do.
            return self._line
        former, self._line, self._identity = self._line, fresh, identity
        former.retire()
        self._old = [one for one in (*self._old, former) if not one.is_gone]
        return self._line

    def _may_take(self, identity: Identity | None) -> bool:
        if identity is not None and self._identity is not None:
            return True
        return self._line.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """A failure lasts until somebody answers: one that came between our look and this one is looked at now."""
        state = super().get_state(try_to_connect)
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            state = super().get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        # Of the line whose state was looked at: a new one is idle, too, and nobody has had it dial yet.
        await self._line.channel.wait_for_state_change(last_observed_state)

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        await asyncio.gather(*(line.close(grace) for line in (self._line, *self._old)))
