"""Runners of other nodes are reached by TLS, and obey the scheduler node's certificate alone."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rpc.little_cluster import LittleCluster
from rpc.little_roles import LittleDiscovery, run, until
from scheduler.little_runner import SERVICE, LittleRunner
from scheduler.little_scheduler import free_address
from thunderline.cluster import InstanceId, NodeId, RankId, StoreId
from thunderline.cluster.callers import Caller
from thunderline.cluster.errors import Unauthenticated
from thunderline.process.trust import Wallet
from thunderline.rpc.moving import Moving
from thunderline.rpc.server import serving
from thunderline.scheduler.runners import Runners
from thunderline.v1 import cluster_pb2, discovery_pb2, runner_pb2

OWN, OTHER = NodeId(str(uuid.UUID(int=1))), NodeId(str(uuid.UUID(int=2)))
ADDRESS = "127.0.0.2"
RANK = RankId(InstanceId("i1"), 1, 0)


@contextlib.asynccontextmanager
async def runners(cluster: LittleCluster, own: Wallet, other: Wallet) -> AsyncIterator[tuple[Runners, LittleRunner]]:
    """Those of a node with the first wallet, and the runner of a member with the second."""
    runner, discovery_at = LittleRunner(OTHER, free_address()), free_address()
    port = int(runner.address.rpartition(":")[2])
    endpoint = cluster_pb2.RoleEndpoint(role="runner", host="127.0.0.1", port=port)
    card = cluster_pb2.NodeCard(node_id=OTHER, addresses=[ADDRESS], endpoints=[endpoint])
    member = discovery_pb2.Member(card=card, state=discovery_pb2.MEMBER_STATE_ALIVE)
    discovery = LittleDiscovery(discovery_pb2.Roster(node_id=OWN, members=[member], complete=True))
    found = Runners(Moving.at(discovery_at, own, OWN), StoreId("store"), own)
    async with (
        discovery.at(discovery_at, own),
        serving(f"{ADDRESS}:{port}", [SERVICE], runner._register, other),
        run(found.run()),
    ):
        try:
            await until("the roster", lambda: OTHER in found.nodes)
            yield found, runner
        finally:
            runner.changes.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> LittleCluster:
    return LittleCluster(tmp_path)


async def test_the_scheduler_nodes_certificate_commands(cluster: LittleCluster) -> None:
    wallets = cluster.wallet(Caller.SCHEDULER, OWN), cluster.wallet(name=OTHER)
    async with runners(cluster, *wallets) as (found, runner):
        await until("it is heard", lambda: found.complete)
        await found.set_rank(OTHER, RANK, runner_pb2.RANK_GOAL_ABSENT, None)
        assert runner.commands == [("ABSENT", 1)]


async def test_a_plain_members_certificate_neither_watches_nor_commands(cluster: LittleCluster) -> None:
    wallets = cluster.wallet(Caller.MEMBER, OWN), cluster.wallet(name=OTHER)
    async with runners(cluster, *wallets) as (found, runner):
        await until("it is refused", lambda: "may not call" in found.nodes[OTHER].problem)
        assert not found.heard
        with pytest.raises(Unauthenticated, match="SetRank"):
            await found.set_rank(OTHER, RANK, runner_pb2.RANK_GOAL_ABSENT, None)
        assert not runner.commands


async def test_another_node_at_the_address_of_a_member_is_not_taken_for_it(cluster: LittleCluster) -> None:
    wallets = cluster.wallet(Caller.SCHEDULER, OWN), cluster.wallet(name=str(uuid.UUID(int=3)))
    async with runners(cluster, *wallets) as (found, runner):
        await until("it has tried", lambda: found.nodes[OTHER].problem)
        assert not found.heard
        assert not runner.commands
