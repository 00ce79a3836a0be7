"""The graph of a cluster, between values and protos. Pure.

What comes in is our own topology's word, which has held the reports of others against bounds: it raises nothing, and a
number that only a newer version knows becomes the most cautious one that we have.
"""

from functools import lru_cache

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, CableEnd, Graph, Outcome, Tried, cable
from thunderline.cluster.links import Link, LinkState, Mark, tier
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.rpc import rails
from thunderline.v1 import topology_pb2

MARKS = {
    Mark.ASYMMETRIC_ROUTE: topology_pb2.LINK_MARK_ASYMMETRIC_ROUTE,
    Mark.ONE_SIDED: topology_pb2.LINK_MARK_ONE_SIDED,
    Mark.UNADVERTISED: topology_pb2.LINK_MARK_UNADVERTISED,
}
_MARKS_OF = {number: mark for mark, number in MARKS.items()}
STATES = {one.value: one for one in LinkState}
MEDIA = {one.value: one for one in Medium}
# Protos have none of their own for 0.
OUTCOMES = {one.value + 1: one for one in Outcome}


def graph_from_proto(told: topology_pb2.Topology) -> Graph:
    """Without `seen` and `ports`, which a topology keeps to itself."""
    return Graph(
        links=tuple(sorted((link_from_proto(one) for one in told.links), key=lambda one: one.id)),
        tried=tuple(tried_from_proto(one) for one in told.attempts),
        cables=tuple(cable_from_proto(one) for one in told.cables),
        lost_cables=tuple(cable_from_proto(one) for one in told.cables if one.lost),
        incomplete=tuple(NodeId(one) for one in told.incomplete_node_ids),
        rails=tuple(rails.from_proto(one) for one in told.rails),
    )


def link_to_proto(link: Link) -> topology_pb2.Link:
    """Whether it is chosen, why, and over which cable, its topology adds."""
    return topology_pb2.Link(
        from_node_id=link.from_node,
        to_node_id=link.to_node,
        local_interface=link.local_interface,
        local_address=link.local_address,
        peer_address=link.address,
        medium=link.medium.value,  # type: ignore[arg-type]
        state=link.state.value,  # type: ignore[arg-type]
        rtt_us=link.rtt_us,
        peer_interface=link.remote_interface,
        counts_as=tier(link).value,  # type: ignore[arg-type]
        marks=sorted(MARKS[mark] for mark in link.marks),
        path=path_to_proto(link.path),
    )


def link_from_proto(told: topology_pb2.Link) -> Link:
    return Link(
        NodeId(told.from_node_id),
        NodeId(told.to_node_id),
        told.peer_address,
        MEDIA.get(told.medium, Medium.OTHER),
        STATES.get(told.state, LinkState.DOWN),
        told.rtt_us,
        path_from_proto(told.path),
        told.local_address,
        frozenset(_MARKS_OF[one] for one in told.marks if one in _MARKS_OF),
    )


def tried_to_proto(one: Tried) -> topology_pb2.AddressAttempt:
    return topology_pb2.AddressAttempt(
        from_node_id=one.from_node,
        to_node_id=one.to_node,
        address=one.address,
        outcome=one.outcome.value + 1,  # type: ignore[arg-type]
        errno=one.errno,
        failure_count=one.failure_count,
        state=one.state.value if one.state else 0,  # type: ignore[arg-type]
        rtt_us=one.rtt_us,
        local_address=one.local_address,
        path=path_to_proto(one.path),
        unadvertised=not one.is_advertised,
        chosen=one.is_chosen,
    )


def tried_from_proto(told: topology_pb2.AddressAttempt) -> Tried:
    return Tried(
        NodeId(told.from_node_id),
        NodeId(told.to_node_id),
        told.address,
        OUTCOMES.get(told.outcome, Outcome.FAILED),
        told.errno,
        told.failure_count,
        STATES.get(told.state, LinkState.DOWN) if told.state else None,
        told.rtt_us,
        told.local_address,
        path_from_proto(told.path),
        not told.unadvertised,
        told.chosen,
    )


def path_to_proto(path: Path) -> topology_pb2.NetworkPath:
    ends = {"leaves": path.leaves, "arrives": path.arrives, "returns": path.returns, "comes_back": path.comes_back}
    return topology_pb2.NetworkPath(**{name: end_to_proto(end) for name, end in ends.items() if end})


def path_from_proto(told: topology_pb2.NetworkPath) -> Path:
    def end(name: str) -> End | None:
        return end_from_proto(getattr(told, name)) if told.HasField(name) else None  # type: ignore[arg-type]

    return Path(end("leaves"), end("arrives"), end("returns"), end("comes_back"))


def end_to_proto(end: End) -> topology_pb2.PathEnd:
    return topology_pb2.PathEnd(interface=end.interface, medium=end.medium.value)  # type: ignore[arg-type]


def end_from_proto(told: topology_pb2.PathEnd) -> End:
    return _end(told.interface, told.medium)


@lru_cache(maxsize=1024)
def _end(interface: str, medium: int) -> End:
    """Few differ, and each is told again and again."""
    return End(interface, MEDIA.get(medium, Medium.OTHER))


def cable_to_proto(one: Cable) -> topology_pb2.Cable:
    return topology_pb2.Cable(one=_cable_end_to_proto(one.one), other=_cable_end_to_proto(one.other))


def _cable_end_to_proto(end: CableEnd) -> topology_pb2.CableEnd:
    return topology_pb2.CableEnd(
        node_id=end.node, interface=end.interface, port_uuid=end.port_uuid, receptacle=end.receptacle
    )


def cable_from_proto(told: topology_pb2.Cable) -> Cable:
    return cable(_cable_end_from_proto(told.one), _cable_end_from_proto(told.other))


def _cable_end_from_proto(told: topology_pb2.CableEnd) -> CableEnd:
    return CableEnd(NodeId(told.node_id), told.interface, told.port_uuid, told.receptacle)
