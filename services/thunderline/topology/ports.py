"""What the Thunderbolt ports of all nodes tell, for looking up, and which of them a link passes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, CableEnd
from thunderline.cluster.links import Link
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End
from thunderline.cluster.rails import PluggedCable, PortAt, is_shared, plugged_cables

# As a graph has them.
Told = tuple[tuple[NodeId, tuple[ThunderboltPort, ...]], ...]
# Both ports of a link, from the node that dials; None where nobody can tell.
Passed = tuple[ThunderboltPort | None, ThunderboltPort | None]


@dataclass(frozen=True, slots=True)
class Ports:
    """Make it by `ports_of`."""

    # Nodes that tell of any; those of them that tell the UUID of every port, and of every Mac that one sees.
    nodes: frozenset[NodeId] = frozenset()
    certain: frozenset[NodeId] = frozenset()
    by_interface: Mapping[tuple[NodeId, str], ThunderboltPort] = field(default_factory=dict)
    by_uuid: Mapping[tuple[NodeId, str], ThunderboltPort] = field(default_factory=dict)
    plugged: tuple[PluggedCable, ...] = ()

    def is_bridge(self, node: NodeId, interface: str) -> bool:
        """An interface of none of the node's ports, which carries Thunderbolt: the system has joined some to one."""
        return node in self.nodes and (node, interface) not in self.by_interface

    def at(self, end: CableEnd) -> ThunderboltPort | None:
        if end.port_uuid:
            return self.by_uuid.get((end.node, end.port_uuid))
        return self.by_interface.get((end.node, end.interface))

    def takes_several(self, end: CableEnd) -> bool:
        """Cables: a port with a hub, or a bridge."""
        port = self.at(end)
        if port is None:
            return not end.port_uuid and self.is_bridge(end.node, end.interface)
        return is_shared(port)

    def passed(self, link: Link) -> Passed:
        """By the interfaces that packets really pass.

        A bridge is passed by the one of its ports of which a cable goes there; of several nobody can tell which.
        """
        leaves, arrives = link.path.leaves, link.path.arrives
        mine, theirs = self._of(link.from_node, leaves), self._of(link.to_node, arrives)
        may_leave = mine is None and self._is_bridge_end(link.from_node, leaves)
        may_arrive = theirs is None and self._is_bridge_end(link.to_node, arrives)
        if not (may_leave or may_arrive):
            return mine, theirs
        found = [
            (near.port, far.port)
            for near, far in self._between(link.from_node, link.to_node)
            if (may_leave or near.port == mine) and (may_arrive or far.port == theirs)
        ]
        return found[0] if len(found) == 1 else (mine, theirs)

    def cable(self, one: PortAt, other: PortAt) -> PluggedCable | None:
        ends = (one, other) if one.node < other.node else (other, one)
        return next((cable for cable in self.plugged if cable.ends == ends), None)

    def is_plugged_in(self, cable: Cable) -> bool:
        """By the UUIDs of both ends: whether at least one of them sees the other."""
        ends = {(end.node, end.port_uuid) for end in cable.ends if end.port_uuid}
        return any(ends == {(end.node, end.port.uuid) for end in one.ends} for one in self.plugged)

    def contradict(self, link: Link, mine: ThunderboltPort | None, theirs: ThunderboltPort | None) -> bool:
        """Whether what the link passes cannot be one cable: known only where both nodes tell all UUIDs.

        One of the two ports is plugged in elsewhere: its interface has another name than its node has told so far, or
        a third node's bridge is between. Of bridges: no cable joins the two nodes.
        """
        nodes = link.from_node, link.to_node
        if not set(nodes) <= self.certain:
            return False
        if mine is None or theirs is None:
            ends = zip(nodes, (link.path.leaves, link.path.arrives), strict=True)
            return any(self._is_bridge_end(node, end) for node, end in ends) and not self._between(*nodes)
        passed = PortAt(link.from_node, mine), PortAt(link.to_node, theirs)
        is_plugged = any(end in passed for cable in self.plugged for end in cable.ends)
        return is_plugged and self.cable(*passed) is None

    def _of(self, node: NodeId, end: End | None) -> ThunderboltPort | None:
        return self.by_interface.get((node, end.interface)) if end is not None else None

    def _is_bridge_end(self, node: NodeId, end: End | None) -> bool:
        return end is not None and end.medium is Medium.THUNDERBOLT and self.is_bridge(node, end.interface)

    def _between(self, one: NodeId, other: NodeId) -> list[tuple[PortAt, PortAt]]:
        """Each with the first node's port first."""
        found = []
        for cable in self.plugged:
            if (cable.one.node, cable.other.node) == (one, other):
                found.append((cable.one, cable.other))
            elif (cable.other.node, cable.one.node) == (one, other):
                found.append((cable.other, cable.one))
        return found


NOTHING_TOLD = Ports()


def ports_of(told: Told) -> Ports:
    if not told:
        return NOTHING_TOLD
    every = [(node, port) for node, ports in told for port in ports]
    return Ports(
        frozenset(node for node, ports in told if ports),
        frozenset(node for node, ports in told if ports and all(map(_tells_uuids, ports))),
        {(node, port.interface): port for node, port in every if port.interface},
        {(node, port.uuid): port for node, port in every if port.uuid},
        plugged_cables(dict(told)),
    )


def _tells_uuids(port: ThunderboltPort) -> bool:
    return bool(port.uuid) and all(mac.port_uuid for mac in port.macs)
