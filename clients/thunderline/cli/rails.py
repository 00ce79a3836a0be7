"""How cables of Macs and the rails over them are shown by `links`."""

from collections.abc import Mapping

from thunderline.v1 import cluster_pb2, topology_pb2

RAIL_COLUMNS = ("node", "peer", "devices", "cable", "state", "seen by", "why not usable")


def cable_text(cable: topology_pb2.LinkCable) -> str:
    """As in "3→2, 80 Gb/s direct": receptacles, negotiated speed, hubs. What no port tells is left out."""
    ends = f"{cable.local_receptacle or '?'}→{cable.peer_receptacle or '?'}"
    speed = f"{cable.speed_gbps} Gb/s " if cable.speed_gbps else ""
    behind = f"behind {', '.join(cable.behind)}" if cable.behind else "direct"
    return f"{ends}, {speed}{behind}"


def rail_row(rail: topology_pb2.Rail, names: Mapping[str, str]) -> tuple[str, ...]:
    one, other = rail.one, rail.other
    cable = topology_pb2.LinkCable(
        local_receptacle=one.receptacle,
        peer_receptacle=other.receptacle,
        speed_gbps=rail.speed_gbps,
        behind=rail.behind,
    )
    states = [_state(end) for end in (one, other)]
    return (
        names.get(one.node_id, one.node_id),
        names.get(other.node_id, other.node_id),
        f"{one.device} to {other.device}",
        cable_text(cable),
        states[0] if states[0] == states[1] else ", ".join(states),
        "one end only" if rail.one_sided else "both ends",
        why_not(rail, names),
    )


def why_not(rail: topology_pb2.Rail, names: Mapping[str, str]) -> str:
    """Empty where the devices of both ends are ACTIVE."""
    ends = [(f"{end.device} of {names.get(end.node_id, end.node_id)}", end.state) for end in (rail.one, rail.other)]
    down = [name for name, state in ends if state == cluster_pb2.RDMA_PORT_STATE_DOWN]
    if down:
        return f"DOWN: {' and '.join(down)}; RDMA is off at one end, or the cable is out: `thunderline doctor`"
    unknown = [name for name, state in ends if state != cluster_pb2.RDMA_PORT_STATE_ACTIVE]
    return f"nobody tells whether {' and '.join(unknown)} can be used" if unknown else ""


def _state(end: topology_pb2.RailEnd) -> str:
    if not end.state:
        return "UNKNOWN"
    return cluster_pb2.RdmaPortState.Name(end.state).removeprefix("RDMA_PORT_STATE_")
