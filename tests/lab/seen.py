"""What a topology says of two nodes. Pure."""

from collections.abc import Callable

from thunderline.v1 import cluster_pb2, topology_pb2

Topology = topology_pb2.Topology
Link = topology_pb2.Link

UP, DEGRADED, DOWN = (
    topology_pb2.LINK_STATE_UP,
    topology_pb2.LINK_STATE_DEGRADED,
    topology_pb2.LINK_STATE_DOWN,
)
THUNDERBOLT, ETHERNET, WIFI, VPN = (
    cluster_pb2.MEDIUM_THUNDERBOLT,
    cluster_pb2.MEDIUM_ETHERNET,
    cluster_pb2.MEDIUM_WIFI,
    cluster_pb2.MEDIUM_VPN,
)

Holds = Callable[[Topology], bool]


def links(topology: Topology, one: str, other: str) -> list[Link]:
    """From one node to the other, those that answer."""
    ends = (one, other)
    return [link for link in topology.links if (link.from_node_id, link.to_node_id) == ends and link.state != DOWN]


def link(topology: Topology, one: str, other: str, address: str) -> Link | None:
    """To that address, also when it is DOWN."""
    ends = (one, other, address)
    return next(
        (link for link in topology.links if (link.from_node_id, link.to_node_id, link.peer_address) == ends), None
    )


def state(topology: Topology, one: str, other: str, address: str) -> "topology_pb2.LinkState.ValueType":
    found = link(topology, one, other, address)
    return found.state if found is not None else topology_pb2.LINK_STATE_UNSPECIFIED


def chosen(topology: Topology, one: str, other: str) -> str:
    """The address that connections from one to the other take; "" for none. Fails when there are several."""
    found = [link.peer_address for link in links(topology, one, other) if link.chosen]
    assert len(found) <= 1, told(topology)
    return found[0] if found else ""


def told(topology: Topology) -> str:
    """For a message: a line for each link and each address that does not answer."""
    lines = [
        f"{link.from_node_id[:4]} -> {link.to_node_id[:4]} {link.peer_address} "
        f"{link.local_interface} to {link.peer_interface} {cluster_pb2.Medium.Name(link.medium)[7:]} "
        f"{topology_pb2.LinkState.Name(link.state)[11:]} {link.rtt_us} us{' chosen' if link.chosen else ''}: {link.why}"
        for link in topology.links
    ]
    lines += [
        f"{one.from_node_id[:4]} -> {one.to_node_id[:4]} {one.address}: {one.sentence}"
        for one in topology.attempts
        if one.outcome != topology_pb2.PROBE_OUTCOME_ANSWERED
    ]
    return "\n".join([f"{topology.node_id[:4]} tells:", *lines])
