"""A connection to one peer, at the best of its addresses: it moves there, new channel first (moves.py decides).

Stubs and clients take it for a channel: a call goes where the connection is when it begins, and ends there. Watches
that should come along go through following.py.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import target
from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.limits import DEFAULTS
from thunderline.process.changes import Changes
from thunderline.rpc import moves
from thunderline.rpc.channel import dial
from thunderline.rpc.lines import Line, LineChannel, broken

if TYPE_CHECKING:
    from thunderline.process.trust import Wallet

# A role that restarts is back before this part of a probe's time-out; then another address is tried as well.
PATIENCE = 0.5

log = logging.getLogger(__name__)


class KnowsBest(Protocol):
    """Which address of each peer is the best: ways.py."""

    @property
    def best(self) -> Mapping[NodeId, str]: ...

    @property
    def changes(self) -> Changes: ...


class _Try(Line):
    """A channel to one target, and whether it answers."""

    def __init__(
        self, target: str, channel: grpc.aio.Channel, wake: Callable[[], None], tasks: asyncio.TaskGroup
    ) -> None:
        super().__init__(channel)
        self.target = target
        self.works = False
        self._wake = wake
        self._watching = tasks.create_task(self._watch(), name=f"connection to {target}")

    async def _watch(self) -> None:
        """Has it dial, again and again, at the pace of the channel's own back-off."""
        while True:
            state = self.channel.get_state(try_to_connect=True)
            if self.works != (state is grpc.ChannelConnectivity.READY):
                self.works = not self.works
                self._wake()
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                return
            await self.channel.wait_for_state_change(state)

    def retire(self) -> None:
        # Its calls end there; once its connection breaks it is not dialled again.
        self._watching.cancel()
        super().retire()

    async def close(self, grace: float | None = None) -> None:
        self._watching.cancel()
        await super().close(grace)


class Moving(LineChannel):
    """`run` moves it; `aim` says where the peer may be reached. Before both, calls fail as to a peer that is gone."""

    def __init__(
        self,
        node: NodeId | None = None,
        ways: KnowsBest | None = None,
        wallet: "Wallet | None" = None,
        patience_s: float = PATIENCE * DEFAULTS.probe_timeout_s,
    ) -> None:
        self.node = node
        # Of where calls go.
        self.changes = Changes()
        # Why it cannot dial: a certificate of our own that nobody takes; "" when it can.
        self.problem = ""
        self._ways = ways
        self._wallet = wallet
        self._patience_s = patience_s
        self._targets: tuple[str, ...] = ()
        self._port = 0
        self._current: _Try | None = None
        self._tries: list[_Try] = []
        self._old: list[_Try] = []
        self._awake = asyncio.Event()
        # Since when the current one has been as it is, or something was tried.
        self._since_s = -math.inf
        self._worked = False

    @classmethod
    def at(cls, target: str, wallet: "Wallet | None" = None, node: NodeId | None = None) -> "Moving":
        """To the one "host:port" of a role of our own node: it stays there, and dials again when the role is back."""
        found = cls(node, None, wallet)
        host, _, port = target.rpartition(":")
        found.aim(moves.Reach((host.strip("[]"),), int(port)))
        return found

    def aim(self, reach: moves.Reach) -> None:
        """Where it may be reached: addresses of its card, until topology knows better."""
        if (reach.targets, reach.port) != (self._targets, self._port):
            self._targets, self._port = reach.targets, reach.port
            self._awake.set()

    @property
    def target(self) -> str:
        """ "host:port" where calls go; "" before anything was dialled."""
        return self._current.target if self._current else ""

    @property
    def works(self) -> bool:
        return self._current is not None and self._current.works

    @property
    def targets(self) -> tuple[str, ...]:
        """All that may be tried, as they were given."""
        return self._targets

    def _newest(self) -> Line:
        if self._current is None:
            if self.problem:
                raise broken(self.problem, grpc.StatusCode.UNAUTHENTICATED)
            raise broken(f"no address of node {self.node or 'unknown'} is known yet")
        return self._current

    async def run(self) -> None:
        """Until cancelled. Calls that are under way then end where they are."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._ways is not None:
                    tasks.create_task(self._hear(self._ways.changes), name=f"ways to {self.node}")
                while True:
                    self._awake.clear()
                    wait_s = self._pass(tasks, asyncio.get_running_loop().time())
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._awake.wait()
        finally:
            await asyncio.gather(*(line.left() for line in self._taken()))

    async def _hear(self, ways: Changes) -> None:
        """A better way wakes it."""
        seen = ways.version
        while True:
            seen = await ways.after(seen)
            self._awake.set()

    def _best(self) -> str:
        address = self._ways.best.get(self.node) if self._ways and self.node else None
        return target(address, self._port) if address and self._port else ""

    def _pass(self, tasks: asyncio.TaskGroup, now_s: float) -> float | None:
        """Looks, and does what is wanted; seconds until time alone may change that."""
        if self.works != self._worked:
            self._worked, self._since_s = self.works, now_s
        best, is_over = self._best(), now_s - self._since_s >= self._patience_s
        wanted = moves.wanted(self._held(), self._targets, best, is_over)
        for one in [one for one in self._tries if one.target not in wanted]:
            self._tries.remove(one)
            self._let_go(one)
        known = {one.target for one in self._tries}
        for wish in wanted:
            if wish not in known:
                self._try(wish, tasks, now_s)
        answering = [one for one in self._tries if one.works]
        if answering or (self._current is None and self._tries):
            order = moves.in_order(self._targets, best)
            self._become(min(answering or self._tries[:1], key=lambda one: order.index(one.target)), now_s)
        is_settled = self.works and not self._tries and (not best or best == self.target)
        return None if is_settled or not (self._targets or best) else self._patience_s

    def _held(self) -> moves.Held:
        return moves.Held(self.target, self.works, tuple(one.target for one in self._tries))

    def _try(self, target: str, tasks: asyncio.TaskGroup, now_s: float) -> None:
        self._since_s = now_s
        try:
            channel = dial(target, self._wallet, self.node)
        except Unauthenticated as error:
            if self.problem != error.message:
                log.warning("a peer cannot be dialled: %s", error.message, extra={"node": self.node, "at": target})
            self.problem = error.message
            return
        self.problem = ""
        self._tries.append(_Try(target, channel, self._awake.set, tasks))

    def _become(self, one: _Try, now_s: float) -> None:
        """New calls go there; those under way end where they are."""
        former, self._current = self._current, one
        self._tries.remove(one)
        self._worked, self._since_s = one.works, now_s
        if former is not None:
            log.info("a connection moves", extra={"node": self.node, "from": former.target, "to": one.target})
            self._let_go(former)
        self.changes.notify()
        # What else was tried is looked at again.
        self._awake.set()

    def _let_go(self, one: _Try) -> None:
        one.retire()
        self._old = [each for each in (*self._old, one) if not each.is_gone]

    async def close(self, grace: float | None = None) -> None:
        """Breaks what is under way."""
        await asyncio.gather(*(line.close(grace) for line in self._taken()))

    def _taken(self) -> list[_Try]:
        """All lines; none is left here."""
        lines = [*([self._current] if self._current else []), *self._tries, *self._old]
        self._current, self._tries, self._old = None, [], []
        return lines
