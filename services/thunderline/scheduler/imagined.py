"""A cluster that is only written down, as a situation: its addresses and devices are invented. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.graph import Graph
from thunderline.cluster.links import RTT_LIMITS_US, Link, LinkId, LinkState
from thunderline.cluster.machine_facts import RdmaPortState, RdmaState
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.cluster.planning import NAME_LENGTH_MAX, NODE_COUNT_MAX, WAY_COUNT_MAX
from thunderline.cluster.rails import Rail, RailEnd
from thunderline.rpc.graph import MEDIA
from thunderline.scheduler.placing.values import Backend, Measured, Node, Situation
from thunderline.v1 import planning_pb2

# Each to each of 64 nodes, over a few networks.
LINK_COUNT_MAX = 20_000
# Addresses are invented for as many.
NETWORK_COUNT_MAX = 256
# A petabyte, also in a second; an hour; a thousand times what any cable carries.
BYTES_MAX, RTT_US_MAX, BITS_PER_S_MAX = 2**50, 3_600_000_000, 10**14
# Names that a sentence lists.
LISTED_MAX = 4
BACKENDS = {
    planning_pb2.DISTRIBUTED_BACKEND_RING: Backend.RING,
    planning_pb2.DISTRIBUTED_BACKEND_JACCL: Backend.JACCL,
    planning_pb2.DISTRIBUTED_BACKEND_NCCL: Backend.NCCL,
}
# What joins nodes of a cluster; as a Mac names the interfaces to it.
INTERFACES: Mapping[Medium, str] = {
    Medium.ETHERNET: "en0",
    Medium.WIFI: "en1",
    Medium.OTHER: "other0",
    Medium.VPN: "utun3",
}
# A Mac's Thunderbolt ports.
FIRST_PORT = 2


def situation(cluster: planning_pb2.ImaginedCluster) -> Situation:
    """All nodes are ALIVE and hold the files, all links answer. Raises InvalidRequest."""
    if not 1 <= len(cluster.nodes) <= NODE_COUNT_MAX:
        raise _wrong(f"it has {len(cluster.nodes)} nodes; 1 to {NODE_COUNT_MAX} are possible")
    if len(cluster.ways) > WAY_COUNT_MAX:
        raise _wrong(f"it has {len(cluster.ways)} cables and networks; at most {WAY_COUNT_MAX}")
    if (count := sum(len(way.nodes) ** 2 for way in cluster.ways)) > LINK_COUNT_MAX:
        raise _wrong(f"its networks make some {count} links; at most {LINK_COUNT_MAX}")
    nodes = tuple(_node(one) for one in cluster.nodes)
    counts = Counter(node.name for node in nodes)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise _wrong(f"node {twice[0]!r} is there twice")
    joined = _Joined({node.name: number for number, node in enumerate(nodes, 1)})
    for way in cluster.ways:
        joined.add(way)
    links = tuple(sorted(joined.links, key=lambda link: link.id))
    return Situation(nodes, Graph(links=links, rails=tuple(joined.rails)), measured=joined.measured)


def _node(told: planning_pb2.ImaginedNode) -> Node:
    if not told.name or len(told.name) > NAME_LENGTH_MAX or not told.name.isprintable():
        raise _wrong(f"a node needs a name of 1 to {NAME_LENGTH_MAX} characters")
    if told.memory_bytes <= 0:
        raise _wrong(f"how much memory node {told.name!r} has for ranks is not said")
    if told.memory_bytes > BYTES_MAX:
        raise _wrong(f"node {told.name!r} has no {told.memory_bytes} bytes of memory")
    if not 0 <= told.memory_bytes_per_s <= BYTES_MAX:
        raise _wrong(f"node {told.name!r} cannot read {told.memory_bytes_per_s} bytes a second")
    if unknown := [one for one in told.backends if one not in BACKENDS]:
        raise _wrong(f"node {told.name!r} has an unknown backend {unknown[0]}")
    of_a_mac = {Backend.RING, Backend.JACCL} if told.rdma else {Backend.RING}
    return Node(
        NodeId(told.name),
        told.name,
        memory_bytes=told.memory_bytes,
        backends=frozenset(BACKENDS[one] for one in told.backends) or frozenset(of_a_mac),
        rdma=RdmaState.ENABLED if told.rdma else RdmaState.UNAVAILABLE,
        memory_bytes_per_s=told.memory_bytes_per_s,
    )


@dataclass
class _Joined:
    """How the nodes are joined. `numbers`: of the nodes, from 1."""

    numbers: Mapping[str, int]
    links: list[Link] = field(default_factory=list)
    rails: list[Rail] = field(default_factory=list)
    measured: dict[LinkId, Measured] = field(default_factory=dict)
    # Cables at each node, and all; networks.
    _ports: Counter[str] = field(default_factory=Counter)
    _cable_count: int = 0
    _network_count: int = 0

    def add(self, way: planning_pb2.ImaginedWay) -> None:
        """Raises InvalidRequest."""
        medium = self._checked(way)
        names = list(way.nodes)
        if medium is Medium.THUNDERBOLT:
            ends = {name: End(f"en{FIRST_PORT + self._ports[name]}", medium) for name in names}
            addresses = dict(zip(names, _of_a_cable(self._cable_count), strict=True))
            self._cable_count += 1
            self._ports.update(names)
            if way.rdma:
                self.rails.append(_rail(names, ends, way))
        else:
            ends = {name: End(INTERFACES[medium], medium) for name in names}
            net = "100.64" if medium is Medium.VPN else "192.168"
            addresses = {name: f"{net}.{self._network_count}.{self.numbers[name]}" for name in names}
            self._network_count += 1
        for here, there in _directions(names, way):
            link = _link(here, there, addresses, ends, way)
            self.links.append(link)
            if way.bits_per_s:
                self.measured[link.id] = Measured(bits_per_s=way.bits_per_s)

    def _checked(self, way: planning_pb2.ImaginedWay) -> Medium:
        names, medium = list(way.nodes), MEDIA.get(way.medium)
        if unknown := [name for name in names if name not in self.numbers]:
            raise _wrong(f"a cable or a network has {_listed(unknown[:1])}, which is no node")
        if len(names) < 2 or len(set(names)) < len(names):
            raise _wrong(f"a cable or a network joins two different nodes at least, not {_listed(names)}")
        if medium is Medium.THUNDERBOLT and len(names) != 2:
            raise _wrong(f"a cable joins two nodes, not {_listed(names)}")
        if medium is not Medium.THUNDERBOLT and medium not in INTERFACES:
            raise _wrong(f"what joins {_listed(names)} has no medium")
        if way.one_way and len(names) != 2:
            raise _wrong(f"one way only is for two nodes, not {_listed(names)}")
        if way.rdma and medium is not Medium.THUNDERBOLT:
            raise _wrong(f"what joins {_listed(names)} is no Thunderbolt cable: RDMA does not work over it")
        if not (0 <= way.rtt_us <= RTT_US_MAX and 0 <= way.bits_per_s <= BITS_PER_S_MAX):
            raise _wrong(f"what joins {_listed(names)} has no such round trip, or no such speed")
        if medium is not Medium.THUNDERBOLT and self._network_count == NETWORK_COUNT_MAX:
            raise _wrong(f"it has more than {NETWORK_COUNT_MAX} networks")
        assert medium is not None
        return medium


def _directions(names: Sequence[str], way: planning_pb2.ImaginedWay) -> Iterator[tuple[str, str]]:
    yield from [(names[0], names[1])] if way.one_way else permutations(names, 2)


def _of_a_cable(number: int) -> tuple[str, str]:
    """A network of its own, as people give to cables by hand."""
    net = f"10.{number // 256}.{number % 256}"
    return f"{net}.1", f"{net}.2"


def _link(
    here: str, there: str, addresses: Mapping[str, str], ends: Mapping[str, End], way: planning_pb2.ImaginedWay
) -> Link:
    leaves, arrives = ends[here], ends[there]
    # As topology would find it.
    is_slow = way.rtt_us > RTT_LIMITS_US.get(leaves.medium, way.rtt_us)
    return Link(
        NodeId(here),
        NodeId(there),
        addresses[there],
        leaves.medium,
        LinkState.DEGRADED if is_slow else LinkState.UP,
        way.rtt_us,
        Path(leaves, arrives, arrives, leaves),
        addresses[here],
    )


def _rail(names: Sequence[str], ends: Mapping[str, End], way: planning_pb2.ImaginedWay) -> Rail:
    one, other = (
        RailEnd(
            NodeId(name),
            f"rdma_{ends[name].interface}",
            ends[name].interface,
            f"{name}-{ends[name].interface}",
            "",
            RdmaPortState.ACTIVE,
        )
        for name in sorted(names)
    )
    return Rail(one, other, way.bits_per_s // 10**9)


def _listed(names: Sequence[str]) -> str:
    told = [repr(name[:NAME_LENGTH_MAX]) for name in names[:LISTED_MAX]]
    more = [f"{len(names) - LISTED_MAX} more"] if len(names) > LISTED_MAX else []
    return ", ".join([*told, *more]) or "nothing"


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(f"this cluster cannot be planned for: {what}", param="cluster")
