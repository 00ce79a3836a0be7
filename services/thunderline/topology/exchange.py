"""Streams between topologies: each tells the other what it saw, and what others told it, whoever has dialled.

Whoever can dial dials. The node with the smaller id does so at once, the other after a probe period without a stream,
and lets go of its own as soon as the other's stands: so one stream joins two nodes that can both dial.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_ipv4, target
from thunderline.cluster.errors import (
    ClusterError,
    DeadlinePassed,
    Draining,
    Full,
    InvalidRequest,
    Unauthenticated,
    Unreachable,
)
from thunderline.cluster.limits import Limits
from thunderline.cluster.links import in_order
from thunderline.process.changes import Changes
from thunderline.process.trust import Wallet
from thunderline.rpc.admission import caller_of
from thunderline.rpc.channel import dial
from thunderline.topology import wire
from thunderline.topology.knowledge import Knowledge, News
from thunderline.topology.members import Peer
from thunderline.topology.peering import Dialled, Peering, how_it_ended
from thunderline.topology.reports import Report
from thunderline.topology.talk import Message, Talk
from thunderline.v1 import topology_pb2, topology_pb2_grpc

# Changes that come together are told together.
SEND_PACE_S = 0.1
# A peer's first word: a TLS handshake and a message, on a busy machine.
FIRST_WORD_S = 3.0
# A peer that does not read for so long is gone.
WRITE_S = 10.0
# The first try of a peer that is there comes at once, the next ones after this, doubled up to a probe period.
REDIAL_MIN_S = 0.25
LOOK_S = 0.25
# A stream that lived so long was good: the next dial starts from the shortest wait again.
GOOD_S = 10.0
STREAM_COUNT_MAX = 256

log = logging.getLogger(__name__)


class Exchange:
    """`news` is called when a peer has told more than RTTs, comes or goes.

    `changes` has to be notified when there is more to tell.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        limits: Limits,
        wallet: Wallet | None,
        news: Callable[[], None],
        *,
        first_word_s: float = FIRST_WORD_S,
        write_s: float = WRITE_S,
    ) -> None:
        self._knowledge = knowledge
        self._limits = limits
        self._wallet = wallet
        self._news = news
        self._first_word_s = first_word_s
        self._write_s = write_s
        self.changes = Changes()
        self._peerings: dict[NodeId, Peering] = {}
        self._heard: dict[NodeId, Talk] = {}
        # Streams that peers have dialled.
        self.answered_count = 0

    @property
    def joined(self) -> frozenset[NodeId]:
        """Peers with which a stream stands."""
        dialled = {node for node, one in self._peerings.items() if one.stands}
        return frozenset(dialled | self._heard.keys())

    def address(self, peer: NodeId) -> str:
        """By which this node's own stream to a peer goes; "" where it has none."""
        found = self._peerings.get(peer)
        return found.standing.address if found and found.standing else ""

    def begun_again(self, peer: NodeId) -> None:
        """It is ALIVE again, or in another life: it is dialled at once."""
        if (found := self._peerings.get(peer)) is not None:
            found.dial_count, found.dial_from_s = 0, 0.0

    async def run(self) -> None:
        """Sees to it that there is a stream with every peer, until cancelled."""
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as tasks:
            while True:
                before = self.joined
                for node in self._peerings.keys() - self._knowledge.members.peers.keys():
                    self._end(self._peerings.pop(node))
                for node, peer in self._knowledge.members.peers.items():
                    self._look_after(self._peerings.setdefault(node, Peering()), peer, clock(), tasks)
                if self.joined != before:
                    self._news()
                await asyncio.sleep(LOOK_S)

    def _look_after(self, one: Peering, peer: Peer, now_s: float, tasks: asyncio.TaskGroup) -> None:
        if one.next is not None and one.next.task.done():
            one.next = None
        if one.next is not None and one.next.stands:
            self._stop(one.stream)
            one.stream, one.next = one.next, None
        if one.stream is not None and one.stream.task.done():
            one.dial_count = 0 if now_s - one.stream.begun_s > GOOD_S else one.dial_count
            one.stream = None
        is_first = self._knowledge.node < peer.node
        if not peer.is_present or (not is_first and peer.node in self._heard):
            self._end(one)
            one.lonely_since_s = None
        elif one.stream is not None:
            one.lonely_since_s = None
            self._move(one, peer, now_s, tasks)
        elif peer.node in self._heard:
            one.lonely_since_s = None
        else:
            one.lonely_since_s = now_s if one.lonely_since_s is None else one.lonely_since_s
            waits_s = 0.0 if is_first else self._limits.probe_period_s
            if now_s >= max(one.lonely_since_s + waits_s, one.dial_from_s):
                self._dial(one, peer, now_s, tasks)

    def _dial(self, one: Peering, peer: Peer, now_s: float, tasks: asyncio.TaskGroup) -> None:
        addresses = self._addresses(peer)
        if addresses:
            one.stream = self._dialled(peer, addresses[one.dial_count % len(addresses)], now_s, tasks)
        one.dial_count += 1
        wait_s = min(REDIAL_MIN_S * 2 ** min(one.dial_count - 1, 16), self._limits.probe_period_s)
        one.dial_from_s = now_s + wait_s

    def _move(self, one: Peering, peer: Peer, now_s: float, tasks: asyncio.TaskGroup) -> None:
        """Make before break: the stream on the better link stands before the other ends."""
        best = self._knowledge.best(peer.node)
        if one.stream is None or one.next is not None or best in ("", one.stream.address):
            return
        if one.stream.stands and now_s >= one.dial_from_s:
            one.next = self._dialled(peer, best, now_s, tasks)
            one.dial_from_s = now_s + self._limits.probe_period_s / 2

    def _addresses(self, peer: Peer) -> list[str]:
        """The best first; before a probe has crossed, to dial an advertised address is the probe."""
        links = self._knowledge.by_pair.get((self._knowledge.node, peer.node), ())
        known = [self._knowledge.best(peer.node), *(link.address for link in in_order(links))]
        rest = sorted(peer.addresses, key=lambda address: not is_ipv4(address))
        return [address for address in dict.fromkeys([*known, *rest]) if address]

    def _dialled(self, peer: Peer, address: str, now_s: float, tasks: asyncio.TaskGroup) -> Dialled:
        talk = Talk(peer.node)
        task = tasks.create_task(self._hold(peer, address, talk), name=f"reports to {peer.node} at {address}")
        return Dialled(address, talk, task, now_s)

    def _end(self, one: Peering) -> None:
        self._stop(one.stream)
        self._stop(one.next)
        one.stream = one.next = None

    def _stop(self, dialled: Dialled | None) -> None:
        if dialled is not None:
            dialled.talk.is_over = True
            dialled.task.cancel()

    async def _hold(self, peer: Peer, address: str, talk: Talk) -> None:
        """One stream from its dial to its end, which is no fault."""
        try:
            async with dial(target(address, peer.topology_port), self._wallet, peer.node) as channel:
                why = await self._both_ways(topology_pb2_grpc.TopologyServiceStub(channel).WatchObservations(), talk)
        except ClusterError as error:
            why = error.message
        log.debug("a stream of reports ended", extra={"peer": peer.node, "address": address, "why": why})

    async def _both_ways(self, call: Any, talk: Talk) -> str:
        """Why it ended.

        gRPC keeps the connection as long as anybody holds the call, if only a traceback that refers to itself: so no
        exception of the two tasks is raised on, and no TaskGroup keeps it.
        """
        hearing = asyncio.create_task(self._hear(call, talk))
        telling = asyncio.create_task(self._tell(call, talk))
        try:
            await asyncio.wait({hearing, telling}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            call.cancel()
            await _over(hearing, telling)
        return how_it_ended(hearing) or how_it_ended(telling) or "the peer has ended it"

    async def _hear(self, call: Any, talk: Talk) -> None:
        """Raises AioRpcError, ClusterError, TimeoutError."""
        async with asyncio.timeout(self._first_word_s):
            response = await call.read()
        while response is not grpc.aio.EOF:
            self._take(talk, response)
            if not talk.stands:
                # What came since its stream began was passed on to those that stood.
                talk.stands = True
                self.changes.notify()
                self._news()
            response = await call.read()

    async def _tell(self, call: Any, talk: Talk) -> None:
        async with aclosing(self._messages(talk)) as messages:
            async for message in messages:
                try:
                    async with asyncio.timeout(self._write_s):
                        await call.write(topology_pb2.WatchObservationsRequest(**message))
                except asyncio.InvalidStateError:
                    # The call is over: who reads it learns why.
                    return

    async def answered(
        self, requests: AsyncIterator[topology_pb2.WatchObservationsRequest], context: Any
    ) -> AsyncGenerator[topology_pb2.WatchObservationsResponse, None]:
        """A stream that a peer has dialled. Raises InvalidRequest, Unauthenticated, Full, Unreachable, DeadlinePassed,
        Draining."""
        if self.answered_count >= STREAM_COUNT_MAX:
            raise Full(f"{STREAM_COUNT_MAX} streams stand already", retry_after_s=self._limits.probe_period_s)
        talk = Talk()
        self.answered_count += 1
        reading = asyncio.create_task(self._read(requests, context, talk), name="reports of a peer")
        messages = self._messages(talk)
        sending = asyncio.create_task(_next(messages))
        try:
            while True:
                await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
                    return
                message = sending.result()
                if message is None:
                    raise Unreachable("another stream of the same node has taken its place")
                # gRPC ends no call while a message is under way: only the place is given back then.
                unread = asyncio.get_running_loop().call_later(self._write_s, self._let_go, talk)
                try:
                    yield topology_pb2.WatchObservationsResponse(**message)
                finally:
                    unread.cancel()
                if talk.is_let_go:
                    raise DeadlinePassed(f"nothing was read for {self._write_s:g} s")
                sending = asyncio.create_task(_next(messages))
        finally:
            self._let_go(talk)
            await _over(reading, sending)
            await messages.aclose()

    def _let_go(self, talk: Talk) -> None:
        if talk.is_let_go:
            return
        talk.is_let_go = True
        self.answered_count -= 1
        if talk.peer is not None and self._heard.get(talk.peer) is talk:
            del self._heard[talk.peer]
            self._news()

    async def _read(
        self, requests: AsyncIterator[topology_pb2.WatchObservationsRequest], context: Any, talk: Talk
    ) -> None:
        """Until the peer ends the stream. Raises ClusterError."""
        try:
            async with asyncio.timeout(self._first_word_s) as waiting:
                async for request in requests:
                    if talk.peer is None:
                        self._greet(talk, NodeId(request.node_id), context)
                        waiting.reschedule(None)
                    self._take(talk, request)
        except TimeoutError:
            raise DeadlinePassed(f"a peer names itself within {self._first_word_s:g} s") from None

    def _greet(self, talk: Talk, peer: NodeId, context: Any) -> None:
        """The newest stream of a node counts. Raises InvalidRequest, Unauthenticated."""
        if self._wallet is not None and context.auth_context().get("x509_pem_cert"):
            bearer = caller_of(context, self._wallet).bearer
            if bearer.name != peer:
                raise Unauthenticated(f"{bearer} speaks for node {peer}")
        if peer in ("", self._knowledge.node) or len(peer) > wire.TEXT_LENGTH_MAX:
            raise InvalidRequest("a peer names itself first, and is another node", param="node_id")
        if (older := self._heard.get(peer)) is not None:
            older.is_over = True
        talk.peer = peer
        self._heard[peer] = talk
        self.changes.notify()
        self._news()

    def _take(self, talk: Talk, message: Message) -> None:
        """Raises InvalidRequest."""
        found = talk.told(self._knowledge, message)
        news = self._knowledge.take(found)
        if talk.is_behind or (news and any(self._is_passed_on(report) for report in found)):
            self.changes.notify()
        if news is News.OF_LINKS:
            self._news()

    def _is_passed_on(self, report: Report) -> bool:
        """Whether a peer of ours lacks it: where everybody has a stream to everybody nobody is woken for nothing.

        An own one from before our start makes us tell a newer one.
        """
        return report.node == self._knowledge.node or not self.joined <= {report.node, *report.tells}

    async def _messages(self, talk: Talk) -> AsyncGenerator[dict[str, Any], None]:
        """What to send, as it comes up; the first at once, whatever there is. Ends when the stream is over.

        Raises Draining.
        """
        is_first = True
        while not talk.is_over and not self.changes.stopped:
            seen = self.changes.version
            if is_first or talk.peer is not None:
                for message in talk.to_tell(self._knowledge, is_first):
                    yield message
                is_first = False
            await asyncio.sleep(SEND_PACE_S)
            await self.changes.after(seen)
        if self.changes.stopped:
            raise Draining("the role is stopping")


async def _over(*tasks: "asyncio.Task[Any]") -> None:
    """Ends them, whatever they have to say."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _next(messages: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    """The next one, None at the end."""
    return await anext(messages, None)
