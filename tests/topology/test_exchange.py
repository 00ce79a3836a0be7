"""Streams of reports between real servers: who dials, what is refused, how a stream moves to a better link."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest

from rpc.little_service import LittleService
from thunderline.cluster import NodeId
from thunderline.cluster.errors import ClusterError, DeadlinePassed, InvalidRequest, Unreachable
from thunderline.cluster.graph import Version
from thunderline.cluster.limits import Limits
from thunderline.cluster.links import LinkId
from thunderline.cluster.members import MemberState
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.rpc.server import serving
from thunderline.topology import wire
from thunderline.topology.exchange import Exchange
from thunderline.topology.knowledge import Knowledge
from thunderline.topology.members import Members, Peer
from thunderline.topology.reports import Report
from thunderline.v1 import topology_pb2, topology_pb2_grpc
from topology.little_network import HERE, IDS, SERVICE_NAME, free_ports, until

A, B, C = IDS[:3]
LIMITS = Limits(probe_period_s=0.4, probe_timeout_s=0.3)
THERE = "127.0.0.2"
DEADLINE_S = 10.0


class Side(LittleService):
    """One node: its knowledge, its exchange, its server."""

    def __init__(self, node: NodeId, port: int, **deadlines_s: float) -> None:
        super().__init__()
        self.port = port
        self.news = 0
        self.knowledge = Knowledge(node, 1, {}, LIMITS.probe_period_s)
        self.exchange = Exchange(self.knowledge, LIMITS, None, self._news, **deadlines_s)

    def _news(self) -> None:
        self.news += 1

    async def WatchObservations(
        self, request_iterator: AsyncIterator[topology_pb2.WatchObservationsRequest], context: Any
    ) -> AsyncIterator[topology_pb2.WatchObservationsResponse]:
        async with contextlib.aclosing(self.exchange.answered(request_iterator, context)) as responses:
            async for response in responses:
                yield response

    def knows(self, *peers: Peer) -> None:
        self.knowledge.follow(Members({one.node: one for one in peers}, is_complete=True))

    def peer(self, *addresses: str, state: MemberState = MemberState.ALIVE) -> Peer:
        return Peer(self.knowledge.node, state, (1, ""), addresses or (HERE,), 1, self.port)

    def tell(self, number: int) -> None:
        report = Report(self.knowledge.node, Version(1, number))
        self.knowledge.report = report
        self.knowledge.reports = {**self.knowledge.reports, self.knowledge.node: report}
        self.exchange.changes.notify()

    def heard(self, node: NodeId) -> int:
        """The number of the node's newest report here; -1 for none."""
        report = self.knowledge.reports.get(node)
        return report.version.number if report else -1

    def has(self, node: NodeId, number: int) -> bool:
        return self.heard(node) == number

    def chooses(self, peer: NodeId, address: str) -> None:
        node = self.knowledge.node
        self.knowledge.chosen = {(node, peer): LinkId(node, peer, address)}

    @contextlib.asynccontextmanager
    async def served(self, *hosts: str, dials: bool = True) -> AsyncIterator["Side"]:
        def register(server: grpc.aio.Server) -> None:
            topology_pb2_grpc.add_TopologyServiceServicer_to_server(self, server)

        async with contextlib.AsyncExitStack() as stack:
            for host in hosts or (HERE,):
                await stack.enter_async_context(serving(f"{host}:{self.port}", [SERVICE_NAME], register))
            running = asyncio.create_task(self.exchange.run()) if dials else None
            try:
                yield self
            finally:
                self.exchange.changes.stop()
                if running is not None:
                    running.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await running


def sides() -> tuple[Side, Side]:
    ports = free_ports(2)
    return Side(A, ports[0]), Side(B, ports[1])


async def test_reports_go_both_ways_over_one_stream_as_they_change() -> None:
    one, other = sides()
    one.knows(other.peer())
    other.knows(one.peer())
    async with one.served(), other.served():
        await until("each has the other's", lambda: one.heard(B) == 0 and other.heard(A) == 0)
        one.tell(5)
        other.tell(7)
        await until("each has the other's new one", lambda: one.heard(B) == 7 and other.heard(A) == 5)
        assert (one.exchange.address(B), other.exchange.address(A)) == (HERE, "")
        assert one.exchange.joined == {B}
        assert other.exchange.joined == {A}


@pytest.mark.parametrize("first", [True, False], ids=["the smaller id cannot", "the larger id cannot"])
async def test_whoever_can_dial_dials(first: bool) -> None:
    one, other = sides()
    closed = Peer(B if first else A, MemberState.ALIVE, (1, ""), (HERE,), 1, free_ports(1)[0])
    one.knows(closed if first else other.peer())
    other.knows(one.peer() if first else closed)
    async with one.served(), other.served():
        await until("each has the other's", lambda: one.heard(B) == 0 and other.heard(A) == 0)
        one.tell(5)
        other.tell(7)
        await until("each has the other's new one", lambda: one.heard(B) == 7 and other.heard(A) == 5)


@pytest.mark.parametrize("state", [MemberState.DEAD, MemberState.SUSPECT], ids=lambda one: one.name)
async def test_who_is_dead_is_not_dialled(state: MemberState) -> None:
    one, other = sides()
    one.knows(other.peer(state=state))
    async with one.served(), other.served(dials=False):
        if state is MemberState.DEAD:
            await asyncio.sleep(0.6)
            assert not one.exchange.joined
            one.knows(other.peer())
        await until("it is dialled", lambda: one.exchange.joined)


async def test_an_address_that_does_not_answer_is_not_tried_alone() -> None:
    one, other = sides()
    one.knows(other.peer("127.0.0.77", THERE, HERE))
    async with one.served(), other.served(HERE, dials=False):
        await until("the one that answers is found", lambda: one.exchange.address(B) == HERE)


async def test_a_stream_moves_to_the_better_link_before_it_breaks_the_other() -> None:
    one, other = sides()
    one.knows(other.peer(THERE, HERE))
    other.knows(one.peer())
    async with one.served(), other.served(HERE, THERE, dials=False):
        await until("a stream stands", lambda: one.exchange.address(B) == THERE)
        broken = []

        async def watch() -> None:
            while True:
                broken.append(B not in one.exchange.joined)
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        one.chooses(B, HERE)
        await until("it is on the better one", lambda: one.exchange.address(B) == HERE)
        one.tell(9)
        await until("reports go on", lambda: other.heard(A) == 9)
        await until("the old one is gone", lambda: other.exchange.answered_count == 1)
        watching.cancel()
        assert not any(broken)


async def test_a_better_link_that_does_not_answer_breaks_nothing() -> None:
    one, other = sides()
    one.knows(other.peer(HERE))
    other.knows(one.peer())
    async with one.served(), other.served(HERE, dials=False):
        await until("a stream stands", lambda: one.exchange.address(B) == HERE)
        one.chooses(B, "127.0.0.77")
        await asyncio.sleep(1.0)
        assert one.exchange.address(B) == HERE
        one.tell(9)
        await until("reports go on", lambda: other.heard(A) == 9)


async def test_a_restarted_peer_gets_everything_again() -> None:
    one, other = sides()
    one.knows(other.peer())
    one.tell(5)
    async with one.served():
        for _ in range(2):
            again = Side(B, other.port)
            again.knows(one.peer())
            async with again.served():
                await until("it has our report", partial(again.has, A, 5))


async def ended(side: Side, *messages: topology_pb2.WatchObservationsRequest) -> ClusterError:
    """How a stream ends on which these come."""
    async with dial(f"{HERE}:{side.port}") as channel:
        call: Any = topology_pb2_grpc.TopologyServiceStub(channel).WatchObservations(timeout=DEADLINE_S)
        for message in messages:
            await call.write(message)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        return from_call(caught.value)


def message(node: str, *reports: Report) -> topology_pb2.WatchObservationsRequest:
    return topology_pb2.WatchObservationsRequest(
        node_id=node, reports=[wire.report_to_proto(report) for report in reports]
    )


BAD: dict[str, list[topology_pb2.WatchObservationsRequest]] = {
    "nobody": [message("")],
    "a name without end": [message("x" * 65)],
    "this node itself": [message(B)],
    "first one, then another": [message(A), message(C)],
    "too many reports": [message(A, *[Report(A, Version(1, 1))] * 65)],
    "a report that breaks a bound": [message(A, Report(NodeId("x" * 65), Version(1, 1)))],
    "a version below zero": [message(A, Report(A, Version(1, -1)))],
}


@pytest.mark.parametrize("messages", BAD.values(), ids=BAD.keys())
async def test_a_stream_that_breaks_a_bound_ends_and_nothing_of_it_stays(
    messages: list[topology_pb2.WatchObservationsRequest],
) -> None:
    _, other = sides()
    other.knows(Peer(A, MemberState.ALIVE, (1, ""), (), 1, 1))
    async with other.served(dials=False):
        assert isinstance(await ended(other, *messages), InvalidRequest)
        await until("the stream is forgotten", lambda: not other.exchange.joined)
        assert set(other.knowledge.reports) == {B}


async def test_a_stream_that_never_names_itself_gives_its_place_back() -> None:
    other = Side(B, free_ports(1)[0], first_word_s=0.3)
    async with other.served(dials=False):
        nameless = asyncio.create_task(ended(other))
        await until("it has a place", lambda: other.exchange.answered_count == 1)
        error = await nameless
        assert isinstance(error, DeadlinePassed)
        assert error.message == "a peer names itself within 0.3 s"
        assert other.exchange.answered_count == 0


async def test_one_that_has_named_itself_may_be_silent() -> None:
    other = Side(B, free_ports(1)[0], first_word_s=0.3)
    other.knows(Peer(A, MemberState.ALIVE, (1, ""), (), 1, 1))
    async with other.served(dials=False), dial(f"{HERE}:{other.port}") as channel:
        call: Any = topology_pb2_grpc.TopologyServiceStub(channel).WatchObservations(timeout=DEADLINE_S)
        await call.write(message(A))
        await until("it stands", lambda: other.exchange.joined == {A})
        await asyncio.sleep(0.6)
        assert other.exchange.joined == {A}
        call.cancel()


async def test_a_peer_that_does_not_read_gives_its_place_back() -> None:
    other = Side(B, free_ports(1)[0], write_s=0.3)
    other.knows(Peer(A, MemberState.ALIVE, (1, ""), (), 1, 1))
    # It takes less unread than the first message has.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16)]
    async with other.served(dials=False), grpc.aio.insecure_channel(f"{HERE}:{other.port}", options=options) as channel:
        call: Any = topology_pb2_grpc.TopologyServiceStub(channel).WatchObservations(timeout=60)
        await call.write(message(A))
        await until("it stands", lambda: other.exchange.joined == {A})
        await until("it is let go", lambda: other.exchange.answered_count == 0)
        assert not other.exchange.joined
        # Who reads on later learns that nobody is there any more.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert from_call(caught.value).message == "nothing was read for 0.3 s"


async def test_reports_of_no_member_are_dropped() -> None:
    _, other = sides()
    other.knows(Peer(A, MemberState.ALIVE, (1, ""), (), 1, 1))
    async with other.served(dials=False), dial(f"{HERE}:{other.port}") as channel:
        call: Any = topology_pb2_grpc.TopologyServiceStub(channel).WatchObservations(timeout=DEADLINE_S)
        await call.write(message(A, Report(A, Version(1, 1)), Report(C, Version(1, 1))))
        await until("the member's is there", lambda: other.heard(A) == 1)
        assert other.heard(C) == -1
        call.cancel()
        await until("the stream is forgotten", lambda: not other.exchange.joined)


async def test_the_newest_stream_of_a_node_takes_the_place_of_the_older() -> None:
    _, other = sides()
    other.knows(Peer(A, MemberState.ALIVE, (1, ""), (), 1, 1))
    async with other.served(dials=False), dial(f"{HERE}:{other.port}") as channel:
        stub = topology_pb2_grpc.TopologyServiceStub(channel)
        older: Any = stub.WatchObservations(timeout=DEADLINE_S)
        await older.write(message(A))
        await until("it stands", lambda: other.exchange.joined == {A})
        newer: Any = stub.WatchObservations(timeout=DEADLINE_S)
        await newer.write(message(A, Report(A, Version(1, 3))))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await older.read() is not grpc.aio.EOF:
                pass
        assert isinstance(from_call(caught.value), Unreachable)
        await until("the newer one is heard", lambda: other.heard(A) == 3)
        assert other.exchange.joined == {A}
        newer.cancel()


async def test_many_reports_come_in_messages_within_their_bounds() -> None:
    one, other = sides()
    crowd = [Peer(NodeId(f"node-{number}"), MemberState.DEAD, (1, ""), (), 1, 1) for number in range(150)]
    one.knows(other.peer(), *crowd)
    other.knows(one.peer(), *crowd)
    one.knowledge.take(Report(peer.node, Version(1, 1)) for peer in crowd)
    async with one.served(), other.served(dials=False):
        await until("all have come", lambda: len(other.knowledge.reports) == 152)
