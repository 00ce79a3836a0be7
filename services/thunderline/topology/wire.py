"""Reports as messages, and back. What comes from another node is held against bounds; rpc/graph.py knows the rest."""

from collections.abc import Sized
from functools import lru_cache

from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.graph import START_MAX, Cable, Tried, Version
from thunderline.cluster.links import LinkState
from thunderline.cluster.paths import End
from thunderline.rpc import graph
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
        attempts=[graph.tried_to_proto(one) for one in report.tried],
        heard=[_heard_to_proto(one) for one in report.heard],
        cables=[graph.cable_to_proto(one) for one in report.cables],
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


def _tried(told: topology_pb2.AddressAttempt) -> Tried:
    if told.outcome not in graph.OUTCOMES:
        raise InvalidRequest(f"unknown outcome {told.outcome}", param="outcome")
    if told.state:
        _state(told.state)
    for text in (told.from_node_id, told.to_node_id, told.address, told.local_address):
        _text(text)
    _number(told.rtt_us, RTT_US_MAX)
    for _, end in told.path.ListFields():
        _check_end(end.interface, end.medium)
    return graph.tried_from_proto(told)


def _heard_to_proto(one: Heard) -> topology_pb2.HeardProbe:
    return topology_pb2.HeardProbe(
        from_node_id=one.from_node,
        address=one.address,
        from_address=one.from_address,
        arrives=graph.end_to_proto(one.arrives),
        returns=graph.end_to_proto(one.returns) if one.returns else None,
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


def _end(told: topology_pb2.PathEnd) -> End:
    _check_end(told.interface, told.medium)
    return graph.end_from_proto(told)


@lru_cache(maxsize=1024)
def _check_end(interface: str, medium: int) -> None:
    """Few differ, and each is told again with every report."""
    _text(interface)
    if medium not in graph.MEDIA:
        raise InvalidRequest(f"unknown medium {medium}", param="medium")


def _cable(told: topology_pb2.Cable) -> Cable:
    for end in (told.one, told.other):
        _text(end.node_id)
        # As long as a port may tell them.
        for text in (end.interface, end.port_uuid, end.receptacle):
            _text(text, PORT_TEXT_LENGTH_MAX)
    return graph.cable_from_proto(told)


def _state(told: int) -> LinkState:
    if told not in graph.STATES:
        raise InvalidRequest(f"unknown state {told} of a link", param="state")
    return graph.STATES[told]


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
