"""What every node reports of its probes, and the one graph that follows from it. Pure.

A node's newest report replaces its older ones, so reports may come in any order, twice, and by way of others: who has
heard the same has the same graph.
"""

import operator
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address
from thunderline.cluster.graph import SETTLED_FAILURE_COUNT, Cable, Graph, Outcome, Tried, Version
from thunderline.cluster.links import (
    RTT_LIMITS_US,
    SWITCH_GAIN_MIN,
    SWITCH_GAIN_MIN_US,
    Link,
    LinkId,
    LinkState,
    Mark,
)
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path, link_medium
from thunderline.cluster.rails import rails_over
from thunderline.topology.cables import as_now, distinct, lost
from thunderline.topology.ports import ports_of
from thunderline.topology.probes import Arrivals, Row, Rows


@dataclass(frozen=True, slots=True)
class Heard:
    """Probes of a peer that reach the node which tells of it."""

    from_node: NodeId
    to_node: NodeId
    # Of `to_node`, which tells.
    address: str
    from_address: str
    arrives: End
    returns: End | None
    state: LinkState
    rtt_us: int
    # Own probes to `from_address` have crossed. Otherwise anybody may have said this name, and it is not told.
    is_proven: bool


@dataclass(frozen=True, slots=True)
class Report:
    """All that one node knows by itself. The parts are sorted."""

    node: NodeId
    version: Version
    tried: tuple[Tried, ...] = ()
    heard: tuple[Heard, ...] = ()
    # Remembered ones with an end here.
    cables: tuple[Cable, ...] = ()
    # Every address of every peer has been answered or given up; of a role that has just started it has not.
    is_complete: bool = False
    # Peers to which a stream stands, sorted: they need nobody to pass its reports on.
    tells: tuple[NodeId, ...] = ()
    # Its own Thunderbolt ports.
    ports: tuple[ThunderboltPort, ...] = ()


Reports = Mapping[NodeId, Report]


def told(
    node: NodeId,
    version: Version,
    rows: Rows,
    arrivals: Arrivals,
    cables: Collection[Cable],
    knows_peers: bool,
    tells: Collection[NodeId] = (),
    ports: Sequence[ThunderboltPort] = (),
    taken: Collection[LinkId] = (),
) -> Report:
    """What is known now, as a report. `knows_peers`: the roster is complete, so there are rows for all.

    `tells`: peers with which a stream stands; `ports`: those of this node; `taken`: what its connections go by.
    """
    tried = sorted((_tried(node, row, arrivals, taken) for row in rows.values() if row.is_told), key=_tried_key)
    found = []
    for one in arrivals.values():
        last, back = one.last, rows.get((one.last.peer, one.last.peer_address))
        if back is None or back.health is None or back.health.state is LinkState.DOWN:
            continue
        heard = Heard(
            last.peer,
            node,
            last.address,
            last.peer_address,
            last.arrives,
            last.returns,
            one.health.state,
            one.health.rtt_us,
            is_proven=True,
        )
        found.append(heard)
    found.sort(key=lambda one: (one.from_node, one.address, one.from_address))
    is_complete = knows_peers and all(one.is_settled for one in tried)
    kept = tuple(sorted(cables))
    return Report(node, version, tuple(tried), tuple(found), kept, is_complete, tuple(sorted(tells)), tuple(ports))


def _tried(node: NodeId, row: Row, arrivals: Arrivals, taken: Collection[LinkId]) -> Tried:
    back, path = arrivals.get((row.peer, row.local_address, row.address)), row.path
    return Tried(
        from_node=node,
        to_node=row.peer,
        address=row.address,
        outcome=row.outcome,
        errno=row.errno,
        failure_count=min(row.failure_count, SETTLED_FAILURE_COUNT),
        state=row.health.state if row.health else None,
        rtt_us=row.health.rtt_us if row.health else 0,
        local_address=row.local_address,
        path=Path(path.leaves, path.arrives, path.returns, back.last.arrives) if back else path,
        is_advertised=row.is_advertised,
        is_chosen=LinkId(node, row.peer, row.address) in taken,
    )


def _tried_key(one: Tried) -> tuple[NodeId, NodeId, str]:
    return one.from_node, one.to_node, one.address


def next_report(last: Report, now: Report, limits_us: Mapping[Medium, int] = RTT_LIMITS_US) -> Report:
    """The last one, unless something has changed that decides anything; then what is known now, with a new number.

    An RTT within a fifth of the told one decides nothing, but for what a DEGRADED link counts as: without this every
    probe would be news for everybody.
    """
    if not is_urgent(last, now, limits_us) and all(
        _is_near(before.rtt_us, after.rtt_us) and _later(before) == _later(after) for before, after in _pairs(last, now)
    ):
        return last
    return replace(now, version=Version(last.version.start, last.version.number + 1))


def is_urgent(before: Report, after: Report, limits_us: Mapping[Medium, int] = RTT_LIMITS_US) -> bool:
    """Whether more than an RTT differs, a lost burst of a link that stands, or which of two links that differ in
    nothing but their RTTs is chosen: others should not have to wait."""
    if replace(before, tried=(), heard=()) != replace(after, version=before.version, tried=(), heard=()):
        return True
    if (len(before.tried), len(before.heard)) != (len(after.tried), len(after.heard)):
        return True
    if _kinds_chosen(before) != _kinds_chosen(after):
        return True
    return any(_differ(one, other, limits_us) for one, other in _pairs(before, after))


def _pairs(before: Report, after: Report) -> Iterator[tuple[Tried | Heard, Tried | Heard]]:
    yield from zip(before.tried, after.tried, strict=True)
    yield from zip(before.heard, after.heard, strict=True)


def _differ(before: Tried | Heard, after: Tried | Heard, limits_us: Mapping[Medium, int]) -> bool:
    """In more than the RTT; of one that is DEGRADED also in how many limits it misses."""
    if _gist(before) != _gist(after):
        return True
    return after.state is LinkState.DEGRADED and _missed(before, limits_us) != _missed(after, limits_us)


def _gist(one: Tried | Heard) -> tuple[object, ...]:
    """All but the RTT, and of a link that stands the way its last try ended. Sixty a second are compared, and more."""
    link = one.from_node, one.to_node, one.address, one.state
    if isinstance(one, Heard):
        return *link, one.from_address, one.arrives, one.returns, one.is_proven
    told = one.local_address, one.path, one.is_advertised
    return *link, *told, None if one.stands else _ended(one)


def _kinds_chosen(report: Report) -> set[tuple[NodeId, Medium, LinkState | None]]:
    """By peer what its chosen link is. On a busy network two of one kind trade places by their RTTs all the time."""
    return {
        (one.to_node, link_medium(one.path, (one.address, one.local_address)), one.state)
        for one in report.tried
        if one.is_chosen
    }


def _missed(one: Tried | Heard, limits_us: Mapping[Medium, int]) -> int:
    return sum(one.rtt_us > limit_us for limit_us in limits_us.values())


def _ended(one: Tried | Heard) -> tuple[Outcome, int, int] | None:
    """How the last try did."""
    return (one.outcome, one.errno, one.failure_count) if isinstance(one, Tried) else None


def _later(one: Tried | Heard) -> tuple[object, ...]:
    """What others are told beside its RTT when it is another, and need not hurry for."""
    return _ended(one), isinstance(one, Tried) and one.is_chosen


def _is_near(before_us: int, after_us: int) -> bool:
    low, high = sorted((before_us, after_us))
    return high < max(low * SWITCH_GAIN_MIN, low + SWITCH_GAIN_MIN_US)


def newer(one: Report, other: Report) -> Report:
    """Of two reports of one node. Equal versions of different content are a bug; even then all take the same."""
    if one.version != other.version:
        return max(one, other, key=lambda report: report.version)
    return one if one == other or repr(one) > repr(other) else other


def merge(reports: Reports, more: Iterable[Report]) -> dict[NodeId, Report]:
    """The newest of every node: in any order, any number of times."""
    found = dict(reports)
    for report in more:
        found[report.node] = newer(found[report.node], report) if report.node in found else report
    return found


def to_send(reports: Reports, held: Mapping[NodeId, Version], own: NodeId, peer: NodeId) -> tuple[Report, ...]:
    """What a peer lacks. `held`: the versions that it was sent over this stream or sent itself; of a new stream none.

    Not what its node tells it itself: where everybody has a stream to everybody each report would come from all. The
    peer's own only when it tells an older one: it has lost the count of its starts.
    """
    return tuple(
        report
        for node, report in sorted(reports.items())
        if (report.version > held[node] if node in held else node != peer)
        and (node in (own, peer) or not _is_in(report.tells, peer))
    )


def _is_in(nodes: tuple[NodeId, ...], node: NodeId) -> bool:
    """`nodes` are sorted, and many: each of them is asked this for each other one."""
    found = bisect_left(nodes, node)
    return nodes[found : found + 1] == (node,)


# By link: what two nodes say of it, whether the one that is dialled has told all, and what follows.
Made = dict[LinkId, tuple[Tried | None, tuple[Heard, ...], bool, Link | None]]


def graph(
    reports: Reports,
    present: Collection[NodeId],
    alive: Collection[NodeId],
    twins: Collection[NodeId] = (),
    made: Made | None = None,
) -> Graph:
    """`present`: ALIVE and SUSPECT members; what others have said, or is said of others, is over.

    `twins`: those of which there are two. Nobody acts on what is missing there, nor knows whose ports are told.

    A node's own word on its probes counts before what its peers hear of them: if its topology is away its peers hear
    nothing, though the network is as it was.

    `made`: what was made the last time, renewed here. Of the very same words nothing is made again: one report is
    another one, and those of all others are what they were.
    """
    there = frozenset(present)
    known = {node: reports[node] for node in sorted(reports) if node in there}
    incomplete = sorted(node for node in there if node not in known or node in twins or not known[node].is_complete)
    tried = {
        one.id: one
        for report in known.values()
        for one in report.tried
        if one.from_node == report.node and _counts(one, there)
    }
    heard: dict[LinkId, list[Heard]] = {}
    for report in known.values():
        for word in report.heard:
            if word.to_node == report.node and _counts(word, there):
                heard.setdefault(LinkId(word.from_node, word.to_node, word.address), []).append(word)
    speaking = {node for node, report in known.items() if report.is_complete}
    links = _links(tried, heard, speaking, {} if made is None else made)
    told_ports = tuple((node, report.ports) for node, report in known.items() if report.ports and node not in twins)
    ports = ports_of(told_ports)
    cables = distinct(
        as_now(cable, ports)
        for report in known.values()
        for cable in report.cables
        if report.node in cable.nodes and set(cable.nodes) <= there
    )
    return Graph(
        links,
        tuple(sorted(tried.values(), key=_tried_key)),
        cables,
        lost(cables, links, set(alive) - set(incomplete), ports),
        tuple(incomplete),
        tuple((node, report.version) for node, report in known.items()),
        told_ports,
        rails_over(ports.plugged),
    )


def _counts(one: Tried | Heard, present: Set[NodeId]) -> bool:
    """Whether it is of two members that are there. A report comes from another node: it may say anything."""
    return one.from_node != one.to_node and {one.from_node, one.to_node} <= present and is_address(one.address)


def _links(
    tried: Mapping[LinkId, Tried], heard: Mapping[LinkId, Sequence[Heard]], speaking: Set[NodeId], made: Made
) -> tuple[Link, ...]:
    before = dict(made)
    made.clear()
    for each in sorted(tried.keys() | heard.keys()):
        word, others, speaks = tried.get(each), tuple(heard.get(each, ())), each.to_node in speaking
        known = before.get(each)
        if known is not None and known[0] is word and known[2] is speaks and _are_same(known[1], others):
            made[each] = known
        else:
            made[each] = word, others, speaks, _link(each, word, others, speaks)
    return tuple(link for *_, link in made.values() if link is not None)


def _are_same(some: Sequence[Heard], others: Sequence[Heard]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _link(link_id: LinkId, tried: Tried | None, heard: Sequence[Heard], peer_speaks: bool) -> Link | None:
    """One direction by what its two nodes say: the one that dials, and the one that is dialled.

    `peer_speaks`: the latter has told all. It tells of no probe that it cannot prove.
    """
    if tried is None or tried.outcome is Outcome.UNTRIED:
        proven = [one for one in heard if one.is_proven and one.state is not LinkState.DOWN]
        return _heard_link(link_id, min(proven, key=_heard_key)) if proven else None
    if tried.state is None:
        return None
    medium = link_medium(tried.path, (tried.address, tried.local_address))
    # The prober holds RTTs against the medium without the way that the peer's own probes come by.
    is_in_time = tried.state is LinkState.DEGRADED and medium not in RTT_LIMITS_US
    return Link(
        *link_id,
        medium=medium,
        state=LinkState.UP if is_in_time else tried.state,
        rtt_us=tried.rtt_us,
        path=tried.path,
        local_address=tried.local_address,
        marks=_marks(
            tried.path,
            one_sided=not (heard or peer_speaks or tried.state is LinkState.DOWN),
            unadvertised=not tried.is_advertised,
        ),
    )


def _heard_link(link_id: LinkId, heard: Heard) -> Link:
    path = Path(arrives=heard.arrives, returns=heard.returns)
    return Link(
        *link_id,
        medium=link_medium(path, (heard.address, heard.from_address)),
        state=heard.state,
        rtt_us=heard.rtt_us,
        path=path,
        local_address=heard.from_address,
        marks=_marks(path, one_sided=True),
    )


def _heard_key(heard: Heard) -> tuple[int, int, str]:
    return heard.state.value, heard.rtt_us, heard.from_address


def _marks(path: Path, one_sided: bool, unadvertised: bool = False) -> frozenset[Mark]:
    found = {
        Mark.ASYMMETRIC_ROUTE: path.is_asymmetric,
        Mark.ONE_SIDED: one_sided,
        Mark.UNADVERTISED: unadvertised,
    }
    return frozenset(mark for mark, holds in found.items() if holds)


def renewed(version: Version, before: Graph, after: Graph) -> Version:
    """Of the graph that a node tells: one higher with every change, so that a reader can tell old from new."""
    return version if before == after else Version(version.start, version.number + 1)
