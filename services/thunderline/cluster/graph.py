"""The graph of a cluster, as topology tells it and others use it. Pure values."""

import errno as errnos
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from thunderline.cluster import NodeId
from thunderline.cluster.links import Link, LinkId, LinkState
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import UNKNOWN, Path
from thunderline.cluster.rails import Rail

# Starts count from the time, in seconds since 1970. Below what the wire takes, so that one above it is still believed.
START_MAX = 2**53 - 2**20
# An address that never answered is given up for a placement after so many tries.
SETTLED_FAILURE_COUNT = 2


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Grows with every change that one provider tells, over its restarts too: `start` counts those."""

    start: int
    number: int


class Outcome(Enum):
    """How the last probe of an address ended."""

    UNTRIED = 0
    ANSWERED = 1
    REFUSED = 2  # The host is there; nobody listens.
    TIMED_OUT = 3
    UNREACHABLE = 4  # No way there, by this node's routes or somebody between.
    WRONG_NODE = 5  # Another node answered: several have this address.
    FAILED = 6  # Otherwise: the errno says how.


def outcome_of(errno: int) -> Outcome:
    """Of a connection that failed. A deadline of our own is ETIMEDOUT."""
    if errno == errnos.ECONNREFUSED:
        return Outcome.REFUSED
    if errno == errnos.ETIMEDOUT:
        return Outcome.TIMED_OUT
    if errno in {errnos.EHOSTUNREACH, errnos.ENETUNREACH, errnos.EHOSTDOWN, errnos.ENETDOWN, errnos.EADDRNOTAVAIL}:
        return Outcome.UNREACHABLE
    return Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Tried:
    """What a node knows of one address of a peer, tried or not. Every address of every peer has one."""

    from_node: NodeId
    to_node: NodeId
    address: str
    outcome: Outcome = Outcome.UNTRIED
    errno: int = 0
    # Since the last answer, up to SETTLED_FAILURE_COUNT.
    failure_count: int = 0
    # None: no probe has ever crossed, so there is no link.
    state: LinkState | None = None
    rtt_us: int = 0
    local_address: str = ""
    path: Path = UNKNOWN
    # The peer's card tells the address.
    is_advertised: bool = True
    # Connections from the node to the peer take it now.
    is_chosen: bool = False

    @property
    def id(self) -> LinkId:
        """Of the link, where there is one."""
        return LinkId(self.from_node, self.to_node, self.address)

    @property
    def is_settled(self) -> bool:
        """Whether a placement need not wait for another try."""
        if self.outcome is Outcome.ANSWERED or self.stands:
            return True
        return self.failure_count >= SETTLED_FAILURE_COUNT

    @property
    def stands(self) -> bool:
        """Whether it is a link that is not DOWN: one lost burst says nothing of it."""
        return self.state in (LinkState.UP, LinkState.DEGRADED)


@dataclass(frozen=True, slots=True, order=True)
class CableEnd:
    """Where a cable is plugged in. `port_uuid` and `receptacle` are "" where the system does not tell them."""

    node: NodeId
    interface: str
    port_uuid: str = ""
    receptacle: str = ""

    def is_same(self, other: "CableEnd") -> bool:
        """By its port; where the system does not tell both, by the interface, which may have another name tomorrow."""
        if self.port_uuid and other.port_uuid:
            return self.node == other.node and self.port_uuid == other.port_uuid
        return self.node == other.node and self.interface == other.interface


@dataclass(frozen=True, slots=True, order=True)
class Cable:
    """A cable between two nodes, the same from both sides: `one` sorts before `other`. Make it by `cable`."""

    one: CableEnd
    other: CableEnd

    @property
    def ends(self) -> tuple[CableEnd, CableEnd]:
        return self.one, self.other

    @property
    def nodes(self) -> tuple[NodeId, NodeId]:
        return self.one.node, self.other.node

    def is_same(self, other: "Cable") -> bool:
        return self.one.is_same(other.one) and self.other.is_same(other.other)

    def shares_an_end(self, other: "Cable") -> bool:
        """Then they were never plugged in at the same time, but for cables of one hub."""
        return any(mine.is_same(theirs) for mine in self.ends for theirs in other.ends)


def cable(first: CableEnd, second: CableEnd) -> Cable:
    return Cable(min(first, second), max(first, second))


@dataclass(frozen=True, slots=True)
class Graph:
    """How nodes are joined: the same value on every node that has heard the same reports. All parts are sorted."""

    links: tuple[Link, ...] = ()
    # Every address of every peer, as each node has tried it.
    tried: tuple[Tried, ...] = ()
    # Remembered ones, plugged in or not, and those of them that are CABLE_LOST.
    cables: tuple[Cable, ...] = ()
    lost_cables: tuple[Cable, ...] = ()
    # Nodes that have not told of all their links: nobody acts on a link that is missing from one of these.
    incomplete: tuple[NodeId, ...] = ()
    # The newest report of each node.
    seen: tuple[tuple[NodeId, Version], ...] = ()
    # The Thunderbolt ports of each node that tells of any, and what they join for RDMA.
    ports: tuple[tuple[NodeId, tuple[ThunderboltPort, ...]], ...] = ()
    rails: tuple[Rail, ...] = ()

    def between(self, from_node: NodeId, to_node: NodeId) -> tuple[Link, ...]:
        return tuple(one for one in self.links if (one.from_node, one.to_node) == (from_node, to_node))


def is_covered(older: Graph, newer: Graph) -> bool:
    """Whether `newer` knows of every node at least what `older` does, whoever told them."""
    known = dict(newer.seen)
    return all(node in known and version <= known[node] for node, version in older.seen)


def unsettled(graph: Graph, nodes: Iterable[NodeId]) -> tuple[tuple[NodeId, NodeId], ...]:
    """The directed pairs of these nodes for which a placement waits, at most as long as it likes.

    One waits until every address has been answered or has failed twice, and until a pair with a rail or a remembered
    cable has a THUNDERBOLT link.
    """
    wanted = sorted(set(nodes))
    joined = {frozenset(one.nodes) for one in graph.cables} | {frozenset(one.nodes) for one in graph.rails}
    waits = []
    for pair in [(one, other) for one in wanted for other in wanted if one != other]:
        tries = [one for one in graph.tried if (one.from_node, one.to_node) == pair]
        answering = [one for one in graph.between(*pair) if one.state is not LinkState.DOWN]
        lacks_cable = frozenset(pair) in joined and all(one.medium is not Medium.THUNDERBOLT for one in answering)
        if not tries or not all(one.is_settled for one in tries) or lacks_cable:
            waits.append(pair)
    return tuple(waits)
