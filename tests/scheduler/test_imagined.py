"""A cluster that is only written down: what it is like, and what is said of one that cannot be."""

from typing import Any

import pytest

from scheduler.placing.scenes import GIB, model, placed, where
from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.links import LinkState
from thunderline.cluster.media import Medium
from thunderline.rpc.graph import MEDIA
from thunderline.scheduler.imagined import situation
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import Backend, Policy, Strategy, Verdict
from thunderline.v1 import cluster_pb2, planning_pb2

TB, ETH, VPN = cluster_pb2.MEDIUM_THUNDERBOLT, cluster_pb2.MEDIUM_ETHERNET, cluster_pb2.MEDIUM_VPN
NCCL = planning_pb2.DISTRIBUTED_BACKEND_NCCL


def node(name: str, gib: int = 96, **facts: Any) -> planning_pb2.ImaginedNode:
    return planning_pb2.ImaginedNode(name=name, memory_bytes=gib * GIB, **{"rdma": True, **facts})


def way(nodes: str, medium: cluster_pb2.Medium.ValueType, rtt_us: int = 400, **facts: Any) -> planning_pb2.ImaginedWay:
    return planning_pb2.ImaginedWay(nodes=nodes.split(), medium=medium, rtt_us=rtt_us, **facts)


def cable(nodes: str, **facts: Any) -> planning_pb2.ImaginedWay:
    return way(nodes, TB, bits_per_s=80_000_000_000, rdma=True, **facts)


def cluster(nodes: list[planning_pb2.ImaginedNode], *ways: planning_pb2.ImaginedWay) -> planning_pb2.ImaginedCluster:
    return planning_pb2.ImaginedCluster(nodes=nodes, ways=ways)


TWO = [node("left"), node("right")]


def test_a_cable_is_a_link_each_way_and_a_rail() -> None:
    found = situation(cluster(TWO, cable("left right"), cable("right left")))
    assert [(one.from_node, one.to_node, one.address, one.local_interface) for one in found.graph.links] == [
        ("left", "right", "10.0.0.2", "en2"),
        ("left", "right", "10.0.1.1", "en3"),
        ("right", "left", "10.0.0.1", "en2"),
        ("right", "left", "10.0.1.2", "en3"),
    ]
    assert [(one.one.device, one.other.device, one.speed_gbps) for one in found.graph.rails] == [
        ("rdma_en2", "rdma_en2", 80),
        ("rdma_en3", "rdma_en3", 80),
    ]
    assert {one.bits_per_s for one in found.measured.values()} == {80_000_000_000}


def test_a_network_joins_all_its_nodes_each_to_each() -> None:
    found = situation(cluster([*TWO, node("third")], way("left right third", ETH), way("left third", VPN)))
    links = {(one.from_node, one.to_node, one.medium): one.address for one in found.graph.links}
    assert len(links) == 6 + 2
    assert links[NodeId("left"), NodeId("third"), Medium.ETHERNET] == "192.168.0.3"
    assert links[NodeId("left"), NodeId("third"), Medium.VPN] == "100.64.1.3"
    assert found.graph.rails == () and found.measured == {}


def test_one_way_is_one_link() -> None:
    (link,) = situation(cluster(TWO, way("right left", ETH, one_way=True))).graph.links
    assert (link.from_node, link.to_node) == ("right", "left")


def test_a_way_that_is_too_slow_for_its_medium_is_degraded_as_topology_would_find_it() -> None:
    found = situation(cluster(TWO, way("left right", TB, 6_000), way("left right", VPN, 90_000)))
    assert {one.medium: one.state for one in found.graph.links} == {
        Medium.THUNDERBOLT: LinkState.DEGRADED,
        Medium.VPN: LinkState.UP,
    }


@pytest.mark.parametrize(
    ("facts", "backends"),
    [
        pytest.param({}, {Backend.RING, Backend.JACCL}, id="a Mac with RDMA"),
        pytest.param({"rdma": False}, {Backend.RING}, id="one without"),
        pytest.param({"rdma": False, "backends": [NCCL]}, {Backend.NCCL}, id="as it says"),
    ],
)
def test_backends(facts: dict[str, Any], backends: set[Backend]) -> None:
    (found,) = situation(cluster([node("left", **facts)])).nodes
    assert found.backends is not None
    assert set(found.backends) == backends


# What is asked of it, and what comes of it.
PLANS: dict[str, tuple[planning_pb2.ImaginedCluster, Policy, str]] = {
    "two Macs with a cable": (cluster(TWO, cable("left right")), Policy(), "tensor jaccl left right"),
    "two Macs with a LAN": (cluster(TWO, way("left right", ETH)), Policy(), "pipeline ring left right"),
    "the cable beside a LAN is used": (
        cluster(TWO, way("left right", ETH), way("left right", TB)),
        Policy(strategy=Strategy.PIPELINE),
        "pipeline ring left right",
    ),
    "one that is large enough": (cluster([node("left"), node("big", 512)]), Policy(), "whole big"),
}


@pytest.mark.parametrize(("written", "policy", "expected"), PLANS.values(), ids=PLANS.keys())
def test_it_is_planned_for(written: planning_pb2.ImaginedCluster, policy: Policy, expected: str) -> None:
    found = plan(situation(written), model(120), policy)
    assert where(found) == expected
    for dial in (dial for rank in placed(found).ranks for dial in rank.dials if dial.link):
        assert dial.link is not None
        assert dial.link.medium is MEDIA[written.ways[-1].medium]


def test_one_direction_makes_no_ring() -> None:
    found = plan(situation(cluster(TWO, way("left right", ETH, one_way=True))), model(120))
    assert found.verdict is Verdict.WAITING
    assert "right → left: no address is known" in found.why


MANY = [node(f"n{number}") for number in range(64)]
WRONG: dict[str, tuple[planning_pb2.ImaginedCluster, str]] = {
    "no node": (cluster([]), "it has 0 nodes; 1 to 64 are possible"),
    "too many nodes": (cluster([*MANY, node("n64")]), "it has 65 nodes"),
    "too many ways": (cluster(TWO, *[cable("left right")] * 2049), "it has 2049 cables and networks; at most 2048"),
    "too many links": (
        cluster(MANY, *[way(" ".join(one.name for one in MANY), ETH)] * 5),
        "its networks make some 20480 links",
    ),
    "a node without a name": (cluster([node("")]), "a node needs a name"),
    "a name of two lines": (cluster([node("a\nb")]), "a node needs a name"),
    "a node twice": (cluster([node("left"), node("left")]), "node 'left' is there twice"),
    "no memory": (cluster([node("left", 0)]), "how much memory node 'left' has"),
    "a bandwidth below zero": (cluster([node("left", memory_bytes_per_s=-1)]), "cannot read -1 bytes a second"),
    "an unknown backend": (cluster([node("left", backends=[99])]), "unknown backend 99"),
    "a way to nobody": (cluster(TWO, cable("left nobody")), "'nobody', which is no node"),
    "a cable to itself": (cluster(TWO, cable("left left")), "joins two different nodes at least, not 'left', 'left'"),
    "a network of one": (cluster(TWO, way("left", ETH)), "joins two different nodes at least, not 'left'"),
    "a cable of three": (cluster([*TWO, node("c")], cable("left right c")), "a cable joins two nodes"),
    "one way of three": (cluster([*TWO, node("c")], way("left right c", ETH, one_way=True)), "is for two nodes"),
    "no medium": (cluster(TWO, way("left right", cluster_pb2.MEDIUM_UNSPECIFIED)), "has no medium"),
    "a medium inside of one machine": (cluster(TWO, way("left right", cluster_pb2.MEDIUM_LOOPBACK)), "has no medium"),
    "RDMA over a LAN": (cluster(TWO, way("left right", ETH, rdma=True)), "is no Thunderbolt cable"),
    "an RTT below zero": (cluster(TWO, way("left right", ETH, -1)), "has no such round trip, or no such speed"),
    "a round trip of years": (cluster(TWO, way("left right", ETH, 2**62)), "has no such round trip"),
    "a speed that no cable has": (cluster(TWO, way("left right", TB, bits_per_s=2**62)), "no such speed"),
    "memory without end": (
        cluster([planning_pb2.ImaginedNode(name="left", memory_bytes=2**62)]),
        "node 'left' has no 46",
    ),
    "a bandwidth without end": (cluster([node("left", memory_bytes_per_s=2**62)]), "node 'left' cannot read"),
    "a name without end": (cluster(TWO, way(f"left {'x' * 10**6}", ETH)), f"has '{'x' * 64}', which is no node"),
    "too many networks": (cluster(TWO, *[way("left right", ETH)] * 257), "more than 256 networks"),
    "a speed below zero": (
        cluster(TWO, way("left right", ETH, bits_per_s=-1)),
        "has no such round trip, or no such speed",
    ),
}


@pytest.mark.parametrize(("written", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_is_named(written: planning_pb2.ImaginedCluster, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        situation(written)
    assert says in refused.value.message
    assert refused.value.param == "cluster"


def test_the_order_in_which_it_is_written_changes_no_decision() -> None:
    names = [node(name) for name in ("left", "right", "third")]
    ways = [way("left right third", ETH, 300)]
    one, other = (where(plan(situation(cluster(nodes, *ways)), model(120))) for nodes in (names, names[::-1]))
    assert one == other
