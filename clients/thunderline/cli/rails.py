"""How cables of Macs and the rails over them are shown by `links`."""

from collections.abc import Iterable, Mapping

from thunderline.cluster.rails import Cause, Obstacle, Rail, RailEnd, obstacles
from thunderline.v1 import topology_pb2

RAIL_COLUMNS = ("node", "peer", "devices", "cable", "state", "seen by", "why not usable")


def cable_text(cable: topology_pb2.LinkCable) -> str:
    """As in "3→2, 80 Gb/s direct": receptacles, negotiated speed, hubs. What no port tells is left out.

    From one of its sides a dock may not show: what one end alone tells is not called direct.
    """
    ends = f"{cable.local_receptacle or '?'}→{cable.peer_receptacle or '?'}"
    speed = f"{cable.speed_gbps} Gb/s " if cable.speed_gbps else ""
    is_direct = not (cable.one_sided or cable.hub_unknown)
    behind = f"behind {', '.join(cable.behind)}" if cable.behind else "direct" if is_direct else "no hub seen"
    return f"{ends}, {speed}{behind}"


def rail_row(rail: Rail, names: Mapping[str, str]) -> tuple[str, ...]:
    one, other = rail.ends
    cable = topology_pb2.LinkCable(
        local_receptacle=one.receptacle,
        peer_receptacle=other.receptacle,
        speed_gbps=rail.speed_gbps,
        behind=rail.behind,
        one_sided=rail.is_one_sided,
        hub_unknown=rail.is_hub_unknown,
    )
    states = [end.state.name for end in rail.ends]
    return (
        names.get(one.node, one.node),
        names.get(other.node, other.node),
        f"{one.device} to {other.device}",
        cable_text(cable),
        states[0] if states[0] == states[1] else ", ".join(states),
        "one end only" if rail.is_one_sided else "both ends",
        why_not(rail, names),
    )


def why_not(rail: Rail, names: Mapping[str, str]) -> str:
    """Empty where nothing that is known keeps RDMA from it."""
    found = obstacles(rail)
    told = [_of_port(one, names) for one in found if one.cause in (Cause.WRONG_PORT, Cause.BRIDGED)]
    if down := _devices(found, Cause.DOWN, names):
        # Of a port that RDMA cannot use it is no other trouble that its device is DOWN.
        guess = "" if told else "; RDMA is off at one end, or the cable is out: `thunderline doctor`"
        told.append(f"DOWN: {down}{guess}")
    elif unknown := _devices(found, Cause.UNKNOWN, names):
        told.append(f"nobody tells whether {unknown} can be used")
    return "; ".join(told)


def _of_port(one: Obstacle, names: Mapping[str, str]) -> str:
    device = _device(one.end, names)
    if one.cause is Cause.WRONG_PORT:
        return f"{device} is the port next to Ethernet, where RDMA does not work: another port of that Mac"
    return f"{one.end.bridge} holds the interface of {device}: `thunderline doctor`"


def _devices(found: Iterable[Obstacle], cause: Cause, names: Mapping[str, str]) -> str:
    return " and ".join(_device(one.end, names) for one in found if one.cause is cause)


def _device(end: RailEnd, names: Mapping[str, str]) -> str:
    return f"{end.device} of {names.get(end.node, end.node)}"
