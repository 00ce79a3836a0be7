"""Two nodes of a cluster: what is asked of them is asked of both directions, and both have to say it."""

import itertools
from dataclasses import dataclass
from typing import Any

from lab.media import Medium
from lab.network import Host, Lab
from lab.nodes import Cluster, Node
from lab.seen import Holds, chosen, links, state

# From one node to another, at an address of that one.
Way = tuple[str, str, str]


@dataclass(frozen=True)
class Pair:
    """Watched from the beginning on."""

    one: Node
    other: Node

    def __post_init__(self) -> None:
        for node in self.nodes:
            assert node.watching

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.one, self.other

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.one.host, self.other.host

    @property
    def ids(self) -> tuple[str, str]:
        return self.one.node_id, self.other.node_id

    def ways(self, medium: Medium) -> tuple[Way, Way]:
        one, other = self.nodes
        return (*self.ids, other.host.address(medium)), (*self.ids[::-1], one.host.address(medium))

    def known(self) -> Holds:
        """Some link each way."""
        return lambda topology: bool(links(topology, *self.ids) and links(topology, *self.ids[::-1]))

    def take(self, medium: Medium) -> Holds:
        """Connections between them take this medium's addresses."""
        return lambda topology: all(chosen(topology, *way[:2]) == way[2] for way in self.ways(medium))

    def are(self, medium: Medium, wanted: int) -> Holds:
        """The links over it are in that state."""
        return lambda topology: all(state(topology, *way) == wanted for way in self.ways(medium))

    def until(self, what: str, holds: Holds, timeout_s: float, since_s: float = 0.0) -> float:
        """The moment at which the later of the two said so."""
        return max(node.watching.until(what, holds, timeout_s, since_s).at_s for node in self.nodes)

    def states(self, medium: Medium, since_s: float) -> list[list[int]]:
        """As each node told them of each direction, one after the other."""
        return [
            turns(state(look.topology, *way) for look in node.watching.since(since_s) if look.topology.node_id)
            for node, way in itertools.product(self.nodes, self.ways(medium))
        ]

    def taken(self, since_s: float) -> list[list[Medium | None]]:
        """What connections took, as each node told it of each direction, one after the other."""
        found = []
        for node, (start, end) in itertools.product(self.nodes, (self.nodes, self.nodes[::-1])):
            media = {end.host.address(medium): medium for medium in end.host.media.values()}
            looks = [look.topology for look in node.watching.since(since_s) if look.topology.node_id]
            found.append(turns(media.get(chosen(one, start.node_id, end.node_id)) for one in looks))
        return found


def turns(values: Any) -> list[Any]:
    """Without those that only repeat the one before."""
    return [value for value, _ in itertools.groupby(values)]


def pair(net: Lab, cluster: Cluster) -> Pair:
    """On two new hosts, with nothing between them."""
    return Pair(*(cluster.node(net.host(name)) for name in "ab"))
