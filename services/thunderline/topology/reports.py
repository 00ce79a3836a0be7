"""What every node reports of its probes. Pure.

A node's newest report replaces its older ones, so reports may come in any order, twice, and by way of others.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from thunderline.cluster import NodeId
from thunderline.cluster.graph import SETTLED_FAILURE_COUNT, Cable, Outcome, Tried, Version
from thunderline.cluster.links import (
    RTT_LIMITS_US,
    SWITCH_GAIN_MIN,
    SWITCH_GAIN_MIN_US,
    LinkId,
    LinkState,
)
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path, link_medium
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
    tried = sorted((_tried(node, row, arrivals, taken) for row in rows.values() if row.is_told), key=tried_key)
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


def tried_key(one: Tried) -> tuple[NodeId, NodeId, str]:
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
    """Whether more than an RTT differs, a lost burst of a link that stands, or which of two links of one medium and
    state is chosen: others should not have to wait."""
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
