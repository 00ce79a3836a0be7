"""A machine of the simulated network and its topology: what services/thunderline/topology does around its pure core.

Beside it a roster of discovery, which tells who is there.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderline.cluster import NodeId, links
from thunderline.cluster.graph import Cable, Graph, Outcome, Version
from thunderline.cluster.limits import DEFAULTS
from thunderline.cluster.links import Link, LinkId, LinkState
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.members import MemberState
from thunderline.cluster.paths import Path
from thunderline.discovery import roster as rosters
from thunderline.discovery.roster import Roster
from thunderline.discovery.values import Card, Life
from thunderline.topology import graphs, members, probes, reports
from thunderline.topology.knowledge import Knowledge, Pair
from thunderline.topology.members import Members, Peer
from thunderline.topology.probes import Arrivals, Echoed, Row, Rows
from thunderline.topology.reports import Report

if TYPE_CHECKING:
    from simulation.topology_streams import Stream

PERIOD_S, TIMEOUT_S, HEARTBEAT_S = DEFAULTS.probe_period_s, DEFAULTS.probe_timeout_s, DEFAULTS.heartbeat_s
NEVER_S = -1e9
# A look that comes so much late says that it slept, or was starved.
LATE_S = 1.0
# RTTs are looked for this often.
LOOK_S = 1.0
# In a row of tries, beside the RTTs of those that were answered.
MISSED, REFUSED = -1, -2
TRIES_KEPT = 60

Key = tuple[NodeId, str]


class Broken(AssertionError):
    """A law of topology does not hold."""


class Graphs:
    """Graphs that were made already: nodes that have heard the same need one between them.

    That it is the same graph in whatever order the reports came is tried now and then.
    """

    KEPT, TRIED_EVERY = 20, 8

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], tuple[list[Report], Graph]] = {}
        # Of links, as a node keeps them: the graph that is tried again is made without.
        self._links: graphs.Made = {}
        self._count = 0

    def of(self, heard: Mapping[NodeId, Report], present: frozenset[NodeId], alive: frozenset[NodeId]) -> Graph:
        key = (tuple(sorted(map(id, heard.values()))), present, alive)
        self._count += 1
        if key not in self._made:
            # The reports are kept with it: no other can have their places in memory.
            self._made[key] = (list(heard.values()), graphs.graph(heard, present, alive, made=self._links))
            if len(self._made) > self.KEPT:
                del self._made[next(iter(self._made))]
        elif self._count % self.TRIED_EVERY == 0:
            again = graphs.graph(dict(reversed(list(heard.items()))), sorted(present), sorted(alive, reverse=True))
            if again != self._made[key][1]:
                raise Broken("two graphs of the same reports differ")
        return self._made[key][1]


class Known(Knowledge):
    """With graphs that it shares with others."""

    graphs: Graphs

    def waits_with_rtts(self, now_s: float) -> bool:
        """Whether it would tell nothing now if all that has changed is RTTs: so nobody has to ask."""
        states = [one.state for one in self.report.tried] + [one.state for one in self.report.heard]
        has_to_go_above = self._met.version > self.report.version
        is_early = now_s - self._told_s < self._rtt_pace_s
        return is_early and LinkState.DEGRADED not in states and not has_to_go_above

    def graph_now(self) -> Graph:
        return self.graphs.of(self.reports, self.members.present | {self.node}, self.members.alive | {self.node})


@dataclass(frozen=True, slots=True)
class Core:
    """What is tried."""

    known: type[Known] = Known
    rows_for: Callable[[Rows, Mapping[NodeId, Iterable[str]], Arrivals], dict[Key, Row]] = probes.rows_for
    due: Callable[[Rows, float, float], list[Row]] = probes.due
    answered: Callable[[Row, int, str, Path], Row] = probes.answered
    failed: Callable[[Row, Outcome, int], Row] = probes.failed
    begun_again: Callable[[Rows, NodeId], dict[Key, Row]] = probes.begun_again
    asked_back: Callable[[Rows, NodeId, str], dict[Key, Row]] = probes.asked_back
    heard: Callable[[Arrivals, Echoed], Arrivals] = probes.heard
    still_heard: Callable[[Arrivals, float, float], Arrivals] = probes.still_heard
    to_send: Callable[[Mapping[NodeId, Report], Mapping[NodeId, Version], NodeId, NodeId], tuple[Report, ...]] = (
        reports.to_send
    )
    data_path: Callable[[Collection[Link]], Link | None] = links.data_path


@dataclass(frozen=True, slots=True)
class Told:
    """What a node told at a moment."""

    graph: Graph
    chosen: Mapping[Pair, LinkId]
    version: Version


class Host:
    """`ahead_s` and `wall_ahead_s` of the world's time are what its two clocks show more."""

    def __init__(self, index: int, names: Sequence[NodeId], core: Core, graphs: Graphs) -> None:
        self.index, self.node, self.names, self.core, self.graphs = index, names[index], names, core, graphs
        # On its disk.
        self.start_count, self.incarnation = 0, 0
        self.cables: dict[Cable, float] = {}
        self.known_cards: tuple[Card, ...] = ()
        # Its machine.
        self.ahead_s, self.wall_ahead_s = 0.0, 0.0
        self.frozen_until_s = NEVER_S
        self.is_mac = False
        # Its discovery and its topology; `run` counts the starts of that, for what is on its way.
        self.discovers, self.up, self.run = False, False, 0
        self.serves_s = self.disturbed_s = NEVER_S
        self.card = Card(self.node, Life(0, ""), "ours")
        self.roster: Roster | None = None
        # On its card: the Thunderbolt ports of a Mac, once its discovery has looked.
        self.ports: tuple[ThunderboltPort, ...] | None = None
        # For the laws: what it has told and shown in all its lives.
        self.highest_report, self.highest_shown = Version(0, 0), Version(0, 0)
        self._clear()

    def _clear(self) -> None:
        """What is in the memory of its topology."""
        self.rows: dict[Key, Row] = {}
        self.arrivals: Arrivals = {}
        self.streams: dict[int, Stream] = {}
        # Since when each peer has been without a stream.
        self.lonely_s: dict[int, float] = {}
        self.members = Members()
        self.known = self.core.known(self.node, self.start_count, self.cables, PERIOD_S)
        self.known.graphs = self.graphs
        # By its own clock: who was late judges nobody for one period (protocols B, point 3).
        self.looked_s = self.judges_from_s = 0.0
        # What of its probes, members and streams is not in its report; which reports its streams have had.
        self.is_dirty = self.has_rtts = True
        self.sent: Mapping[NodeId, Report] = {}
        self._read: tuple[object, ...] = ()
        self._seen: tuple[object, object] = (None, None)
        # For the laws: each row's tries, who was heard, or is back, and has to be tried at
        # once, and what was chosen after what.
        self.tries: dict[Key, list[int]] = {}
        self.owed_s: dict[Key, float] = {}
        self.choices: dict[NodeId, list[LinkId]] = {}
        self.checked = self.known.report
        self.heard_of: dict[NodeId, Version] = {}

    def is_awake(self, now_s: float) -> bool:
        return now_s >= self.frozen_until_s

    def serves(self, now_s: float) -> bool:
        return self.up and self.discovers and self.is_awake(now_s)

    def serves_reports(self, now_s: float) -> bool:
        return self.up and self.is_awake(now_s)

    def clock_s(self, now_s: float) -> float:
        return now_s + self.ahead_s

    # Discovery.

    def start_discovery(self, addresses: tuple[str, ...], now_s: float) -> None:
        self.incarnation += 1
        self.discovers, self.serves_s, self.ports = True, now_s, None
        self.card = Card(self.node, Life(self.incarnation, ""), "ours", addresses=addresses)
        self.roster = rosters.start(self.card, self.known_cards, self.clock_s(now_s))

    def show(self, addresses: tuple[str, ...], now_s: float) -> None:
        """Its addresses have changed."""
        if self.roster is not None:
            self.card = replace(self.card, addresses=addresses, revision=self.card.revision + 1)
            self.roster = rosters.renew(self.roster, self.card, self.clock_s(now_s))

    def hear_card(self, card: Card, now_s: float) -> None:
        assert self.roster is not None
        before = self.roster.members
        self.roster = rosters.hear(self.roster, card, self.clock_s(now_s))
        if self.roster.members is not before:
            self.known_cards = rosters.to_remember(self.roster)

    def tick_roster(self, now_s: float) -> None:
        if self.discovers and self.roster is not None:
            self.roster = rosters.tick(self.roster, self.clock_s(now_s))

    # Topology.

    def start(self, now_s: float) -> None:
        self.run += 1
        self.start_count += 1
        self.up, self.serves_s = True, now_s
        self._clear()
        self.looked_s = self.clock_s(now_s)

    def stop(self) -> None:
        self.up, self.run = False, self.run + 1

    def look(self, now_s: float, tick_s: float) -> list[Row]:
        """Which to probe now, taken for begun."""
        clock_s = self.clock_s(now_s)
        if clock_s - self.looked_s > tick_s + LATE_S:
            self.judges_from_s = clock_s + PERIOD_S
        self.looked_s = clock_s
        self._follow_roster(now_s)
        if clock_s >= self.judges_from_s:
            left = self.core.still_heard(self.arrivals, clock_s, PERIOD_S)
            if len(left) != len(self.arrivals):
                self.arrivals = left
                self._arrange()
        found = self.core.due(self.rows, clock_s, PERIOD_S)
        for row in found:
            self.rows[row.key] = probes.started(row, clock_s)
            self.owed_s.pop(row.key, None)
        return found

    def _follow_roster(self, now_s: float) -> None:
        """Its discovery may be away: then what it said last stands."""
        roster = self.roster
        if roster is None or self._read == (roster.members, roster.complete, self.ports):
            return
        self._read = (roster.members, roster.complete, self.ports)
        peers = {
            node: Peer(node, one.state, (one.card.life.incarnation, ""), one.card.addresses, 7412, 7402)
            for node, one in roster.members.items()
            if node != self.node and one.state is not MemberState.LEFT
        }
        awaits = self.is_mac and self.ports is None
        before, self.members = self.members, Members(peers, roster.complete, ports=self.ports, awaits_machine=awaits)
        self._arrange()
        for node in members.begun_again(before, self.members):
            self.rows = self.core.begun_again(self.rows, node)
            for key, row in self.rows.items():
                if row.peer == node and row.outcome is not Outcome.ANSWERED and not row.in_flight:
                    self.owed_s.setdefault(key, now_s)
        self.known.follow(self.members)

    def _arrange(self) -> None:
        self.is_dirty = True
        addresses = {node: peer.addresses for node, peer in self.members.peers.items()}
        self.rows = self.core.rows_for(self.rows, addresses, self.arrivals)
        self.tries = {key: tries for key, tries in self.tries.items() if key in self.rows}

    def hear(self, echoed: Echoed, now_s: float) -> None:
        """Its echo has answered a burst."""
        if echoed.peer not in self.members.peers:
            return
        before = self.arrivals.get(echoed.key)
        self.arrivals = self.core.heard(self.arrivals, echoed)
        self.has_rtts = True
        key = (echoed.peer, echoed.peer_address)
        if before is None and key not in self.rows:
            self._arrange()
        elif before is None:
            self.is_dirty = True
        else:
            self.is_dirty |= before.health.state is not self.arrivals[echoed.key].health.state
            self.is_dirty |= (before.last.arrives, before.last.returns) != (echoed.arrives, echoed.returns)
        row = self.rows.get(key)
        if row is not None and row.outcome is not Outcome.ANSWERED and not row.in_flight:
            self.owed_s.setdefault(key, now_s)
        self.rows = self.core.asked_back(self.rows, *key)

    def has_answered(self, key: Key, rtt_us: int, local_address: str, path: Path) -> Row | None:
        """The row before, unless it is gone."""
        before = self.rows.get(key)
        if before is None:
            return None
        after = self.rows[key] = self.core.answered(before, rtt_us, local_address, path)
        self._touch(before, after)
        # Over another medium it is another link.
        is_as_before = (after.path, after.local_address) == (before.path, before.local_address)
        tries = self.tries.get(key, []) if is_as_before or after.medium is before.medium else []
        self.tries[key] = [*tries[-TRIES_KEPT:], rtt_us]
        return before

    def has_failed(self, key: Key, outcome: Outcome, errno: int) -> Row | None:
        """The row before, unless it is gone, or the try is not judged."""
        before = self.rows.get(key)
        if before is None:
            return None
        if before.tried_s is not None and before.tried_s < self.judges_from_s:
            self.rows[key] = replace(before, in_flight=False)
            return None
        after = self.rows[key] = self.core.failed(before, outcome, errno)
        self._touch(before, after)
        tries = self.tries.get(key, [])[-TRIES_KEPT:]
        self.tries[key] = [*tries, REFUSED if outcome is Outcome.REFUSED else MISSED]
        return before

    def _touch(self, before: Row, after: Row) -> None:
        """An RTT alone is told when it is looked for."""
        self.has_rtts = True
        self.is_dirty |= _gist(before) != _gist(after)

    def receive(self, told: Collection[Report]) -> None:
        self.known.take(told)
        self.is_dirty |= self.start_count != self.known.start
        self.start_count = self.known.start

    def tell(self, now_s: float) -> None:
        """What its probes saw, when that is news."""
        clock_s = self.clock_s(now_s)
        is_looked_at = self.has_rtts and (now_s / LOOK_S).is_integer() and not self.known.waits_with_rtts(clock_s)
        if self.is_dirty or is_looked_at:
            self.is_dirty = self.has_rtts = False
            self.known.tell(self.rows, self.arrivals, self._joined, clock_s)

    @property
    def _joined(self) -> list[NodeId]:
        return [self.names[peer] for peer in self.streams]

    @property
    def has_news(self) -> bool:
        """That it will tell when the time has come."""
        last = self.known.report
        return reports.next_report(last, self.known.told(self.rows, self.arrivals, self._joined)) is not last

    def news(self) -> dict[NodeId, Report]:
        """What its streams have not had yet."""
        before, self.sent = self.sent, self.known.reports
        return {node: one for node, one in self.sent.items() if before.get(node) is not one}

    def see(self, now_s: float) -> Told | None:
        """The graph and the choices anew, where anything is; what it told before."""
        if self._seen == (self.known.reports, self.known.members):
            return None
        self._seen = (self.known.reports, self.known.members)
        before, taken = Told(self.known.graph, self.known.chosen, self.known.version), self.known.taken
        self.known.renew(now_s + self.wall_ahead_s)
        self.is_dirty |= self.known.cables.keys() != self.cables.keys() or self.known.taken != taken
        self.cables = self.known.cables
        for peer in self.members.peers:
            chosen, row = self.known.chosen.get((self.node, peer)), self.choices.setdefault(peer, [])
            if chosen is not None and row[-1:] != [chosen]:
                row.append(chosen)
        return before

    def answers(self, one: NodeId, other: NodeId, address: str) -> bool:
        found = self.known.by_pair.get((one, other), ())
        return any(link.address == address and link.state is not LinkState.DOWN for link in found)


def _gist(row: Row) -> tuple[object, ...]:
    """All but its RTTs."""
    state = row.health.state if row.health else None
    return row.outcome, row.errno, row.failure_count, row.local_address, row.path, state
