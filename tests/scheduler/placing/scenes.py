"""Clusters for tables of placements: nodes a, b, c, ... with LAN, VPN and cables between them."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import permutations
from typing import Any

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Graph, Outcome, Tried
from thunderline.cluster.links import Link, LinkState
from thunderline.cluster.machine_facts import RdmaPortState, RdmaState
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.cluster.rails import Rail, RailEnd
from thunderline.scheduler.placing.values import Ability, Backend, Model, Node, Placement, Plan, Situation, Strategy

GIB = 2**30
CAN, CANNOT = Ability(True), Ability(False, "its layers hand on more than one array")
MAC = frozenset({Backend.RING, Backend.JACCL})
LINUX = frozenset({Backend.RING})
CUDA = frozenset({Backend.RING, Backend.NCCL})
INTERFACES = {
    Medium.LOOPBACK: "lo",
    Medium.THUNDERBOLT: "en5",
    Medium.ETHERNET: "en0",
    Medium.WIFI: "en1",
    Medium.OTHER: "veth0",
    Medium.VPN: "utun3",
}


def number(name: str) -> int:
    """1 for "a"; "n12" is 12."""
    return int(name[1:]) if name[1:] else ord(name) - ord("a") + 1


def node(name: str, gib: float = 96, **facts: Any) -> Node:
    """A Mac with RDMA, unless the facts say otherwise."""
    values: dict[str, Any] = {"backends": MAC, "rdma": RdmaState.ENABLED, **facts}
    return Node(NodeId(name), name, memory_bytes=int(gib * GIB), **values)


def nodes(names: str, gib: float = 96, **facts: Any) -> list[Node]:
    return [node(name, gib, **facts) for name in names]


def model(layer_count: int = 32, layer_gib: float = 1.0, **facts: Any) -> Model:
    """64 heads, 16 for keys and values; 4 KiB of KV a token and layer; the engine can split it both ways."""
    values: dict[str, Any] = {
        "layer_kv_bytes": (4096,) * layer_count,
        "head_count": 64,
        "kv_head_count": 16,
        "activation_bytes": 16_384,
        "context_length_tokens": 32_768,
        "pipeline": CAN,
        "tensor": CAN,
        **facts,
    }
    return Model((int(layer_gib * GIB),) * layer_count, **values)


def link(
    one: str,
    other: str,
    address: str,
    medium: Medium,
    rtt_ms: float = 0.5,
    state: LinkState = LinkState.UP,
) -> Link:
    end = End(INTERFACES[medium], medium)
    return Link(NodeId(one), NodeId(other), address, medium, state, int(rtt_ms * 1000), Path(end, end, end, end))


def lan(names: Iterable[str], rtt_ms: float = 0.5, medium: Medium = Medium.ETHERNET) -> list[Link]:
    """192.168.1.x, each to each."""
    return [link(i, j, f"192.168.1.{number(j)}", medium, rtt_ms) for i, j in permutations(names, 2)]


def vpn(names: Iterable[str], rtt_ms: float = 20.0) -> list[Link]:
    """100.64.0.x, each to each."""
    return [link(i, j, f"100.64.0.{number(j)}", Medium.VPN, rtt_ms) for i, j in permutations(names, 2)]


def cable_address(of: str, to: str) -> str:
    """Each cable is a network of its own."""
    low, high = sorted((number(of), number(to)))
    return f"10.{low}.{high}.{number(of)}"


def cable(one: str, other: str, rtt_ms: float = 0.4) -> list[Link]:
    """IP over it, both ways."""
    return [*cable_way(one, other, rtt_ms), *cable_way(other, one, rtt_ms)]


def cable_way(one: str, other: str, rtt_ms: float = 0.4) -> list[Link]:
    """One way only."""
    return [link(one, other, cable_address(other, one), Medium.THUNDERBOLT, rtt_ms)]


def rail(
    one: str,
    other: str,
    devices: tuple[str, str] = ("en5", "en5"),
    gbps: int = 80,
    states: tuple[RdmaPortState, RdmaPortState] = (RdmaPortState.ACTIVE, RdmaPortState.ACTIVE),
    **facts: Any,
) -> Rail:
    ends = [
        RailEnd(NodeId(name), f"rdma_{device}", device, f"port-{name}-{device}", device[2:], state)
        for name, device, state in zip((one, other), devices, states, strict=True)
    ]
    low, high = sorted(ends, key=lambda end: end.node)
    return Rail(low, high, speed_gbps=gbps, **facts)


def circle_of_rails(names: str, first: int = 3) -> list[Rail]:
    """From each to the next and from the last to the first, at ports of the same number, counted from `first`."""
    pairs = zip(names, names[1:] + names[:1], strict=True)
    return [rail(i, j, (f"en{number}", f"en{number}")) for number, (i, j) in enumerate(pairs, first)]


def mesh_of_rails(names: str, gbps: int = 80) -> list[Rail]:
    """Between each two a cable, each at ports of its own."""
    return [rail(i, j, (f"en{number(j) + 1}", f"en{number(i) + 1}"), gbps) for i in names for j in names if i < j]


def answered(links: Iterable[Link]) -> list[Tried]:
    """The row of each link."""
    return [
        Tried(one.from_node, one.to_node, one.address, Outcome.ANSWERED, state=one.state, rtt_us=one.rtt_us)
        for one in links
    ]


def failed(one: str, other: str, address: str, count: int = 2) -> Tried:
    return Tried(NodeId(one), NodeId(other), address, Outcome.TIMED_OUT, errno=110, failure_count=count)


def situation(
    members: Iterable[Node],
    links: Iterable[Link] = (),
    rails: Iterable[Rail] = (),
    tried: Iterable[Tried] = (),
    **facts: Any,
) -> Situation:
    """Settled long ago, unless the nodes say otherwise."""
    links = list(links)
    graph = Graph(links=tuple(links), rails=tuple(rails), tried=(*answered(links), *tried), **facts)
    return Situation(tuple(members), graph)


def aged(found: Situation, seconds: float) -> Situation:
    """All of its nodes have been ALIVE for so long."""
    return replace(found, nodes=tuple(replace(one, alive_for_s=seconds) for one in found.nodes))


def placed(plan: Plan) -> Placement:
    assert plan.placement is not None, plan.why
    return plan.placement


def where(plan: Plan) -> str:
    """ "tensor jaccl a b", rank 0 first; or the verdict."""
    found = plan.placement
    if found is None:
        return plan.verdict.name
    how = [found.strategy.value, *([found.backend.value] if found.backend else [])]
    return " ".join([*how, *found.nodes])


def counts(plan: Plan) -> dict[str, int]:
    """Layers by node."""
    found = placed(plan)
    assert found.strategy is not Strategy.TENSOR
    return {rank.node: rank.end_layer - rank.first_layer for rank in found.ranks}


def dials(plan: Plan) -> list[str]:
    """ "a→b 10.1.2.2", by rank."""
    found = placed(plan)
    return [
        f"{rank.node}→{found.ranks[dial.to_rank].node} {dial.link.address}"
        for rank in found.ranks
        for dial in rank.dials
        if dial.link is not None
    ]


def told(plan: Plan, names: str) -> str:
    """All that is said of why a set was not taken."""
    wanted = tuple(NodeId(name) for name in names)
    return "; ".join(one.text for one in plan.rejected if one.nodes == wanted)
