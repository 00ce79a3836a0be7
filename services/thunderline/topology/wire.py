"""Reports and graphs as messages, and back. What comes from another node is held against bounds."""

from collections.abc import Sized
from functools import lru_cache

from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.graph import START_MAX, Cable, CableEnd, Outcome, Tried, Version, cable
from thunderline.cluster.links import LinkState
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.rpc.machine_facts import TEXT_LENGTH_MAX as PORT_TEXT_LENGTH_MAX
from thunderline.rpc.machine_facts import port_from_proto, port_to_proto, problem
from thunderline.topology.reports import Heard, Report
from thunderline.v1 import cluster_pb2, topology_pb2

# Of one message, and of each part of one report.
REPORT_COUNT_MAX = 64
PART_COUNT_MAX = 4096
# Between two nodes no more are remembered than were plugged in at once.
CABLE_COUNT_MAX = 512
PEER_COUNT_MAX = 1024
# Node ids have 36 characters, addresses 45.
TEXT_LENGTH_MAX = 64
# Counts that grow by one need no more, and what is added to one still fits the wire.
NUMBER_MAX = 2**53
# An hour.
RTT_US_MAX = 3_600_000_000


def report_to_proto(report: Report) -> topology_pb2.NodeReport:
    return topology_pb2.NodeReport(
        node_id=report.node,
        version=version_to_proto(report.version),
        attempts=[tried_to_proto(one) for one in report.tried],
        heard=[_heard_to_proto(one) for one in report.heard],
        cables=[cable_to_proto(one) for one in report.cables],
        complete=report.is_complete,
        tells_node_ids=report.tells,
        ports=[port_to_proto(one) for one in report.ports],
    )


def report_from_proto(told: topology_pb2.NodeReport) -> Report:
    """Raises InvalidRequest."""
    node = NodeId(_text(told.node_id))
    _few(told.attempts, PART_COUNT_MAX)
    _few(told.heard, PART_COUNT_MAX)
    _few(told.cables, CABLE_COUNT_MAX)
    _few(told.tells_node_ids, PEER_COUNT_MAX)
    # They are a part of their node's card, and have its bounds.
    if broken := problem(cluster_pb2.MachineFacts(ports=told.ports)):
        raise InvalidRequest(broken, param="reports")
    return Report(
        node,
        version_from_proto(told.version),
        tuple(_tried(one) for one in told.attempts),
        tuple(_heard(one, node) for one in told.heard),
        tuple(_cable(one) for one in told.cables),
        told.complete,
        tuple(sorted(NodeId(_text(one)) for one in told.tells_node_ids)),
        tuple(port_from_proto(one) for one in told.ports),
    )


def version_to_proto(version: Version) -> topology_pb2.GraphVersion:
    return topology_pb2.GraphVersion(start=version.start, number=version.number)


def version_from_proto(told: topology_pb2.GraphVersion) -> Version:
    """Raises InvalidRequest."""
    return Version(_number(told.start, START_MAX), _number(told.number, NUMBER_MAX))


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


def _tried(told: topology_pb2.AddressAttempt) -> Tried:
    try:
        outcome = Outcome(told.outcome - 1)
    except ValueError:
        raise InvalidRequest(f"unknown outcome {told.outcome}", param="outcome") from None
    return Tried(
        NodeId(_text(told.from_node_id)),
        NodeId(_text(told.to_node_id)),
        _text(told.address),
        outcome,
        told.errno,
        told.failure_count,
        _state(told.state) if told.state else None,
        _number(told.rtt_us, RTT_US_MAX),
        _text(told.local_address),
        _path(told.path),
        not told.unadvertised,
        told.chosen,
    )


def _heard_to_proto(one: Heard) -> topology_pb2.HeardProbe:
    return topology_pb2.HeardProbe(
        from_node_id=one.from_node,
        address=one.address,
        from_address=one.from_address,
        arrives=_end_to_proto(one.arrives),
        returns=_end_to_proto(one.returns) if one.returns else None,
        state=one.state.value,  # type: ignore[arg-type]
        rtt_us=one.rtt_us,
        is_proven=one.is_proven,
    )


def _heard(told: topology_pb2.HeardProbe, node: NodeId) -> Heard:
    arrives = _end(told.arrives)
    return Heard(
        NodeId(_text(told.from_node_id)),
        node,
        _text(told.address),
        _text(told.from_address),
        arrives,
        _end(told.returns) if told.HasField("returns") else None,
        _state(told.state),
        _number(told.rtt_us, RTT_US_MAX),
        told.is_proven,
    )


def path_to_proto(path: Path) -> topology_pb2.NetworkPath:
    ends = {"leaves": path.leaves, "arrives": path.arrives, "returns": path.returns, "comes_back": path.comes_back}
    return topology_pb2.NetworkPath(**{name: _end_to_proto(end) for name, end in ends.items() if end})


def _path(told: topology_pb2.NetworkPath) -> Path:
    def end(name: str) -> End | None:
        return _end(getattr(told, name)) if told.HasField(name) else None  # type: ignore[arg-type]

    return Path(end("leaves"), end("arrives"), end("returns"), end("comes_back"))


def _end_to_proto(end: End) -> topology_pb2.PathEnd:
    return topology_pb2.PathEnd(interface=end.interface, medium=end.medium.value)  # type: ignore[arg-type]


def _end(told: topology_pb2.PathEnd) -> End:
    return _known_end(told.interface, told.medium)


@lru_cache(maxsize=1024)
def _known_end(interface: str, medium: "cluster_pb2.Medium.ValueType") -> End:
    """Few differ, and each is told again with every report."""
    return End(_text(interface), medium_from_proto(medium))


def medium_from_proto(told: "cluster_pb2.Medium.ValueType") -> Medium:
    """Raises InvalidRequest."""
    try:
        return Medium(told)
    except ValueError:
        raise InvalidRequest(f"unknown medium {told}", param="medium") from None


def cable_to_proto(one: Cable) -> topology_pb2.Cable:
    return topology_pb2.Cable(one=_cable_end_to_proto(one.one), other=_cable_end_to_proto(one.other))


def _cable_end_to_proto(end: CableEnd) -> topology_pb2.CableEnd:
    return topology_pb2.CableEnd(
        node_id=end.node, interface=end.interface, port_uuid=end.port_uuid, receptacle=end.receptacle
    )


def _cable(told: topology_pb2.Cable) -> Cable:
    return cable(_cable_end(told.one), _cable_end(told.other))


def _cable_end(told: topology_pb2.CableEnd) -> CableEnd:
    # As long as a port may tell them.
    texts = [_text(one, PORT_TEXT_LENGTH_MAX) for one in (told.interface, told.port_uuid, told.receptacle)]
    return CableEnd(NodeId(_text(told.node_id)), *texts)


def _state(told: "topology_pb2.LinkState.ValueType") -> LinkState:
    try:
        return LinkState(told)
    except ValueError:
        raise InvalidRequest(f"unknown state {told} of a link", param="state") from None


def _text(told: str, length_max: int = TEXT_LENGTH_MAX) -> str:
    if len(told) > length_max:
        raise InvalidRequest(f"a text of {len(told)} characters; at most {length_max}", param="reports")
    if not told.isprintable():
        # It is shown and logged.
        raise InvalidRequest("a text that cannot be printed", param="reports")
    return told


def _number(told: int, number_max: int) -> int:
    if not 0 <= told <= number_max:
        raise InvalidRequest(f"{told} is not between 0 and {number_max}", param="reports")
    return told


def _few(told: Sized, count_max: int) -> None:
    if len(told) > count_max:
        raise InvalidRequest(f"{len(told)} entries; at most {count_max}", param="reports")
