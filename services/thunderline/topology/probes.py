"""Which addresses to probe now, and what is known of each: a row per address of a peer. Pure.

A probe is a burst of echoes over one unbound TCP connection; both sides learn from it. Times are this node's monotonic
clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address
from thunderline.cluster.graph import Outcome
from thunderline.cluster.links import RTT_LIMITS_US, LinkState
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import UNKNOWN, End, Path, link_medium
from thunderline.topology import health as healths
from thunderline.topology.health import Health

# A peer that is heard asks for a try at once, but not more often: anybody can open connections to an echo.
ASKED_GAP_S = 0.25
# Without an arrival for so many periods the peer does not probe this way any more. One more than it takes to be DOWN.
SILENT_PERIOD_COUNT = 4
# Of one peer, by pairs of addresses: eight on each side. Who comes to an echo can say any name.
ARRIVAL_COUNT_MAX = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One address of one peer, seen from this node."""

    peer: NodeId
    address: str
    outcome: Outcome = Outcome.UNTRIED
    errno: int = 0
    # Tries that failed since the last answer, or since the peer came back.
    failure_count: int = 0
    # None until a probe has crossed.
    health: Health | None = None
    local_address: str = ""
    path: Path = UNKNOWN
    # Begin of the last try.
    tried_s: float | None = None
    in_flight: bool = False
    # The peer was heard from there: to be tried at once.
    is_asked: bool = False
    # The peer's card tells it. Otherwise somebody was heard from there who said the peer's name.
    is_advertised: bool = True

    @property
    def is_told(self) -> bool:
        """Whether it is told to others: a name that was said to the echo is no word of the peer's."""
        return self.is_advertised or self.health is not None

    @property
    def is_steady(self) -> bool:
        """The last try was answered, and in good time."""
        return self.outcome is Outcome.ANSWERED and self.health is not None and self.health.state is LinkState.UP

    @property
    def key(self) -> tuple[NodeId, str]:
        return self.peer, self.address

    @property
    def medium(self) -> Medium:
        return link_medium(self.path, (self.address, self.local_address))


@dataclass(frozen=True, slots=True)
class Echoed:
    """One burst of a peer that this node's echo answered."""

    peer: NodeId
    # Own, the one that the peer dialled.
    address: str
    # The peer's, as the connection shows it.
    peer_address: str
    arrives: End
    returns: End | None
    # The echo's own: from its answer to the next echo of the burst, the best of them.
    rtt_us: int
    at_s: float

    @property
    def key(self) -> tuple[NodeId, str, str]:
        return self.peer, self.address, self.peer_address

    @property
    def medium(self) -> Medium:
        return link_medium(Path(arrives=self.arrives, returns=self.returns), (self.address, self.peer_address))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A way by which a peer's probes reach this node."""

    last: Echoed
    health: Health


Rows = Mapping[tuple[NodeId, str], Row]
Arrivals = Mapping[tuple[NodeId, str, str], Arrival]


def rows_for(rows: Rows, addresses: Mapping[NodeId, Iterable[str]], heard: Arrivals) -> dict[tuple[NodeId, str], Row]:
    """A row for every address that a peer's card tells or that a peer is heard from; no others.

    The card may be late, and one behind a translating router does not know its address.
    """
    advertised = {(peer, one) for peer, told in addresses.items() for one in told if is_address(one)}
    known = [one.last for one in heard.values() if one.last.peer in addresses]
    wanted = advertised | {(one.peer, one.peer_address) for one in known if is_address(one.peer_address)}
    found = {key: rows.get(key) or Row(*key) for key in sorted(wanted)}
    changed = {key: row for key, row in found.items() if row.is_advertised is not (key in advertised)}
    return found | {key: replace(row, is_advertised=key in advertised) for key, row in changed.items()}


def due(rows: Rows, now_s: float, period_s: float) -> list[Row]:
    """Which to try now, in this order: peers that were heard, new addresses, then who has waited longest."""

    def is_due(row: Row) -> bool:
        if row.in_flight:
            return False
        if row.tried_s is None:
            return True
        return now_s - row.tried_s >= (min(ASKED_GAP_S, period_s) if row.is_asked else period_s)

    found = [row for row in rows.values() if is_due(row)]
    return sorted(found, key=lambda row: (not row.is_asked, -1.0 if row.tried_s is None else row.tried_s, row.key))


def started(row: Row, now_s: float) -> Row:
    return replace(row, tried_s=now_s, in_flight=True, is_asked=False)


def answered(
    row: Row, rtt_us: int, local_address: str, path: Path, limits_us: Mapping[Medium, int] = RTT_LIMITS_US
) -> Row:
    """The right peer answered: the link exists. `rtt_us`: the best of the burst.

    Over another medium than before it is another link, with nothing to remember.
    """
    medium = link_medium(path, (row.address, local_address))
    is_as_before = (path, local_address) == (row.path, row.local_address)
    earlier = row.health if is_as_before or medium is row.medium else None
    return replace(
        row,
        outcome=Outcome.ANSWERED,
        errno=0,
        failure_count=0,
        health=healths.answered(earlier, rtt_us, medium, limits_us),
        local_address=local_address,
        path=path,
        in_flight=False,
        is_asked=False,
    )


def failed(row: Row, outcome: Outcome, errno: int) -> Row:
    """Not answered, or by another node. Where the peer was heard meanwhile, that still stands."""
    after = healths.unanswered(row.health, refused=outcome is Outcome.REFUSED)
    return replace(
        row, outcome=outcome, errno=errno, failure_count=row.failure_count + 1, health=after, in_flight=False
    )


def begun_again(rows: Rows, peer: NodeId) -> dict[tuple[NodeId, str], Row]:
    """The peer is ALIVE again, or restarted: what failed before counts no more, and is tried at once."""
    return {key: replace(row, failure_count=0, is_asked=True) if row.peer == peer else row for key, row in rows.items()}


def asked_back(rows: Rows, peer: NodeId, peer_address: str) -> dict[tuple[NodeId, str], Row]:
    """The probe-back rule: a probe that arrives from a peer is evidence for the way back, which is tried at once.

    Not where that way answered the last time: two nodes would send each other on for ever.
    """
    row = rows.get((peer, peer_address))
    if row is None or row.outcome is Outcome.ANSWERED:
        return dict(rows)
    return {**rows, row.key: replace(row, is_asked=True)}


def heard(
    arrivals: Arrivals, echoed: Echoed, limits_us: Mapping[Medium, int] = RTT_LIMITS_US
) -> dict[tuple[NodeId, str, str], Arrival]:
    """A peer's probe has arrived. Of one that comes from too many addresses the further ones are not believed."""
    before = arrivals.get(echoed.key)
    if before is None and sum(one.last.peer == echoed.peer for one in arrivals.values()) >= ARRIVAL_COUNT_MAX:
        return dict(arrivals)
    medium, earlier = echoed.medium, None
    if before is not None:
        ends, ends_before = (echoed.arrives, echoed.returns), (before.last.arrives, before.last.returns)
        earlier = before.health if ends == ends_before or before.last.medium is medium else None
    health = healths.answered(earlier, echoed.rtt_us, medium, limits_us)
    return {**arrivals, echoed.key: Arrival(echoed, health)}


def still_heard(arrivals: Arrivals, now_s: float, period_s: float) -> dict[tuple[NodeId, str, str], Arrival]:
    """Without those that have fallen silent."""
    return {key: one for key, one in arrivals.items() if now_s - one.last.at_s <= SILENT_PERIOD_COUNT * period_s}
