"""Keeps what this node tells up to date: its report, the graph, the choices, the remembered cables, the metrics."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.limits import Limits
from thunderline.process.changes import Changes
from thunderline.process.rereading import Rereading
from thunderline.process.trust import Wallet
from thunderline.rpc.channel import dial
from thunderline.topology import measures
from thunderline.topology.ends import Ends
from thunderline.topology.exchange import Exchange
from thunderline.topology.knowledge import RTT_PERIOD_COUNT, Knowledge
from thunderline.topology.memory import keep_cables, keep_start
from thunderline.topology.prober import Prober
from thunderline.v1 import discovery_pb2, discovery_pb2_grpc

# Changes that come together are told together.
PACE_S = 0.2
# A graph of many nodes takes its time: no more than half a hundredth of a core, and never later than this.
COST_FACTOR, PACE_MAX_S = 200.0, 2.0
# Of an RTT alone nobody is woken: it is looked for this often.
LOOK_S = 1.0
LOOK_AT_INTERFACES_S = 2.0
# A cable's last day is kept by the hour.
CABLES_KEPT_S = 3600.0
# A full disk is tried again after this.
KEEP_AGAIN_S = 60.0
REDIAL_S = 0.25
REFUSED_LOG_S = 60.0

log = logging.getLogger(__name__)


class Keeper:
    """`changes` is notified when the topology that this node tells is another one."""

    def __init__(
        self, knowledge: Knowledge, prober: Prober, exchange: Exchange, changes: Changes, home: Path, limits: Limits
    ) -> None:
        self._knowledge = knowledge
        self._prober = prober
        self._exchange = exchange
        self._changes = changes
        self._home = home
        self._dead_s, self._period_s = limits.dead_s, limits.probe_period_s
        self._begun_s = self._renewed_s = asyncio.get_running_loop().time()
        self._is_dirty = asyncio.Event()
        self._kept_start = knowledge.start
        self._kept_cables = dict(knowledge.cables)
        self._keep_from_s = 0.0
        self.complete = False

    def touched(self) -> None:
        """Something is another one: a row, a report, the roster."""
        self._is_dirty.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._is_dirty.wait()
            is_urgent = self._is_dirty.is_set()
            self._is_dirty.clear()
            begun_s = time.thread_time()
            self.renew(is_urgent)
            cost_s = time.thread_time() - begun_s
            await self._keep()
            await asyncio.sleep(min(max(PACE_S, cost_s * COST_FACTOR), PACE_MAX_S))

    def renew(self, is_urgent: bool) -> None:
        """All that follows from what is known now. RTTs alone wait as long for the graph as for a report."""
        knowledge, now_s = self._knowledge, asyncio.get_running_loop().time()
        measures.STREAMS.set(len(self._exchange.joined))
        is_told = self._tell(now_s)
        # Until all is known time alone may make it so.
        pace_s = self._period_s * (RTT_PERIOD_COUNT if self.complete else 1)
        if not (is_urgent or is_told) and now_s - self._renewed_s < pace_s:
            return
        self._renewed_s = now_s
        taken = knowledge.taken
        is_changed = knowledge.renew(time.time())
        if knowledge.taken != taken and self._tell(now_s):
            # Others get a choice together with what it follows from.
            is_changed |= knowledge.renew(time.time())
        # Protocols B, point 1: at the latest one dead-time after the start.
        knows = not knowledge.graph.incomplete or now_s - self._begun_s >= self._dead_s
        complete = knowledge.members.is_complete and knows
        if complete != self.complete:
            self.complete = complete
            knowledge.touch()
            is_changed = True
        if is_changed:
            own = [link for link in knowledge.graph.links if link.from_node == knowledge.node]
            measures.show_links(own, knowledge.chosen.values())
            self._changes.notify()

    def _tell(self, now_s: float) -> bool:
        """Whether there was news."""
        prober, exchange = self._prober, self._exchange
        is_told = self._knowledge.tell(prober.rows, prober.arrivals, exchange.joined, now_s)
        if is_told:
            exchange.changes.notify()
        return is_told

    async def _keep(self) -> None:
        """On disk, what has to outlive the role."""
        wall_s, cables = time.time(), dict(self._knowledge.cables)
        is_other = cables.keys() != self._kept_cables.keys()
        is_old = any(seen_s - self._kept_cables.get(one, 0.0) > CABLES_KEPT_S for one, seen_s in cables.items())
        start = self._knowledge.start
        if wall_s < self._keep_from_s or not (is_other or is_old or start != self._kept_start):
            return
        try:
            if start != self._kept_start:
                await asyncio.to_thread(keep_start, self._home, start)
                self._kept_start = start
            await asyncio.to_thread(keep_cables, self._home, cables)
            self._kept_cables = cables
        except OSError as error:
            self._keep_from_s = wall_s + KEEP_AGAIN_S
            log.warning("what topology remembers cannot be written", extra={"why": str(error)})

    async def keep_interfaces(self, ends: Ends, every_s: float = LOOK_AT_INTERFACES_S) -> None:
        """Notices interfaces that come, go or change, until cancelled."""
        told, reading = ends.interfaces, Rereading("the interfaces", ends.look)
        measures.show_interfaces(told)
        while True:
            await asyncio.sleep(every_s)
            # A connection over a new one may have had it looked for already.
            await reading.look()
            if ends.interfaces != told:
                told = ends.interfaces
                measures.show_interfaces(told)
                self._knowledge.touch()
                self._changes.notify()


async def follow_roster(
    discovery: str, wallet: Wallet | None, node: NodeId, follow: Callable[[discovery_pb2.Roster], None]
) -> None:
    """This node's own discovery, until cancelled. While it is away the last roster stays."""
    logged_s = -REFUSED_LOG_S
    clock = asyncio.get_running_loop().time
    while True:
        try:
            async with dial(discovery, wallet, node) as channel:
                stub = discovery_pb2_grpc.DiscoveryServiceStub(channel)
                while True:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        async for response in stub.WatchRoster(discovery_pb2.WatchRosterRequest()):
                            follow(response.roster)
                    await asyncio.sleep(REDIAL_S)
        except Unauthenticated as error:
            if clock() - logged_s >= REFUSED_LOG_S:
                logged_s = clock()
                log.warning("this node's discovery cannot be asked: %s", error.message)
        await asyncio.sleep(REDIAL_S)
