"""Remembered cables, and which of them are lost. Pure; times are of the wall clock, as memory outlives a boot."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, CableEnd, cable
from thunderline.cluster.links import Link, LinkState
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.topology.ports import NOTHING_TOLD, Ports

# A cable that nobody has plugged in again for a month was taken away.
REMEMBERED_S = 30 * 24 * 3600.0


def cables_of(links: Iterable[Link], ports: Ports = NOTHING_TOLD) -> frozenset[Cable]:
    """Those that carry a link now, whichever way. What ports contradict is none."""
    return frozenset(found for found, is_sure in _carrying(links, ports) if is_sure)


def _carrying(links: Iterable[Link], ports: Ports) -> list[tuple[Cable, bool]]:
    """By the interfaces that packets pass, and whether the ports agree."""
    found = []
    for link in links:
        leaves, arrives = link.path.leaves, link.path.arrives
        if link.state is LinkState.DOWN or link.medium is not Medium.THUNDERBOLT or not (leaves and arrives):
            continue
        if link.path.is_asymmetric:
            continue
        mine, theirs = ports.passed(link)
        ends = _end(link.from_node, leaves.interface, mine), _end(link.to_node, arrives.interface, theirs)
        found.append((cable(*ends), not ports.contradict(link, mine, theirs)))
    return found


def _end(node: NodeId, interface: str, port: ThunderboltPort | None) -> CableEnd:
    if port is None:
        return CableEnd(node, interface)
    return CableEnd(node, port.interface or interface, port.uuid, port.receptacle)


def as_now(one: Cable, ports: Ports) -> Cable:
    """With the interfaces and receptacles that its ports tell today."""
    return cable(*(_end_now(end, ports) for end in one.ends))


def _end_now(end: CableEnd, ports: Ports) -> CableEnd:
    port = ports.at(end) if end.port_uuid else None
    if port is None:
        return end
    return replace(end, interface=port.interface or end.interface, receptacle=port.receptacle or end.receptacle)


def distinct(cables: Iterable[Cable]) -> tuple[Cable, ...]:
    """Sorted. Of one cable that several nodes remember, what is known best."""
    found: list[Cable] = []
    for one in sorted(set(cables), key=lambda one: (-_known_count(one), one)):
        if not any(one.is_same(other) for other in found):
            found.append(one)
    return tuple(sorted(found))


def _known_count(one: Cable) -> int:
    return sum(bool(text) for end in one.ends for text in (end.port_uuid, end.receptacle))


def remembered(
    earlier: Mapping[Cable, float], here: Collection[Cable], now_s: float, ports: Ports = NOTHING_TOLD
) -> dict[Cable, float]:
    """When each cable was last seen.

    Where an end has another cable now, the earlier one is forgotten. A cable that was never seen before, and replaces
    none so, takes the place of the one between the same nodes that is gone for longest: somebody has moved it to other
    receptacles.
    """
    fresh = {one: seen_s for one, seen_s in earlier.items() if now_s - seen_s <= REMEMBERED_S}
    seen = {_with_what_was_known(one, fresh) for one in here}
    gone = {one: seen_s for one, seen_s in fresh.items() if one not in seen}
    replaced = {
        new: {one for one in gone if one.is_same(new) or _excludes(one, new, ports, is_sure=True)} for new in seen
    }
    left = {one: seen_s for one, seen_s in gone.items() if not any(one in ones for ones in replaced.values())}
    for new in sorted(seen - fresh.keys()):
        moved = sorted((seen_s, one) for one, seen_s in left.items() if one.nodes == new.nodes)
        if moved and not replaced[new]:
            del left[moved[0][1]]
    return {**left, **dict.fromkeys(seen, now_s)}


def _with_what_was_known(one: Cable, earlier: Iterable[Cable]) -> Cable:
    """A node whose role has just started does not tell of its ports yet."""
    known = distinct(other for other in earlier if other.is_same(one))
    if len(known) != 1:
        return one
    ends = [
        replace(mine, port_uuid=mine.port_uuid or theirs.port_uuid, receptacle=mine.receptacle or theirs.receptacle)
        for mine, theirs in zip(one.ends, known[0].ends, strict=True)
    ]
    return cable(*ends)


def _excludes(one: Cable, other: Cable, ports: Ports, is_sure: bool = False) -> bool:
    """A port has one cable, or with a hub one to each node.

    `is_sure`: not because of an interface whose port was known and is not now, as it may have been another one's.
    """
    return any(
        mine.is_same(theirs)
        and not (is_sure and mine.port_uuid and not theirs.port_uuid)
        and (one.nodes == other.nodes or not ports.takes_several(theirs))
        for mine in one.ends
        for theirs in other.ends
    )


def lost(
    cables: Iterable[Cable], links: Collection[Link], alive: Collection[NodeId], ports: Ports = NOTHING_TOLD
) -> tuple[Cable, ...]:
    """CABLE_LOST: remembered, carries nothing now, and both of its nodes are ALIVE and joined by something else.

    `alive`: those of them that have told of all their links.
    """
    here = [found for found, _ in _carrying(links, ports)]
    joined = {frozenset((one.from_node, one.to_node)) for one in links if one.state is not LinkState.DOWN}

    def is_lost(one: Cable) -> bool:
        if any(_may_be(one, other, ports) or _excludes(one, other, ports) for other in here):
            return False
        return frozenset(one.nodes) in joined and set(one.nodes) <= set(alive)

    return tuple(sorted(one for one in set(cables) if is_lost(one)))


def _may_be(one: Cable, carrying: Cable, ports: Ports) -> bool:
    """A bridge may carry any cable of its ports that is plugged in, or of which they do not tell."""
    if one.is_same(carrying):
        return True
    fits = one.nodes == carrying.nodes and all(
        mine.is_same(theirs) or (not theirs.port_uuid and ports.is_bridge(theirs.node, theirs.interface))
        for mine, theirs in zip(one.ends, carrying.ends, strict=True)
    )
    return fits and (not all(end.port_uuid for end in one.ends) or ports.is_plugged_in(one))
