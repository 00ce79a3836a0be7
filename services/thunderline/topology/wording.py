"""What `thunderline links` says of a link: why it is chosen or not, and what is odd about it. Pure."""

import errno as errnos
from collections.abc import Collection, Iterable, Mapping

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address, is_ipv4, is_vpn
from thunderline.cluster.graph import Cable, CableEnd, Outcome, Tried
from thunderline.cluster.links import (
    RTT_LIMITS_US,
    Link,
    LinkId,
    LinkKey,
    LinkState,
    Mark,
    in_order,
    link_key,
    tier,
)
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.topology.ports import NOTHING_TOLD, Ports

Limits = Mapping[Medium, int]
# By node and address: the interface that the node's card gives to the address.
Owners = Mapping[tuple[NodeId, str], str]

OUTCOMES = {
    Outcome.UNTRIED: "not tried yet",
    Outcome.ANSWERED: "answered",
    Outcome.REFUSED: "refused: the host is there, but no topology listens",
    Outcome.TIMED_OUT: "no answer",
    Outcome.UNREACHABLE: "no way there",
    Outcome.WRONG_NODE: "another node answers at this address",
    Outcome.FAILED: "failed",
}


def why(
    link: Link,
    links: Collection[Link],
    chosen: LinkId | None,
    owners: Owners,
    tries: Iterable[Tried] = (),
    limits_us: Limits = RTT_LIMITS_US,
) -> str:
    """One line. `links`: all from this node to that peer; `tries`: the peer's, for what it says of the way back."""
    parts = [_place(link, links, chosen, limits_us)]
    parts += _oddities(link, owners, limits_us)
    back = _way_back(link, tries)
    return "; ".join([*parts, back] if back else parts)


def _place(link: Link, links: Collection[Link], chosen: LinkId | None, limits_us: Limits) -> str:
    """Where it stands in the order, and by which criterion."""
    if link.state is LinkState.DOWN:
        return "DOWN: it has answered before, and does not now"
    if Mark.UNADVERTISED in link.marks:
        return "UNADVERTISED: nothing is sent there, the peer's card does not tell this address"
    order = in_order(links, limits_us)
    if link.id != chosen:
        better = next((one for one in order if one.id == chosen), None)
        if better is None:
            return "not chosen yet"
        if link_key(better, limits_us) < link_key(link, limits_us):
            return f"after {better.address}: {criterion(better, link, limits_us)}"
        return f"better than {better.address}, but not clearly: {criterion(link, better, limits_us)}"
    if len(order) == 1:
        return "chosen: nothing else answers"
    if order[0].id != link.id:
        return f"kept: {order[0].address} is not clearly better"
    return f"chosen before {order[1].address}: {criterion(link, order[1], limits_us)}"


def criterion(better: Link, worse: Link, limits_us: Limits = RTT_LIMITS_US) -> str:
    """The first part of the link order in which the two differ."""
    first, second = link_key(better, limits_us), link_key(worse, limits_us)
    name = next((one for one in LinkKey._fields if getattr(first, one) != getattr(second, one)), "")
    return {
        "is_down": "the other is DOWN",
        "tier": f"{counts_as(better, limits_us)} before {counts_as(worse, limits_us)}",
        "is_degraded": "UP before DEGRADED",
        "is_public": "a private address first",
        "rtt_us": f"{milliseconds(better.rtt_us)} against {milliseconds(worse.rtt_us)}",
        "address": "as good; the lower address first",
        "local_interface": "as good; by the name of the interface",
    }.get(name, "the same link")


def counts_as(link: Link, limits_us: Limits = RTT_LIMITS_US) -> str:
    found = tier(link, limits_us)
    return found.name if found is link.medium else f"{link.medium.name} (as {found.name})"


def _oddities(link: Link, owners: Owners, limits_us: Limits) -> list[str]:
    found = []
    limit_us = limits_us.get(link.medium)
    if link.state is LinkState.DEGRADED and limit_us is not None:
        found.append(
            f"DEGRADED: {milliseconds(link.rtt_us)}, and {link.medium.name} should stay below {milliseconds(limit_us)}"
        )
    if not is_ipv4(link.address):
        found.append("IPv6 carries no data: MLX dials IPv4 only")
    elif link.medium is Medium.VPN:
        ends = (link.address, link.local_address)
        because = " by its address" if any(is_address(one) and is_vpn(one) for one in ends) else ""
        found.append(f"VPN{because}: carries data only while nothing else is UP")
    found += _detours(link, owners)
    if Mark.ASYMMETRIC_ROUTE in link.marks:
        found.append(f"ASYMMETRIC_ROUTE: {_there_and_back(link)}")
    if Mark.ONE_SIDED in link.marks:
        teller = "the peer that hears it" if link.path.leaves is None else "the node that dials"
        found.append(f"ONE_SIDED: only {teller} tells of it")
    return found


def _detours(link: Link, owners: Owners) -> list[str]:
    """An address whose packets pass another interface than the one that owns it."""
    pairs = (
        (link.from_node, link.local_address, link.path.leaves, "leave by"),
        (link.to_node, link.address, link.path.arrives, "arrive on"),
    )
    return [
        f"{address} belongs to {owner}, but packets {verb} {end.interface} ({end.medium.name})"
        for node, address, end, verb in pairs
        if end is not None and (owner := owners.get((node, address), "")) not in ("", end.interface)
    ]


def _there_and_back(link: Link) -> str:
    path = link.path
    there = [one.interface for one in (path.leaves, path.arrives) if one is not None]
    back = [one.interface for one in (path.returns, path.comes_back) if one is not None]
    return f"there by {' to '.join(there)}, back by {' to '.join(back)}"


def _way_back(link: Link, tries: Iterable[Tried]) -> str:
    """Said only when no address of this node answers its peer."""
    back = [one for one in tries if (one.from_node, one.to_node) == (link.to_node, link.from_node)]
    if not back or any(one.state not in (None, LinkState.DOWN) for one in back):
        return ""
    same = next((one for one in back if one.address == link.local_address), back[0])
    return f"one direction only: the peer's own tries of {same.address} end in: {attempt(same)}"


def attempt(one: Tried) -> str:
    """The last try of an address, for `links --all` and for placements that were rejected."""
    words = OUTCOMES[one.outcome]
    return f"{words} ({errnos.errorcode.get(one.errno, one.errno)})" if one.errno else words


def cable_lost(cable: Cable, links: Collection[Link], names: Mapping[NodeId, str], ports: Ports = NOTHING_TOLD) -> str:
    """One line; behind its first full stop the remedy. `links`: all of the graph."""
    ends = " and ".join(_end(end, names) for end in cable.ends)
    pair = set(cable.nodes)
    left = in_order(one for one in links if {one.from_node, one.to_node} == pair)
    parts = [f"CABLE_LOST: the cable between {ends} carries nothing"]
    parts += [f"they talk over {left[0].medium.name} at {milliseconds(left[0].rtt_us)}"] if left else []
    told = [(end, port) for end in cable.ends if (port := ports.at(end)) is not None]
    parts += [f"the port of {names.get(end.node, end.node)} sees {seen}" for end, port in told if (seen := _seen(port))]
    return f"{'; '.join(parts)}. {_remedy(cable, ports, bool(told))}"


def _seen(port: ThunderboltPort) -> str:
    """Empty where it does not say."""
    if port.macs:
        names = ", ".join(dict.fromkeys(mac.name for mac in port.macs if mac.name))
        return f"a Mac ({names})" if names else "a Mac"
    if port.devices:
        return f"{', '.join(port.devices)}, and no Mac"
    return {True: "something plugged in, and no Mac", False: "nothing plugged in", None: ""}[port.is_connected]


def _remedy(cable: Cable, ports: Ports, is_told: bool) -> str:
    """Two Macs that lost a cable in a crash, with nobody near it, had it back by unplugging it for 10 s."""
    look = "see whether these interfaces are up and have an address"
    if not is_told:
        return f"Plug it in again at both ends, or {look}"
    again = (
        "end what runs over it (a Mac can panic when a cable with an active link is pulled), take its ports out of any "
        "bridge (a cable that is plugged in anew under a bridge spoils RDMA until a reboot), unplug it, wait 10 s and "
        "plug it in again"
    )
    if ports.is_plugged_in(cable):
        return f"It is plugged in: {look}; if they have, {again}"
    return f"To have it back, {again}; then {look}"


def _end(end: CableEnd, names: Mapping[NodeId, str]) -> str:
    where = f" (receptacle {end.receptacle})" if end.receptacle else ""
    return f"{end.interface} of {names.get(end.node, end.node)}{where}"


def milliseconds(time_us: int) -> str:
    """Two digits that count: 0.05 ms, 4.2 ms, 40 ms."""
    time_ms = time_us / 1000
    return f"{time_ms:.0f} ms" if time_ms >= 10 else f"{time_ms:.1f} ms" if time_ms >= 1 else f"{time_ms:.2f} ms"
