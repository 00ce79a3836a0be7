"""What topology tells of the links between this node and its peers. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from thunderline.cli.findings.finding import Finding, joined, note, warning, wrong
from thunderline.cluster.links import RTT_LIMITS_US, LinkState, Mark
from thunderline.cluster.media import Medium
from thunderline.v1 import topology_pb2

# A placement is rejected with all of them; here some are enough to see the pattern.
ATTEMPT_COUNT_MAX = 4
# A placement waits no longer for links to be measured either.
SETTLE_S = 10.0
SHOW = "`thunderline links --all` shows every address that was tried"
TAKEN_FOR_VPN = "`[topology] media` says so where an interface is taken for a VPN"

DOWN = LinkState.DOWN.value


@dataclass(frozen=True, slots=True)
class Peers:
    """Members that are ALIVE, without the node whose links are looked at: their names and for how long they are, by
    node_id; and the echo ports of all nodes."""

    names: Mapping[str, str]
    alive_s: Mapping[str, float]
    echo_ports: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Node:
    """Whose links are looked at, and what it is called: "this node", or its name."""

    id: str
    name: str = "this node"


def of_links(topology: topology_pb2.Topology, peers: Peers, log: str, node: Node | None = None) -> list[Finding]:
    """`log`: of this node's topology. `node`: another one than this."""
    own = node or Node(topology.node_id)
    found = []
    for peer, name in peers.names.items():
        there = [one for one in topology.links if (one.from_node_id, one.to_node_id) == (own.id, peer)]
        back = [one for one in topology.links if (one.from_node_id, one.to_node_id) == (peer, own.id)]
        if not (_answering(there) and _answering(back)) and {own.id, peer} & set(topology.incomplete_node_ids):
            found.append(_not_measured(name, peers.alive_s.get(peer, 0.0), log))
            continue
        told = [finding for one in (*there, *back) for finding in _of_link(one, name, own, _answering(there, back))]
        pair = _of_pair(topology, own, Node(peer, name), there, back, peers.echo_ports)
        if not told and not pair and (chosen := next((one for one in there if one.chosen), None)):
            found.append(note(f"link to {name}", f"{_medium(chosen)}, {_ms(chosen.rtt_us)} by {chosen.peer_address}"))
        found += pair + told
    named = {own.id: own.name, **peers.names}
    lost = [one for one in topology.cables if one.lost and {one.one.node_id, one.other.node_id} <= named.keys()]
    return found + [_of_lost_cable(one, named) for one in lost if own.id in (one.one.node_id, one.other.node_id)]


def _not_measured(name: str, alive_s: float, log: str) -> Finding:
    if alive_s < SETTLE_S:
        return note(f"links to {name}", "not all are measured yet")
    why = f"{name} is ALIVE for {alive_s:.0f} s, and not every probe has been answered or has failed on both nodes"
    remedy = (
        f"run `thunderline doctor` once more; if it stays so, `tail {log}` here, and `thunderline doctor` on {name}"
    )
    return warning(f"links to {name} are not measured", why, remedy)


def _answering(*ways: Iterable[topology_pb2.Link]) -> list[topology_pb2.Link]:
    return [one for way in ways for one in way if one.state != DOWN]


def _of_pair(
    topology: topology_pb2.Topology,
    own: Node,
    peer: Node,
    there: list[topology_pb2.Link],
    back: list[topology_pb2.Link],
    echo_ports: Mapping[str, int],
) -> list[Finding]:
    """What is wrong between a node and a peer as a whole."""
    goes, comes = bool(_answering(there)), bool(_answering(back))
    if not goes and not comes:
        why = _tries(topology, own, peer) or f"topology knows no address of {peer.name}"
        open_port = _open_port(peer.name, echo_ports.get(peer.id))
        remedy = f"{open_port}; a cable between them needs an address at both ends; {SHOW}"
        return [wrong(f"no link joins {own.name} and {peer.name}", why, remedy)]
    if goes and not comes:
        why = _tries(topology, peer, own) or f"{peer.name} has told of no link to {own.name}"
        return [_one_way(own, peer, why, echo_ports)]
    if not goes:
        why = _tries(topology, own, peer) or "no address of it answers"
        return [_one_way(peer, own, why, echo_ports)]
    vpn_there, vpn_back = _is_vpn(there), _is_vpn(back)
    if vpn_there and vpn_back:
        return [
            warning(
                f"only a VPN joins {own.name} and {peer.name}",
                "models run on both at a fraction of their speed",
                f"plug in a cable, or give both an address in one LAN; {SHOW}; {TAKEN_FOR_VPN}",
                f"`thunderline links`: {_rtts(there)}",
            )
        ]
    if vpn_there:
        why = f"{_rtts(there)}; {peer.name} reaches {own.name} by {_media(back)}"
        return [_one_way_by_vpn(own.name, peer.name, why, _tries(topology, own, peer))]
    if vpn_back:
        why = f"{_rtts(back)}; {own.name} reaches {peer.name} by {_media(there)}"
        return [_one_way_by_vpn(peer.name, own.name, why, _tries(topology, peer, own))]
    return []


def _one_way(dials: Node, silent: Node, why: str, echo_ports: Mapping[str, int]) -> Finding:
    """`silent` is reached, and reaches nobody: what it dials is closed."""
    return warning(
        f"one direction only: {dials.name} reaches {silent.name}, and {silent.name} does not reach {dials.name}",
        why,
        f"{_open_port(dials.name, echo_ports.get(dials.id))}; {SHOW}",
    )


def _is_vpn(way: Iterable[topology_pb2.Link]) -> bool:
    return {one.medium for one in _answering(way)} == {Medium.VPN.value}


def _rtts(way: Iterable[topology_pb2.Link]) -> str:
    return joined(sorted({f"{_ms(one.rtt_us)} by {one.peer_address}" for one in _answering(way)}))


def _media(way: Iterable[topology_pb2.Link]) -> str:
    return joined(sorted({_medium(one) for one in _answering(way)}))


def _one_way_by_vpn(dials: str, answers: str, why: str, tries: str) -> Finding:
    """The other way has something better."""
    return warning(
        f"from {dials} to {answers} there is only a VPN",
        f"{why}; {tries}" if tries else why,
        f"let {dials} reach the other addresses of {answers}: see its routes, the cable's address at both ends, and "
        f"the firewall of {answers}; {SHOW}; {TAKEN_FOR_VPN}",
    )


def _of_link(one: topology_pb2.Link, name: str, own: Node, answering: list[topology_pb2.Link]) -> Iterable[Finding]:
    way = f"to {name} at" if one.from_node_id == own.id else f"from {name} to"
    what = f"the link {way} {one.peer_address} ({_medium(one)})"
    if one.state == LinkState.DEGRADED.value:
        limit_us = RTT_LIMITS_US.get(Medium(one.medium)) if one.medium else None
        below = f", and {_medium(one)} should stay below {_ms(limit_us)}" if limit_us else ""
        why = f"{_ms(one.rtt_us)}{below}; counts as {_name(one.counts_as)}"
        remedy = "look for load or a bad cable there; `thunderline links --measure` compares its directions"
        yield warning(f"{what} is DEGRADED", why, remedy)
    if one.state == DOWN and answering:
        remedy = f"see whether {one.local_interface or 'its interface'} is up and plugged in at both ends; {SHOW}"
        yield warning(f"{what} is DOWN", "it has answered before, and does not now; another way is used", remedy)
    if Mark.ASYMMETRIC_ROUTE.value in one.marks:
        remedy = "make the routes of both nodes alike (`ip route get ADDRESS`, on a Mac `route -n get ADDRESS`)"
        yield warning(f"{what} comes back another way", _said(one, Mark.ASYMMETRIC_ROUTE.name), remedy)
    if Mark.ONE_SIDED.value in one.marks and one.state != DOWN:
        remedy = f"`thunderline doctor` on {name}: its topology tells nothing of this link"
        yield warning(f"only one node tells of {what}", _said(one, Mark.ONE_SIDED.name), remedy)


def _of_lost_cable(one: topology_pb2.Cable, names: Mapping[str, str]) -> Finding:
    """Its sentence has the remedy behind its first full stop."""
    ends = joined([f"{_place(end)} of {names.get(end.node_id, end.node_id)}" for end in (one.one, one.other)])
    seen, _, remedy = one.sentence.removeprefix("CABLE_LOST: ").partition(". ")
    return warning(
        f"CABLE_LOST between {ends}",
        "both nodes are ALIVE, and what they say to each other takes another way, which is slower",
        f"{remedy or 'plug it in again at both ends'}; `thunderline links` shows what carries data instead",
        f"`thunderline links`: {seen or 'it carries nothing any more'}",
        "whether it was taken out or its port is stuck: after a crash a Mac may see no device at a cable that is in",
    )


def _place(end: topology_pb2.CableEnd) -> str:
    return f"{end.interface} (receptacle {end.receptacle})" if end.receptacle else end.interface


def _said(link: topology_pb2.Link, mark: str) -> str:
    """Of the sentence of a link the part about a mark."""
    parts = link.why.split("; ")
    return next((part.removeprefix(f"{mark}: ") for part in parts if part.startswith(mark)), link.why or mark)


def _tries(topology: topology_pb2.Topology, from_node: Node, to_node: Node) -> str:
    """How the tries of each address ended, with the errno, as topology says it."""
    found = [
        f"{one.address}: {one.sentence or topology_pb2.ProbeOutcome.Name(one.outcome).removeprefix('PROBE_OUTCOME_')}"
        for one in topology.attempts
        if (one.from_node_id, one.to_node_id) == (from_node.id, to_node.id)
    ]
    more = [f"{len(found) - ATTEMPT_COUNT_MAX} more"] if len(found) > ATTEMPT_COUNT_MAX else []
    return "; ".join(found[:ATTEMPT_COUNT_MAX] + more)


def _open_port(name: str, port: int | None) -> str:
    where = f"TCP port {port} (its echo)" if port else "the TCP port of its echo, 7412 by default,"
    return f"let {where} in at the firewall of {name}"


def _medium(one: topology_pb2.Link) -> str:
    return _name(one.medium)


def _name(medium: int) -> str:
    return Medium(medium).name if medium else "unknown"


def _ms(rtt_us: int) -> str:
    return f"{rtt_us / 1000:.3g} ms"
