"""Best addresses of peers, from a real topology role's stream."""

import asyncio

import pytest

from rpc.little_cluster import LittleCluster
from rpc.little_roles import LittleTopology, run, until
from thunderline.cluster import NodeId
from thunderline.cluster.callers import Caller
from thunderline.rpc.moves import Reach
from thunderline.rpc.moving import Moving
from thunderline.rpc.ways import Ways

P = NodeId("p")
CABLE, VPN = {"p": "192.168.4.2"}, {"p": "100.64.0.2"}


@pytest.fixture
def topology() -> LittleTopology:
    return LittleTopology()


async def test_it_follows_what_topology_says(address: str, topology: LittleTopology) -> None:
    ways = Ways(address)
    async with topology.at(address), run(ways.run()):
        await until("the watch", lambda: topology.seen)
        assert not ways.best
        for best in (VPN, CABLE, {}):
            seen = ways.changes.version
            topology.tell_best(best)
            await until("it is heard", lambda best=best: ways.best == best)  # type: ignore[misc]
            assert ways.changes.version == seen + 1


async def test_who_waits_is_not_woken_for_nothing(address: str, topology: LittleTopology) -> None:
    ways = Ways(address)
    async with topology.at(address), run(ways.run()):
        topology.tell_best(CABLE)
        await until("it is heard", lambda: ways.best == CABLE)
        version = ways.changes.version
        # Another RTT, say.
        topology.changes.notify()
        await asyncio.sleep(0.1)
        assert ways.changes.version == version


async def test_while_topology_is_away_the_last_word_stays_and_a_new_life_of_it_is_heard(
    address: str, topology: LittleTopology
) -> None:
    ways = Ways(address)
    async with run(ways.run()):
        async with topology.at(address):
            topology.tell_best(CABLE)
            await until("it is heard", lambda: ways.best == CABLE)
        await asyncio.sleep(0.3)
        assert ways.best == CABLE
        again = LittleTopology()
        again.tell_best({}, "own")
        async with again.at(address):
            await until("the watch", lambda: again.seen)
            await asyncio.sleep(0.1)
            # It has not probed everything.
            assert ways.best == CABLE
            again.tell_best(VPN)
            await until("it is heard", lambda: ways.best == VPN)


async def test_topology_of_a_node_of_a_cluster_is_asked_by_tls(
    address: str, topology: LittleTopology, cluster: LittleCluster
) -> None:
    own = NodeId("0c6d8d4e-2b0a-4f0f-8a54-1f3a0f1f2a10")
    wallet = cluster.wallet(Caller.MEMBER, own)
    ways = Ways(address, wallet, own)
    async with topology.at(address, wallet), run(ways.run()):
        topology.tell_best(CABLE)
        await until("it is heard", lambda: ways.best == CABLE)


async def test_a_connection_goes_where_topology_says(address: str, topology: LittleTopology) -> None:
    port = int(address.rpartition(":")[2]) + 1
    ways, peer = Ways(address), LittleTopology()
    moving = Moving(P, ways)
    moving.aim(Reach(("127.0.0.2", "127.0.0.3"), port))
    async with (
        topology.at(address),
        peer.at(f"127.0.0.2:{port}"),
        peer.at(f"127.0.0.3:{port}"),
        run(ways.run(), moving.run()),
    ):
        await until("it works", lambda: moving.works)
        for best in ("127.0.0.3", "127.0.0.2"):
            topology.tell_best({"p": best})
            await until("it moves", lambda best=best: moving.target == f"{best}:{port}")  # type: ignore[misc]
