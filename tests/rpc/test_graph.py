"""The graph as topology tells it, and as others read it: the same."""

from dataclasses import replace

from thunderline.cluster.graph import CableEnd, Graph, Outcome, Tried, cable
from thunderline.cluster.links import Link, LinkState, Mark
from thunderline.cluster.machine_facts import RdmaPortState
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.cluster.rails import Rail, RailEnd
from thunderline.rpc.graph import MARKS, graph_from_proto, link_from_proto, link_to_proto, tried_from_proto
from thunderline.topology.knowledge import Knowledge
from thunderline.topology.telling import Teller
from thunderline.v1 import topology_pb2
from topology.scenes import A, B, C, link, straight

CABLE = cable(CableEnd(A, "en5", "port-a", "2"), CableEnd(B, "en4"))
LOST = cable(CableEnd(A, "en3"), CableEnd(C, "en3"))
RAIL = Rail(
    RailEnd(A, "rdma_en5", "en5", "port-a", "2", RdmaPortState.ACTIVE),
    RailEnd(B, "rdma_en4", "en4", "port-b", "", RdmaPortState.DOWN, bridge="bridge0", is_next_to_ethernet=True),
    80,
    ("Hub",),
)
# Every medium, state and mark is there.
LINKS = [
    *(link(medium, 0.5) for medium in Medium),
    link(Medium.ETHERNET, 40, LinkState.DEGRADED, "192.168.1.7"),
    link(Medium.ETHERNET, 40, LinkState.DOWN, "192.168.1.8"),
    replace(
        link(Medium.VPN, 40, address="100.64.0.9"), marks=frozenset(Mark), path=Path(arrives=End("utun3", Medium.VPN))
    ),
]
TRIED = [
    Tried(A, B, f"10.0.0.{place}", outcome, 111, place % 3, state, 5, "10.0.0.1", straight(Medium.OTHER), state is None)
    for place, (outcome, state) in enumerate((outcome, state) for outcome in Outcome for state in (None, *LinkState))
]
GRAPH = Graph(
    links=tuple(sorted(LINKS, key=lambda one: one.id)),
    tried=tuple(TRIED),
    cables=(CABLE, LOST),
    lost_cables=(LOST,),
    incomplete=(B,),
    rails=(RAIL,),
)


def told(graph: Graph) -> topology_pb2.Topology:
    """By a real topology."""
    known = Knowledge(A, 3, {}, 2.0)
    known.graph = graph
    pairs = {(one.from_node, one.to_node) for one in graph.links}
    known.by_pair = {pair: graph.between(*pair) for pair in pairs}
    data = Teller().topology(known, [], {}, complete=True).SerializeToString()
    return topology_pb2.Topology.FromString(data)


def test_what_topology_tells_is_what_others_read() -> None:
    assert graph_from_proto(told(GRAPH)) == GRAPH


def test_of_nothing_nothing_is_read() -> None:
    assert graph_from_proto(topology_pb2.Topology()) == Graph()


def test_every_mark_has_the_name_of_the_contract() -> None:
    names = {mark: topology_pb2.LinkMark.Name(number) for mark, number in MARKS.items()}
    assert names == {mark: f"LINK_MARK_{mark.name}" for mark in Mark}


def test_what_only_a_newer_version_knows_counts_as_the_worst() -> None:
    newer = link_to_proto(link(Medium.THUNDERBOLT, 0.5))
    newer.medium, newer.state = 99, 99  # type: ignore[assignment]
    newer.path.leaves.medium = 99  # type: ignore[assignment]
    newer.marks.append(99)  # type: ignore[arg-type]
    found: Link = link_from_proto(newer)
    assert (found.medium, found.state, found.marks) == (Medium.OTHER, LinkState.DOWN, frozenset())
    assert found.path.leaves == End("en5", Medium.OTHER)
    row = tried_from_proto(topology_pb2.AddressAttempt(outcome=99, state=99))  # type: ignore[arg-type]
    assert (row.outcome, row.state) == (Outcome.FAILED, LinkState.DOWN)
    assert not row.is_settled
