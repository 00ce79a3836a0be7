"""PlanPlacement of a real scheduler: what it asks the runners, what it plans on, and what it says when it cannot."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from rpc.little_roles import LittleDiscovery, LittleTopology, until
from scheduler.little_runner import LittleRunner
from scheduler.little_scheduler import NODE, House, Life, free_address
from scheduler.placing.scenes import GIB, link
from thunderline.cluster import NodeId
from thunderline.cluster.errors import (
    ClusterError,
    Draining,
    HubUnreachable,
    InstanceFailed,
    InvalidRequest,
    NotFound,
)
from thunderline.cluster.graph import Outcome, Tried
from thunderline.cluster.links import Link
from thunderline.cluster.machine_facts import MachineFacts
from thunderline.cluster.media import Medium
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.rpc.graph import link_to_proto, tried_to_proto
from thunderline.rpc.machine_facts import to_proto
from thunderline.v1 import cluster_pb2, discovery_pb2, planning_pb2, scheduler_pb2_grpc, topology_pb2

OTHER = NodeId("other")
NAMES = {NODE: "studio", OTHER: "mini"}
PLACED, WAITING, IMPOSSIBLE = (
    planning_pb2.PLAN_VERDICT_PLACED,
    planning_pb2.PLAN_VERDICT_WAITING,
    planning_pb2.PLAN_VERDICT_IMPOSSIBLE,
)
CAN = cluster_pb2.SplitFacts(pipeline=True, tensor=True, engine="mlx-lm 0")
# 4 layers of 1 GiB, with 8,192 tokens of KV in 32 MiB: one node of 4 GiB is too small, two are not.
FACTS = cluster_pb2.ModelFacts(
    architecture="little",
    layer_count=4,
    weight_bytes=4 * GIB,
    kv_bytes_per_token=4_096,
    context_length_tokens=8_192,
    layers=[cluster_pb2.LayerFacts(weight_bytes=GIB, kv_bytes_per_token=1_024)] * 4,
    hidden_size=64,
    element_bytes=2,
    head_count=8,
    key_value_head_count=8,
)
LAN, VPN = (
    [link(OTHER, NODE, f"{net}.1", medium, rtt_ms), link(NODE, OTHER, f"{net}.2", medium, rtt_ms)]
    for net, medium, rtt_ms in (("192.168.1", Medium.ETHERNET, 0.5), ("100.64.0", Medium.VPN, 20.0))
)


@dataclass
class Two:
    """Two nodes on loopback: real sockets, and what discovery, topology and the runners say is the test's."""

    runners: dict[NodeId, LittleRunner]
    discovery: LittleDiscovery
    topology: LittleTopology
    life: Life
    stub: Any

    def tell(self, links: list[Link], tried: tuple[Tried, ...] = (), incomplete: tuple[NodeId, ...] = ()) -> None:
        """Each link has answered."""
        answered = [Tried(*one.id, Outcome.ANSWERED, state=one.state, rtt_us=one.rtt_us) for one in links]
        told = topology_pb2.Topology(
            node_id=NODE,
            links=[link_to_proto(one) for one in links],
            attempts=[tried_to_proto(one) for one in (*answered, *tried)],
            incomplete_node_ids=incomplete,
        )
        self.topology.tell(told)

    async def heard(self) -> None:
        runners = self.life.control.runners
        await self.life.until("both runners", lambda: len(runners.nodes) == 2 and runners.complete)

    async def links(self, *links: Link) -> None:
        """Until the scheduler has heard of these."""
        ids = {one.id for one in links}
        graph = self.life.control.runners.around
        await until("the links", lambda: {one.id for one in graph().graph.links} == ids)

    async def plan(self, model: str = "org/m", **wish: Any) -> planning_pb2.PlanPlacementResponse:
        """Raises the typed error."""
        kv_budget_tokens = wish.pop("kv_budget_tokens", 0)
        spec = cluster_pb2.DeploymentSpec(model=model, kv_budget_tokens=kv_budget_tokens)
        try:
            request = planning_pb2.PlanPlacementRequest(spec=spec, **wish)
            answer: planning_pb2.PlanPlacementResponse = await self.stub.PlanPlacement(request, timeout=20)
            return answer
        except grpc.aio.AioRpcError as error:
            raise from_call(error) from None


def member(runner: LittleRunner) -> discovery_pb2.Member:
    host, _, port = runner.address.rpartition(":")
    card = cluster_pb2.NodeCard(
        node_id=runner.node,
        hostname=NAMES[runner.node],
        addresses=[host],
        endpoints=[cluster_pb2.RoleEndpoint(role="runner", host=host, port=int(port))],
        machine=to_proto(MachineFacts(mlx_backends=("ring", "mpi"))),
    )
    return discovery_pb2.Member(card=card, state=discovery_pb2.MEMBER_STATE_ALIVE)


@contextlib.asynccontextmanager
async def two_nodes(folder: Path) -> AsyncIterator[Two]:
    runners = {node: LittleRunner(node, free_address()) for node in (NODE, OTHER)}
    for runner in runners.values():
        runner.facts, runner.splits, runner.memory_bytes = FACTS, CAN, 4 * GIB
    members = [member(runner) for runner in runners.values()]
    discovery = LittleDiscovery(discovery_pb2.Roster(members=members, complete=True, node_id=NODE))
    topology = LittleTopology()
    home = House(folder, runners[NODE], free_address(), free_address())
    async with (
        discovery.at(home.discovery),
        topology.at(home.topology),
        runners[NODE].running(),
        runners[OTHER].running(),
        home.scheduler() as life,
        dial(life.address) as channel,
    ):
        found = Two(runners, discovery, topology, life, scheduler_pb2_grpc.SchedulerServiceStub(channel))
        found.tell(LAN)
        await found.heard()
        await found.links(*LAN)
        yield found


async def test_two_nodes_share_what_neither_can_hold(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        found = await two.plan()
        assert found.verdict == PLACED, found.why
        placement = found.placement
        assert placement.strategy == planning_pb2.SPLIT_STRATEGY_PIPELINE
        assert placement.backend == planning_pb2.DISTRIBUTED_BACKEND_RING
        assert {rank.hostname for rank in placement.ranks} == {"studio", "mini"}
        assert sorted((rank.first_layer, rank.end_layer) for rank in placement.ranks) == [(0, 2), (2, 4)]
        assert {dial.link.peer_address for rank in placement.ranks for dial in rank.dials} == {
            one.address for one in LAN
        }
        assert (found.facts, found.splits) == (FACTS, CAN)
        alone = [one for one in found.rejected if one.strategy == planning_pb2.SPLIT_STRATEGY_WHOLE]
        assert {(name, one.reason) for one in alone for name in one.hostnames} == {
            ("studio", "memory"),
            ("mini", "memory"),
        }
        # Every runner is asked what it has, and one how the engine can divide it; nobody asks Hugging Face.
        asked = [(one.splits, one.look_up) for runner in two.runners.values() for one in runner.audits]
        assert sorted(asked) == [(False, False), (False, False), (True, False)]
        assert not any(runner.commands for runner in two.runners.values()), "nothing is started"
        assert not two.life.control.wishes()


async def test_a_better_link_that_comes_is_taken_at_the_next_plan(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        two.tell(VPN)
        await two.links(*VPN)
        over_vpn = await two.plan()
        assert over_vpn.verdict == PLACED and over_vpn.placement.slow
        refused = await two.plan(policy=planning_pb2.PlacementPolicy(requires_fast=True))
        assert refused.verdict == WAITING
        assert "VPN has no minimum" in refused.why
        two.tell([*VPN, *LAN])
        await two.links(*VPN, *LAN)
        over_lan = await two.plan()
        media = {dial.link.medium for rank in over_lan.placement.ranks for dial in rank.dials}
        assert (media, list(over_lan.placement.slow)) == ({cluster_pb2.MEDIUM_ETHERNET}, [])


async def test_links_that_have_not_formed_are_waited_for_by_name(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        two.tell([], (Tried(NODE, OTHER, "10.0.0.2"), Tried(OTHER, NODE, "10.0.0.1")))
        await two.links()
        found = await two.plan()
        assert found.verdict == WAITING
        assert [(one.what, list(one.node_ids)) for one in found.waits] == [
            ("links", [NODE, OTHER]),
            ("links", [OTHER, NODE]),
        ]
        assert "studio → mini: 10.0.0.2 has neither answered nor failed twice" in found.why


async def test_what_fits_on_one_node_asks_for_no_links(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        two.runners[OTHER].memory_bytes = 16 * GIB
        two.tell([], incomplete=(NODE, OTHER))
        await two.links()
        found = await two.plan()
        (rank,) = found.placement.ranks
        assert (rank.hostname, rank.first_layer, rank.end_layer) == ("mini", 0, 4)
        assert rank.needed_bytes + rank.left_bytes == 16 * GIB


@pytest.mark.parametrize("word", [NODE, "studio"], ids=["by its id", "by its hostname"])
async def test_pinned_to_a_node_that_is_too_small_it_says_the_figures(tmp_path: Path, word: str) -> None:
    async with two_nodes(tmp_path) as two:
        two.runners[OTHER].memory_bytes = 16 * GIB
        found = await two.plan(policy=planning_pb2.PlacementPolicy(nodes=[word]))
        assert found.verdict == IMPOSSIBLE
        assert "needs 4.43 GiB, studio has 4.00 GiB" in found.why


async def test_nodes_that_nobody_has_are_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        with pytest.raises(InvalidRequest) as refused:
            await two.plan(policy=planning_pb2.PlacementPolicy(nodes=["studio", "nobody"]))
        assert "no node is named 'nobody'; there are: mini, studio" in refused.value.message
        assert refused.value.param == "nodes"
        assert not two.runners[NODE].audits


async def test_what_no_node_holds_is_looked_up_by_one(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        for runner in two.runners.values():
            runner.has_files.clear()
        found = await two.plan()
        assert found.verdict == PLACED
        assert all(rank.must_fetch for rank in found.placement.ranks)
        assert sum(one.look_up for runner in two.runners.values() for one in runner.audits) == 1


async def test_another_node_looks_it_up_where_the_first_cannot(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        for runner in two.runners.values():
            runner.has_files.clear()
        two.runners[NODE].reaches_hub = False
        assert (await two.plan()).verdict == PLACED
        two.runners[OTHER].reaches_hub = False
        with pytest.raises(HubUnreachable):
            await two.plan()


async def test_a_node_without_the_files_has_to_fetch_them(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        two.runners[NODE].has_files.clear()
        found = await two.plan()
        assert {rank.hostname: rank.must_fetch for rank in found.placement.ranks} == {"studio": True, "mini": False}
        assert "the files must be fetched on studio" in list(found.placement.reasons)


async def test_files_that_differ_are_not_shared(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        other = cluster_pb2.ModelFacts()
        other.CopyFrom(FACTS)
        other.digest = "another"
        two.runners[NODE].facts = other
        found = await two.plan()
        assert found.verdict != PLACED
        assert any("its files are others than those of" in one.sentence for one in found.rejected)


# What goes wrong at both runners, and the error of the plan.
PROBLEMS: dict[str, tuple[ClusterError, type[ClusterError], str]] = {
    "a name that is none": (InvalidRequest("model must be a folder or an id"), NotFound, "must be a folder"),
    "runners that stop": (Draining("it is stopping"), Draining, "it is stopping"),
}


@pytest.mark.parametrize(("problem", "kind", "says"), PROBLEMS.values(), ids=PROBLEMS.keys())
async def test_a_model_that_nobody_knows(
    tmp_path: Path, problem: ClusterError, kind: type[ClusterError], says: str
) -> None:
    async with two_nodes(tmp_path) as two:
        for runner in two.runners.values():
            runner.audit_problem = problem
        with pytest.raises(kind, match=says):
            await two.plan()


async def test_one_runner_that_does_not_answer_is_a_node_whose_memory_is_not_known(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        two.runners[OTHER].audit_problem = Draining("it is stopping")
        found = await two.plan()
        assert found.verdict == WAITING
        assert "mini has not told its memory" in [one.sentence for one in found.waits]


async def test_while_discovery_does_not_know_all_members_nothing_is_impossible(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        for runner in two.runners.values():
            runner.memory_bytes = GIB
        assert (await two.plan()).verdict == IMPOSSIBLE
        two.discovery.roster.complete = False
        two.discovery.tell(two.discovery.roster)
        await two.life.until("it is heard", lambda: not two.life.control.runners.roster.complete)
        found = await two.plan()
        assert found.verdict == WAITING
        assert "discovery does not know all members yet" in found.why


async def test_without_any_runner_nobody_can_be_asked(tmp_path: Path) -> None:
    home = House(tmp_path, LittleRunner(NODE, free_address()), free_address())
    async with home.scheduler() as life, dial(life.address) as channel:
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        request = planning_pb2.PlanPlacementRequest(spec=cluster_pb2.DeploymentSpec(model="org/m"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.PlanPlacement(request, timeout=20)
        assert isinstance(from_call(refused.value), InstanceFailed)


async def test_what_a_deployment_of_the_same_model_holds_is_taken_and_said(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        for runner in two.runners.values():
            runner.memory_bytes = 5 * GIB
        before = await two.plan()
        assert len(before.placement.ranks) == 1
        await two.life.deploy()
        await two.life.until_state("READY")
        held = two.life.wish.epochs[-1].memory_bytes
        after = await two.plan()
        assert {rank.hostname for rank in after.placement.ranks} == {"mini"}, "the other one has no room any more"
        await two.life.client.deploy(cluster_pb2.DeploymentSpec(name="n", model="org/m"))
        await two.life.until("both serve", lambda: all(wish.current for wish in two.life.control.wishes()))
        full = await two.plan()
        assert full.verdict == WAITING
        assert f"; m runs it already, with {held / GIB:.2f} GiB on studio; n runs it already" in full.why


async def test_a_hostfile_is_checked_as_it_is(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as two:
        written = (await two.plan()).placement.launch_hostfile
        again = await two.plan(policy=planning_pb2.PlacementPolicy(hostfile=written))
        assert again.verdict == PLACED
        assert list(again.placement.reasons) == ["as the hostfile says: pipeline over ring"]
        wrong = written.replace("mini", "nobody").replace(LAN[0].address, "192.0.2.1")
        refused = await two.plan(policy=planning_pb2.PlacementPolicy(hostfile=wrong))
        assert refused.verdict == WAITING
        assert "nobody" in refused.why


async def test_a_cluster_that_is_only_written_down_is_planned_for_with_the_facts_of_ours(tmp_path: Path) -> None:
    imagined = planning_pb2.ImaginedCluster(
        nodes=[
            planning_pb2.ImaginedNode(name=name, memory_bytes=3 * GIB, rdma=True, memory_bytes_per_s=10**11)
            for name in ("left", "right")
        ],
        ways=[
            planning_pb2.ImaginedWay(
                nodes=["left", "right"],
                medium=cluster_pb2.MEDIUM_THUNDERBOLT,
                rtt_us=50,
                bits_per_s=80_000_000_000,
                rdma=True,
            )
        ],
    )
    async with two_nodes(tmp_path) as two:
        found = await two.plan(cluster=imagined)
        assert found.verdict == PLACED
        assert found.placement.backend == planning_pb2.DISTRIBUTED_BACKEND_JACCL
        assert [rank.hostname for rank in found.placement.ranks] == ["left", "right"]
        assert found.placement.estimate.tokens_per_s > 0
        assert found.facts == FACTS
        pinned = await two.plan(cluster=imagined, policy=planning_pb2.PlacementPolicy(nodes=["left"]))
        assert pinned.verdict == IMPOSSIBLE
        with pytest.raises(InvalidRequest, match="no node is named 'studio'"):
            await two.plan(cluster=imagined, policy=planning_pb2.PlacementPolicy(nodes=["studio"]))
        imagined.ways[0].nodes.append("nobody")
        with pytest.raises(InvalidRequest, match="'nobody', which is no node"):
            await two.plan(cluster=imagined)


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        pytest.param({"model": " "}, "model", id="no model"),
        pytest.param({"kv_budget_tokens": -1}, "kv_budget_tokens", id="a budget below zero"),
        pytest.param(
            {"policy": planning_pb2.PlacementPolicy(hostfile="[]")}, "hostfile", id="a hostfile without hosts"
        ),
    ],
)
async def test_a_wish_that_makes_no_sense_names_its_field(tmp_path: Path, wish: dict[str, Any], param: str) -> None:
    async with two_nodes(tmp_path) as two:
        with pytest.raises(InvalidRequest) as refused:
            await two.plan(**wish)
        assert refused.value.param == param
