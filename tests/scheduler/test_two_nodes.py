"""A scheduler and the runners of two nodes: found in the roster, reached by the better link, one node's absence."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from rpc.little_roles import LittleDiscovery, LittleTopology, connected
from scheduler.little_client import calling
from scheduler.little_runner import FIRST, LAST, SERVICE, LittleRunner, finished, first_then
from scheduler.little_scheduler import LIMITS, NODE, ROOM, House, Life, free_address
from thunderline.cluster import NodeId
from thunderline.rpc.server import serving
from thunderline.v1 import cluster_pb2, discovery_pb2

OTHER = NodeId("other")
CABLE, VPN = "127.0.0.2", "127.0.0.3"
ALIVE, DEAD, LEFT = (
    discovery_pb2.MEMBER_STATE_ALIVE,
    discovery_pb2.MEMBER_STATE_DEAD,
    discovery_pb2.MEMBER_STATE_LEFT,
)
DEADLINE_S = 20.0


def member(runner: LittleRunner, state: discovery_pb2.MemberState.ValueType, *addresses: str) -> discovery_pb2.Member:
    host, _, port = runner.address.rpartition(":")
    endpoint = cluster_pb2.RoleEndpoint(role="runner", host=host, port=int(port))
    card = cluster_pb2.NodeCard(node_id=runner.node, addresses=addresses, endpoints=[endpoint])
    return discovery_pb2.Member(card=card, state=state)


@dataclass
class TwoNodes:
    """The scheduler's own node, and another one that can be reached at two addresses."""

    home: House
    other: LittleRunner
    discovery: LittleDiscovery
    topology: LittleTopology

    @property
    def port(self) -> int:
        return int(self.other.address.rpartition(":")[2])

    def target(self, address: str) -> str:
        return f"{address}:{self.port}"

    def tell(self, state: discovery_pb2.MemberState.ValueType = ALIVE) -> None:
        members = [member(self.home.runner, ALIVE, "192.0.2.1"), member(self.other, state, CABLE, VPN)]
        self.discovery.tell(discovery_pb2.Roster(members=members, complete=True, node_id=NODE))

    def at(self, address: str) -> "contextlib.AbstractAsyncContextManager[object]":
        return serving(self.target(address), [SERVICE], self.other._register)


@contextlib.asynccontextmanager
async def two_nodes(folder: Path) -> AsyncIterator[TwoNodes]:
    own, other = LittleRunner(NODE, free_address()), LittleRunner(OTHER, free_address())
    discovery, topology = LittleDiscovery(discovery_pb2.Roster(node_id=NODE)), LittleTopology()
    home = House(folder, own, free_address(), free_address())
    found = TwoNodes(home, other, discovery, topology)
    found.tell()
    async with discovery.at(home.discovery), topology.at(home.topology):
        await home.start_runner()
        try:
            yield found
        finally:
            other.changes.stop()
            await home.stop_runner()


def is_heard(life: Life, node: NodeId) -> bool:
    runner = life.control.runners.nodes.get(node)
    return runner is not None and runner.view.reachable


async def test_a_deployment_goes_to_the_node_that_has_its_files(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two, two.at(CABLE), two.home.scheduler() as life:
        two.home.runner.has_files.clear()
        await life.until("both runners", lambda: is_heard(life, NODE) and is_heard(life, OTHER))
        await life.deploy()
        await life.until_state("READY")
        assert (two.home.runner.ranks, len(two.other.ranks)) == ({}, 1)
        cluster = await life.client.cluster()
        assert cluster.complete
        assert {one.card.node_id for one in cluster.roster.members} == {NODE, OTHER}
        two.other.answer = finished
        async with calling(life, life.generation()) as call:
            assert [message async for message in call] == [FIRST, LAST]


async def test_a_runner_is_reached_at_the_address_that_answers(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two, two.at(VPN), two.home.scheduler() as life:
        await life.until("the other runner", lambda: is_heard(life, OTHER))
        assert connected(two.target(VPN)) == 1


async def test_the_connection_moves_under_a_stream_which_ends_where_it_began(tmp_path: Path) -> None:
    going_on = asyncio.Event()
    async with two_nodes(tmp_path) as two, two.at(CABLE), two.at(VPN), two.home.scheduler(ROOM) as life:
        two.home.runner.has_files.clear()
        two.topology.tell_best({OTHER: VPN})
        await life.deploy()
        await life.until_state("READY")
        await life.until("by the VPN", lambda: life.control.runners.nodes[OTHER].connection.target == two.target(VPN))
        two.other.answer = first_then(going_on.wait)
        async with calling(life, life.generation()) as call:
            messages = call.__aiter__()
            assert await anext(messages) == FIRST
            two.topology.tell_best({OTHER: CABLE})
            await life.until(
                "by the cable", lambda: life.control.runners.nodes[OTHER].connection.target == two.target(CABLE)
            )
            # What begins now takes the cable; the stream stays.
            async with calling(life, life.generation()) as second:
                assert await anext(second.__aiter__()) == FIRST
                assert connected(two.target(VPN)) == connected(two.target(CABLE)) == 1
                going_on.set()
                assert [message async for message in messages] == [LAST]
        await life.until("nothing by the VPN", lambda: not connected(two.target(VPN)))
        assert is_heard(life, OTHER)
        assert [state for state in life.states if state != "WAITING"] == ["STARTING", "READY"]


async def test_a_way_that_breaks_leaves_the_deployment_as_it_is(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two, two.at(CABLE), two.home.scheduler() as life:
        two.home.runner.has_files.clear()
        async with two.at(VPN):
            two.topology.tell_best({OTHER: VPN})
            await life.deploy()
            await life.until_state("READY")
            await life.until("by the VPN", lambda: connected(two.target(VPN)) == 1 and not connected(two.target(CABLE)))
        await life.until("by the cable", lambda: is_heard(life, OTHER) and connected(two.target(CABLE)) == 1)
        await life.until_state("READY")
        assert len(life.wish.epochs) == 1


async def test_a_runner_that_cannot_be_reached_makes_its_deployment_wait_and_nothing_is_started_elsewhere(
    tmp_path: Path,
) -> None:
    async with two_nodes(tmp_path) as two, two.home.scheduler() as life:
        two.home.runner.has_files.clear()
        async with two.at(CABLE):
            await life.deploy()
            await life.until_state("READY")
        two.home.runner.has_files.set()
        await life.until_state("WAITING")
        two.tell(DEAD)
        await asyncio.sleep(4 * LIMITS.epoch_wait_max_s)
        assert life.seen[-1][0] == "WAITING"
        assert "the runner of node other cannot be reached" in life.seen[-1][1]
        assert not two.home.runner.ranks
        two.tell()
        async with two.at(VPN):
            await life.until_state("READY")
        assert len(life.wish.epochs) == 1


async def test_nobody_waits_for_the_runner_of_a_node_that_has_left(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two, two.home.scheduler() as life:
        async with two.at(CABLE):
            await life.until("both runners", lambda: life.control.runners.complete)
        await life.until("one is lost", lambda: not life.control.runners.complete)
        two.tell(LEFT)
        await life.until("whole again", lambda: life.control.runners.complete)
        assert set(life.control.runners.nodes) == {NODE}
        # It joins once more.
        two.tell()
        async with two.at(CABLE):
            await life.until("both runners", lambda: is_heard(life, OTHER))
