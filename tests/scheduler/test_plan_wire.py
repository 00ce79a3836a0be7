"""What is asked of a plan, and what it says, as messages."""

import json
from dataclasses import replace

import pytest

from scheduler.placing.scenes import CUDA, GIB, LINUX, cable, lan, model, node, nodes, rail, situation, vpn
from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import (
    Backend,
    Files,
    Hostfile,
    HostfileHost,
    Model,
    Node,
    Policy,
    Situation,
    Strategy,
    Verdict,
    WaitFor,
)
from thunderline.scheduler.plan_wire import named, plan_to_proto, policy
from thunderline.v1 import cluster_pb2, planning_pb2

FULL = planning_pb2.PlacementPolicy(
    strategy=planning_pb2.SPLIT_STRATEGY_TENSOR,
    backend=planning_pb2.DISTRIBUTED_BACKEND_JACCL,
    nodes=["studio"],
    node_count_min=3,
    requires_fast=True,
    hostfile='[{"ssh": "a", "ips": ["10.0.0.1"]}]',
)


def test_a_policy_is_what_was_asked_for() -> None:
    assert policy(FULL, 9_000) == Policy(
        9_000,
        True,
        Strategy.TENSOR,
        Backend.JACCL,
        node_count_min=3,
        hostfile=Hostfile((HostfileHost("a", ("10.0.0.1",)),)),
    )
    assert policy(planning_pb2.PlacementPolicy(), 0) == Policy()


@pytest.mark.parametrize("kind", [Strategy, Backend], ids=["strategies", "backends"])
def test_every_one_has_the_name_of_the_contract(kind: type[Strategy] | type[Backend]) -> None:
    names = planning_pb2.SplitStrategy.keys() if kind is Strategy else planning_pb2.DistributedBackend.keys()
    prefix = "SPLIT_STRATEGY_" if kind is Strategy else "DISTRIBUTED_BACKEND_"
    field = "strategy" if kind is Strategy else "backend"
    for name in names[1:]:
        asked = planning_pb2.PlacementPolicy(**{field: name})  # type: ignore[arg-type]
        assert getattr(policy(asked, 0), field) is kind[name.removeprefix(prefix)]


WRONG: dict[str, tuple[planning_pb2.PlacementPolicy, str, str]] = {
    "a strategy of a later version": (
        planning_pb2.PlacementPolicy(strategy=99),  # type: ignore[arg-type]
        "strategy",
        "unknown strategy 99",
    ),
    "a backend of a later version": (
        planning_pb2.PlacementPolicy(backend=99),  # type: ignore[arg-type]
        "backend",
        "unknown backend 99",
    ),
    "too many nodes": (planning_pb2.PlacementPolicy(nodes=["a"] * 65), "nodes", "65 nodes; at most 64"),
    "a count below zero": (planning_pb2.PlacementPolicy(node_count_min=-1), "node_count_min", "must be 0 to 64"),
    "a hostfile that is none": (
        planning_pb2.PlacementPolicy(hostfile="{"),
        "hostfile",
        "the hostfile is no JSON: Expecting property name",
    ),
    "a hostfile without hosts": (planning_pb2.PlacementPolicy(hostfile="{}"), "hostfile", "has no list of hosts"),
    "a backend that is a list": (
        planning_pb2.PlacementPolicy(hostfile='{"hosts": [{"ssh": "a"}], "backend": []}'),
        "hostfile",
        "backend [] is none of",
    ),
    "a name that no terminal can show": (
        planning_pb2.PlacementPolicy(hostfile='[{"ssh": "\\ud800"}]'),
        "hostfile",
        "host 0: has no `ssh`",
    ),
    "an address of three pages": (
        planning_pb2.PlacementPolicy(hostfile='[{"ssh": "a", "ips": ["' + "1" * 9_999 + '"]}]'),
        "hostfile",
        "host 0: `ips` is no list of addresses",
    ),
    "a hostfile of too many hosts": (
        planning_pb2.PlacementPolicy(hostfile=f"[{','.join(['1'] * 65)}]"),
        "hostfile",
        "has 65 hosts; at most 64",
    ),
    "a hostfile that is deep": (planning_pb2.PlacementPolicy(hostfile="[" * 60_000), "hostfile", "is no JSON"),
    "a hostfile without end": (planning_pb2.PlacementPolicy(hostfile=" " * 65_537), "hostfile", "at most 65536"),
}


@pytest.mark.parametrize(("asked", "param", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_makes_no_sense_is_refused_by_name(asked: planning_pb2.PlacementPolicy, param: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        policy(asked, 0)
    assert says in refused.value.message
    assert refused.value.param == param


NODES = [Node(NodeId("abcd-1"), "studio"), Node(NodeId("abcd-2"), "mini"), Node(NodeId("beef-3"), "mini")]
NAMES: dict[str, tuple[str, str]] = {
    "an id": ("abcd-2", "abcd-2"),
    "a hostname": ("studio", "abcd-1"),
    "the first letters of an id": ("beef", "beef-3"),
}


@pytest.mark.parametrize(("word", "node_id"), NAMES.values(), ids=NAMES.keys())
def test_a_node_is_meant_by(word: str, node_id: str) -> None:
    assert named([word], NODES) == {node_id}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        pytest.param("mini", "'mini' is several nodes: abcd-2, beef-3", id="two have the name"),
        pytest.param("abcd", "'abcd' is several nodes: abcd-1, abcd-2", id="two begin so"),
        pytest.param("bee", "no node is named 'bee'; there are: mini, mini, studio", id="too few letters"),
        pytest.param("", "no node is named ''", id="nothing"),
    ],
)
def test_a_word_that_is_nobodys_or_severals_is_refused(word: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        named(["studio", word], NODES)
    assert says in refused.value.message
    assert refused.value.param == "nodes"


def told(here: Situation, of: Model, wants: Policy | None = None) -> planning_pb2.PlanPlacementResponse:
    found = plan(here, of, wants)
    data = plan_to_proto(found, here.nodes, cluster_pb2.ModelFacts(), None).SerializeToString()
    return planning_pb2.PlanPlacementResponse.FromString(data)


FAST = {"memory_bytes_per_s": 10**12}


def test_a_ring_is_told_with_who_dials_whom_and_a_hostfile() -> None:
    found = told(situation(nodes("ab", backends=LINUX, **FAST), [*cable("a", "b"), *vpn("ab")]), model(120))
    assert found.verdict == planning_pb2.PLAN_VERDICT_PLACED
    placement = found.placement
    assert (placement.strategy, placement.backend) == (
        planning_pb2.SPLIT_STRATEGY_PIPELINE,
        planning_pb2.DISTRIBUTED_BACKEND_RING,
    )
    first, second = placement.ranks
    assert {first.hostname, second.hostname} == {"a", "b"}
    assert (first.first_layer, first.end_layer) == (second.end_layer, 120)
    assert [dial.to_rank for rank in placement.ranks for dial in rank.dials] == [1, 0]
    (dial,) = first.dials
    assert (dial.link.medium, dial.link.to_node_id) == (cluster_pb2.MEDIUM_THUNDERBOLT, second.node_id)
    assert placement.estimate.tokens_per_s == pytest.approx(
        1 / (placement.estimate.memory_s + placement.estimate.links_s)
    )
    hosts = json.loads(placement.launch_hostfile)["hosts"]
    assert [host["ssh"] for host in hosts] == [first.hostname, second.hostname]
    assert hosts[1]["ips"] == [dial.link.peer_address]


def test_of_a_model_without_weights_nothing_is_estimated() -> None:
    """Its files may be broken."""
    found = told(situation([node("a", **FAST)], []), Model((0,)))
    assert found.verdict == planning_pb2.PLAN_VERDICT_PLACED
    assert not found.placement.HasField("estimate")


def test_a_count_beyond_the_wire_is_told_as_the_largest() -> None:
    """64 nodes have more sets than a number of 32 bits."""
    here = situation([node(f"n{number}", 3, backends=LINUX) for number in range(64)], [])
    assert max(one.count for one in told(here, model(2000)).rejected) == 2**31 - 1


def test_nodes_of_one_name_are_reached_by_their_ids() -> None:
    two = [replace(one, name="vm", is_name_shared=True) for one in nodes("ab", backends=LINUX)]
    found = told(situation(two, lan("ab")), model(120)).placement
    assert {host["ssh"] for host in json.loads(found.launch_hostfile)["hosts"]} == {"a", "b"}
    assert {rank.hostname for rank in found.ranks} == {"vm"}


def test_rails_are_told_by_their_devices() -> None:
    found = told(situation(nodes("ab"), lan("ab"), [rail("a", "b", ("en5", "en3"))]), model(120)).placement
    assert found.backend == planning_pb2.DISTRIBUTED_BACKEND_JACCL
    devices = [(one.one.device, one.other.device) for rank in found.ranks for dial in rank.dials for one in dial.rails]
    assert set(devices) == {("rdma_en5", "rdma_en3")}
    assert not any(dial.HasField("link") for rank in found.ranks for dial in rank.dials)
    assert not found.HasField("estimate")
    assert json.loads(found.launch_hostfile)["backend"] == "jaccl"


def test_one_node_has_no_backend() -> None:
    found = told(situation([node("a", 512), node("b", files=Files.ABSENT)], []), model(120))
    (rank,) = found.placement.ranks
    assert found.placement.backend == planning_pb2.DISTRIBUTED_BACKEND_UNSPECIFIED
    assert rank.needed_bytes + rank.left_bytes == 512 * GIB


def test_every_refusal_and_wait_is_told_with_its_words() -> None:
    here = situation(nodes("ab", backends=CUDA, reserved_bytes=60 * GIB), lan("ab"))
    found, decided = told(here, model(120)), plan(here, model(120))
    assert found.verdict == planning_pb2.PLAN_VERDICT_WAITING == Verdict.WAITING.value
    assert found.why == decided.why
    assert len(found.rejected) == len(decided.rejected)
    for row, one in zip(found.rejected, decided.rejected, strict=True):
        assert (tuple(row.node_ids), row.sentence, row.count) == (one.nodes, one.text, one.count)
        assert list(row.hostnames) == list(one.nodes), "in these scenes a node's name is its id"
        assert row.reason == one.reason.value
    assert [(one.what, tuple(one.node_ids)) for one in found.waits] == [
        (WaitFor.MEMORY.value, ("a",)),
        (WaitFor.MEMORY.value, ("b",)),
    ]
    assert not found.HasField("placement")
