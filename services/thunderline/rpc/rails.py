"""Rails, between values and protos. Pure."""

from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import RdmaPortState
from thunderline.cluster.rails import Rail, RailEnd
from thunderline.v1 import topology_pb2

STATES = {one.value: one for one in RdmaPortState}


def to_proto(rail: Rail) -> topology_pb2.Rail:
    return topology_pb2.Rail(
        one=_end_to_proto(rail.one),
        other=_end_to_proto(rail.other),
        speed_gbps=rail.speed_gbps,
        behind=rail.behind,
        one_sided=rail.is_one_sided,
        hub_unknown=rail.is_hub_unknown,
    )


def from_proto(told: topology_pb2.Rail) -> Rail:
    """Raises nothing. Its texts are as the topology tells them, which holds those of reports against bounds."""
    return Rail(_end(told.one), _end(told.other), told.speed_gbps, tuple(told.behind), told.one_sided, told.hub_unknown)


def _end_to_proto(end: RailEnd) -> topology_pb2.RailEnd:
    return topology_pb2.RailEnd(
        node_id=end.node,
        device=end.device,
        interface=end.interface,
        port_uuid=end.port_uuid,
        receptacle=end.receptacle,
        state=end.state.value,  # type: ignore[arg-type]
        bridge=end.bridge,
        next_to_ethernet=end.is_next_to_ethernet,
    )


def _end(told: topology_pb2.RailEnd) -> RailEnd:
    return RailEnd(
        NodeId(told.node_id),
        told.device,
        told.interface,
        told.port_uuid,
        told.receptacle,
        STATES.get(told.state, RdmaPortState.UNKNOWN),
        told.bridge,
        told.next_to_ethernet,
    )
