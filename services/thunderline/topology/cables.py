"""Remembered cables, and which of them are lost. Pure; times are of the wall clock, as memory outlives a boot."""

from collections.abc import Collection, Iterable, Mapping

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, CableEnd, cable
from thunderline.cluster.links import Link, LinkState
from thunderline.cluster.media import Medium

# A cable that nobody has plugged in again for a month was taken away.
REMEMBERED_S = 30 * 24 * 3600.0

# By node and interface: the UUID and the receptacle of the port, where the system tells them.
Ports = Mapping[tuple[NodeId, str], tuple[str, str]]


def cables_of(links: Iterable[Link], ports: Ports) -> frozenset[Cable]:
    """Those that carry a link now, whichever way."""
    found = set()
    for link in links:
        leaves, arrives = link.path.leaves, link.path.arrives
        if link.state is LinkState.DOWN or link.medium is not Medium.THUNDERBOLT or not (leaves and arrives):
            continue
        if link.path.is_asymmetric:
            continue
        mine = CableEnd(link.from_node, leaves.interface, *ports.get((link.from_node, leaves.interface), ("", "")))
        theirs = CableEnd(link.to_node, arrives.interface, *ports.get((link.to_node, arrives.interface), ("", "")))
        found.add(cable(mine, theirs))
    return frozenset(found)


def remembered(earlier: Mapping[Cable, float], here: Collection[Cable], now_s: float) -> dict[Cable, float]:
    """When each cable was last seen.

    A cable that was never seen before takes the place of those with which it shares an end, and of the one between
    the same nodes that is gone for longest: somebody has moved it to other receptacles.
    """
    kept = {one: seen_s for one, seen_s in earlier.items() if now_s - seen_s <= REMEMBERED_S}
    for new in sorted(set(here) - kept.keys()):
        rivals = {one: seen_s for one, seen_s in kept.items() if one not in here}
        replaced = {one for one in rivals if one.shares_an_end(new)}
        if not replaced:
            gone = [one for one in rivals if set(one.nodes) == set(new.nodes)]
            replaced = set(sorted(gone, key=lambda one: (rivals[one], one))[:1])
        kept = {one: seen_s for one, seen_s in kept.items() if one not in replaced}
        kept[new] = now_s
    return {**kept, **dict.fromkeys(here, now_s)}


def lost(cables: Iterable[Cable], links: Collection[Link], alive: Collection[NodeId]) -> tuple[Cable, ...]:
    """CABLE_LOST: remembered, carries nothing now, and both of its nodes are ALIVE and joined by something else.

    `alive`: those of them that have told of all their links.
    """
    here = cables_of(links, {})
    joined = {frozenset((one.from_node, one.to_node)) for one in links if one.state is not LinkState.DOWN}

    def is_lost(one: Cable) -> bool:
        if any(one.shares_an_end(other) for other in here):
            return False
        return frozenset(one.nodes) in joined and set(one.nodes) <= set(alive)

    return tuple(sorted(one for one in set(cables) if is_lost(one)))
