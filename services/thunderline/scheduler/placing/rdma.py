"""Rails that JACCL can use, and its device matrix. Pure.

Both directions of a pair are named from one list of its cables: with two cables, [i][j] and [j][i] name the ends of
the same cable at the same place, or its queue pairs would wait for each other for ever.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import RdmaState
from thunderline.cluster.rails import Cause, Rail, RailEnd, obstacles
from thunderline.scheduler.placing.values import Backend, Matrix, Node

# Ranks of a mesh, and cables between neighbours of a ring: more than MLX takes.
MESH_RANKS_MAX = 8
RING_RAILS_MAX = 4

RDMA_WORDS: Mapping[RdmaState, str] = {
    RdmaState.DISABLED: "RDMA is off on {} (`rdma_ctl enable`, in macOS Recovery)",
    RdmaState.UNAVAILABLE: "{} has no RDMA over Thunderbolt (no rdma_ctl)",
    RdmaState.UNKNOWN: "whether RDMA is on is not known of {}",
}
OBSTACLE_WORDS: Mapping[Cause, str] = {
    Cause.DOWN: "{end.device} of {word} is PORT_DOWN",
    Cause.UNKNOWN: "whether {end.device} of {word} is PORT_ACTIVE is not known",
    Cause.BRIDGED: "{end.interface} of {word} is a member of {end.bridge}",
    Cause.WRONG_PORT: "{end.device} of {word} is the port next to Ethernet, at which RDMA does not work",
}


def node_problem(node: Node) -> str:
    """Why a node cannot take part in JACCL; "" where it can."""
    if node.backends is not None and Backend.JACCL not in node.backends:
        return f"the MLX of {node.word} offers no jaccl"
    return RDMA_WORDS[node.rdma].format(node.word) if node.rdma is not RdmaState.ENABLED else ""


class Rails:
    """Of these nodes: the usable ones by pair, lower id first, and what is wrong with the others."""

    def __init__(self, rails: Iterable[Rail], nodes: Collection[Node]) -> None:
        self._nodes = {one.id: one for one in nodes}
        self.usable: dict[tuple[NodeId, NodeId], list[Rail]] = {}
        self._problems: dict[tuple[NodeId, NodeId], list[str]] = {}
        self._words: dict[tuple[NodeId, NodeId], str] = {}
        for rail in rails:
            pair = _pair(*rail.nodes)
            if not set(pair) <= self._nodes.keys():
                continue
            if problem := self._problem(rail):
                self._problems.setdefault(pair, []).append(problem)
            else:
                self.usable.setdefault(pair, []).append(rail)

    def between(self, one: NodeId, other: NodeId) -> list[Rail]:
        return self.usable.get(_pair(one, other), [])

    def why_not(self, one: NodeId, other: NodeId) -> str:
        """Of a pair without a usable rail."""
        pair = _pair(one, other)
        if pair not in self._words:
            problems = "; ".join(self._problems.get(pair, []))
            between = f"no rail between {self._nodes[pair[0]].word} and {self._nodes[pair[1]].word}"
            self._words[pair] = f"{between} can be used: {problems}" if problems else between
        return self._words[pair]

    def _problem(self, rail: Rail) -> str:
        for end in rail.ends:
            if problem := node_problem(self._nodes[end.node]):
                return problem
        for cause, end in obstacles(rail):
            return OBSTACLE_WORDS[cause].format(end=end, word=self._nodes[end.node].word)
        for end in rail.ends:
            node = self._nodes[end.node]
            if end.interface in node.without_ipv4:
                return f"{end.interface} of {node.word} has no IPv4 address, from which {end.device} gets its GID"
        return ""


def rail_key(rail: Rail) -> tuple[object, ...]:
    """By devices as people count: "rdma_en2" before "rdma_en10"."""
    return tuple((end.node, len(end.device), end.device) for end in (rail.one, rail.other))


def speed_gbps(rails: Collection[Rail]) -> int:
    """Of all cables of a pair together; 0: nobody tells."""
    return sum(rail.speed_gbps for rail in rails)


def is_mesh(order: Sequence[NodeId], rails: Rails) -> bool:
    pairs = [(one, other) for i, one in enumerate(order) for other in order[i + 1 :]]
    return len(order) <= MESH_RANKS_MAX and all(rails.between(*pair) for pair in pairs)


def used(order: Sequence[NodeId], rails: Rails, is_ring: bool) -> dict[tuple[int, int], tuple[Rail, ...]]:
    """The rails of each pair of ranks, lower rank first: all of a mesh, as many between all neighbours of a ring.

    Behind a hub one device may lead to several places, and is used for one of them: pairs with the fewest rails first.
    """
    count = len(order)
    pairs = {(i, j) for i in range(count) for j in range(i + 1, count)}
    if is_ring:
        pairs = {(min(i, j), max(i, j)) for i in range(count) if (j := (i + 1) % count) != i}
    taken: set[tuple[NodeId, str]] = set()
    found: dict[tuple[int, int], tuple[Rail, ...]] = {}
    between = {(i, j): rails.between(order[i], order[j]) for i, j in pairs}
    for pair in sorted(pairs, key=lambda one: (len(between[one]), one)):
        chosen = []
        for rail in between[pair]:
            devices = {(end.node, end.device) for end in (rail.one, rail.other)}
            if not devices & taken:
                taken |= devices
                chosen.append(rail)
        found[pair] = tuple(chosen)
    each = min(RING_RAILS_MAX, *(len(one) for one in found.values())) if is_ring else None
    return {pair: found[pair][:each] for pair in sorted(pairs)}


def matrix(order: Sequence[NodeId], rails: Mapping[tuple[int, int], Sequence[Rail]]) -> Matrix:
    """[i][j]: the devices of rank i that lead to rank j."""

    def cell(i: int, j: int) -> tuple[str, ...]:
        return tuple(end_at(rail, order[i]).device for rail in rails.get((min(i, j), max(i, j)), ()))

    ranks = range(len(order))
    return tuple(tuple(() if i == j else cell(i, j) for j in ranks) for i in ranks)


def end_at(rail: Rail, node: NodeId) -> RailEnd:
    return rail.one if rail.one.node == node else rail.other


def _pair(one: NodeId, other: NodeId) -> tuple[NodeId, NodeId]:
    return (one, other) if one < other else (other, one)
