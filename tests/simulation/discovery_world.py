"""Nodes around the pure core of discovery, on one thread and a clock of their own, made from a seed.

The roster and the choice of calls are the real ones, or those that a test passes. Messages are late or lost, some
directions cannot be dialled, the network parts, nodes restart, sleep, leave, lose their count of starts or run from a
copied disk, say of others that they left, clocks leap, and another cluster is on the same network.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from simulation import discovery_laws
from simulation.discovery_host import WAITS, Facts, Host, Truth
from thunderline.cluster import NodeId
from thunderline.discovery import peers as calling
from thunderline.discovery import roster as rosters
from thunderline.discovery.peers import Call, Greeting, Lead, Peers
from thunderline.discovery.roster import Roster
from thunderline.discovery.values import Card, Stranger, View

Start = Callable[[Card, Iterable[Card], float], Roster]
Tick = Callable[[Roster, float], Roster]
Greeted = Callable[[Roster, Peers, Greeting, float], tuple[Roster, Peers]]
Answered = Callable[[Roster, Peers, Call, str, Greeting, float], tuple[Roster, Peers]]
Greet = Callable[[Roster, Peers, Card | None], tuple[Greeting, Peers]]


@dataclass(frozen=True, slots=True)
class Core:
    """What is tried."""

    start: Start = rosters.start
    tick: Tick = rosters.tick
    greeted: Greeted = calling.greeted
    answered: Answered = calling.answered
    greet: Greet = calling.greet
    to_send: Callable[[int | None, Roster], View | None] = rosters.to_send


TICK_S = WAITS.tick_s
# A call's deadline.
DEADLINE_S = 1.0
# It goes on talking for so long after it said that it leaves.
FAREWELL_S = 2.0
# Of greetings, while there are faults.
LIE_SHARE = 0.05


class Network:
    """`host_count` machines. `faults` until a time, then peace. Raises Broken."""

    def __init__(self, seed: int, core: Core, host_count: int = 0) -> None:
        self.chance = random.Random(seed)
        # Of its own, so that the worlds are the same without it.
        self.lies = random.Random(f"lies of {seed}")
        self.core = core
        self.now_s = 1_000.0
        self.faults = True
        self.message_count = 0
        self._order = itertools.count()
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        count = host_count or self.chance.choice((2, 2, 3, 3, 4, 5, 6, 8))
        self.multicast = self.chance.random() < 0.5
        other_count = count // 3 if self.chance.random() < 0.3 and not host_count else 0
        # Whose address is everybody's seed: they do not leave.
        self.first = {0, other_count}
        self.hosts = [self._host(index, index < other_count, other_count) for index in range(count)]
        self.at = {host.addresses[0]: host for host in self.hosts}
        # Groups that hear each other, by host; and (from, to) that cannot be dialled.
        self.group: dict[int, int] = {}
        self.blocked: set[tuple[int, int]] = set()
        self.facts = Facts({host.node_id: host.cluster_name for host in self.hosts})
        for host in self.hosts:
            self.later(0.0, 3.0, partial(self._start, host))
        own = [host for host in self.hosts if host.index > other_count]
        if len(own) >= 2 and self.chance.random() < 0.2:
            self.later(6.0, 12.0, partial(self._copy, *self.chance.sample(own, 2)))
        elif self.multicast and self.chance.random() < 0.3:
            pairs = itertools.combinations(range(count), 2)
            self.blocked = {self.chance.choice(((a, b), (b, a))) for a, b in pairs if self.chance.random() < 0.3}

    def _host(self, index: int, is_other: bool, other_count: int) -> Host:
        """Without multicast everybody's seed is the first of its cluster, and for some the first of all."""
        seeds: tuple[str, ...] = ()
        if not self.multicast:
            first = 0 if is_other else other_count
            seeds = tuple(dict.fromkeys(f"10.0.0.{one}:7401" for one in (first, 0) if one != index))
        mlx = "0.32.2" if self.chance.random() < 0.2 else "0.32.4"
        # The order of ids is not that of the addresses.
        node_id = NodeId(f"{self.chance.getrandbits(32):08x}-{index}")
        host = Host(index, node_id, "other" if is_other else "ours", mlx, seeds)
        host.clock_s = self.chance.uniform(-500.0, 500.0)
        return host

    def later(self, least_s: float, most_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (self.now_s + self.chance.uniform(least_s, most_s), next(self._order), call))

    def run(self, until_s: float) -> None:
        """Whole ticks; what comes between them comes at its own time."""
        while self.now_s < until_s:
            next_s = self.now_s + TICK_S
            while self._coming and self._coming[0][0] <= next_s:
                self.now_s, _, call = heapq.heappop(self._coming)
                call()
            self.now_s = next_s
            if self.faults:
                self._break_something()
            if self.multicast:
                for _ in self.hosts:
                    self._announce(self.chance.choice(self.hosts), self.chance.choice(self.hosts))
            for host in self.hosts:
                if host.is_awake(self.now_s):
                    self._tick(host)

    # A node: what services/thunderline/discovery does around the core.

    def _start(self, host: Host) -> None:
        if host.up:
            return
        host.up, host.run = True, host.run + 1
        card = host.first_card(f"{self.chance.getrandbits(64):016x}")
        host.roster = self.core.start(card, host.remembered, self._clock(host))
        host.peers = Peers(host.seeds)
        host.truth = Truth(self._clock(host))
        host.before, host.seen, host.has_left = None, None, False
        for remembered in host.remembered:
            host.truth.remembers(remembered)
        host.truth.hears(card)

    def _stop(self, host: Host) -> None:
        host.up, host.run = False, host.run + 1

    def _clock(self, host: Host) -> float:
        return self.now_s + host.clock_s

    def _tick(self, host: Host) -> None:
        host.truth.count(self._clock(host))
        host.roster = self.core.tick(host.roster, self._clock(host))
        seen = host.seen.version if host.seen else None
        news = self.core.to_send(seen, host.roster)
        discovery_laws.of_a_look(self.facts, host, news)
        host.seen = news or host.seen
        if host.before is None or host.roster.members is not host.before.members:
            host.remembered = rosters.to_remember(host.roster)
        host.before, host.version = host.roster, host.roster.version
        due, host.peers = calling.calls(host.roster, host.peers)
        for call in due:
            self._call(host, call)

    def _call(self, host: Host, call: Call) -> None:
        member = host.roster.members.get(call.node_id) if call.node_id else None
        is_twin = call.node_id == host.node_id
        greeting = self._greet(host, member.card if member and not is_twin else None)
        run, is_open = host.run, [True]

        def answer(address: str, said: Greeting) -> None:
            if host.run != run or not is_open or not self._wakes_for(host, partial(answer, address, said)):
                return
            is_open.clear()
            self._hears(host, said.card)
            host.roster, host.peers = self.core.answered(
                host.roster, host.peers, call, address, said, self._clock(host)
            )
            discovery_laws.of_a_card(self.facts, host, said.card)

        def give_up() -> None:
            if host.run == run and is_open:
                is_open.clear()
                host.peers = calling.failed(host.peers, call)

        for address in call.addresses:
            other = self.at.get(address)
            if other is not None and self._reaches(host, other) and (host.index, other.index) not in self.blocked:
                self._send(host, other, partial(self._ask, host, other, greeting, address, answer))
        self.later(DEADLINE_S, DEADLINE_S, give_up)

    def _ask(
        self, host: Host, other: Host, greeting: Greeting, address: str, answer: Callable[[str, Greeting], None]
    ) -> None:
        """The other end of a call."""
        if not other.up or not self._wakes_for(other, partial(self._ask, host, other, greeting, address, answer)):
            return
        self._hears(other, greeting.card)
        other.roster, other.peers = self.core.greeted(other.roster, other.peers, greeting, self._clock(other))
        discovery_laws.of_a_card(self.facts, other, greeting.card)
        self._send(other, host, partial(answer, address, self._greet(other, greeting.card)))

    def _greet(self, host: Host, to: Card | None) -> Greeting:
        """Some lie: they say that another has left, in the life that stands in its card."""
        greeting, host.peers = self.core.greet(host.roster, host.peers, to)
        others = [member.card for node, member in host.roster.members.items() if node != host.node_id]
        if not self.faults or not others or self.lies.random() >= LIE_SHARE:
            return greeting
        card = self.lies.choice(others)
        return replace(greeting, left=(*greeting.left, (card.node_id, card.life)))

    def _hears(self, host: Host, card: Card) -> None:
        host.truth.count(self._clock(host))
        if card.cluster_name == host.cluster_name:
            host.truth.hears(card)

    def _wakes_for(self, host: Host, again: Callable[[], None]) -> bool:
        """Whether a message is read now. A machine that sleeps for long never reads it."""
        wait_s = host.frozen_until_s - self.now_s
        if 0 < wait_s <= DEADLINE_S:
            self.later(wait_s, wait_s, again)
        return wait_s <= 0

    def _send(self, host: Host, other: Host, arrive: Callable[[], None]) -> None:
        """Whoever has restarted meanwhile does not get it; from who has restarted it comes all the same."""
        self.message_count += 1
        if self.faults and self.chance.random() < 0.05:
            return
        run = other.run
        is_late = self.faults and self.chance.random() < 0.03
        most_s = 2.5 if is_late else 0.05

        def come() -> None:
            if other.run == run and self._reaches(host, other):
                arrive()

        self.later(0.001, most_s, come)

    # What goes wrong, and who announces itself.

    def _reaches(self, host: Host, other: Host) -> bool:
        return self.group.get(host.index, 0) == self.group.get(other.index, 0)

    def _announce(self, host: Host, other: Host) -> None:
        """By multicast: the one hears of the other."""
        if host is other or not (host.is_awake(self.now_s) and other.is_awake(self.now_s)):
            return
        if not self._reaches(host, other):
            return
        if host.cluster_name == other.cluster_name:
            host.peers = calling.sighted(host.roster, host.peers, (Lead(other.node_id, other.addresses),))
            return
        host.truth.count(self._clock(host))
        stranger = Stranger(other.node_id, other.cluster_name, other.card.hostname, other.addresses)
        host.roster = rosters.notice(host.roster, stranger, self._clock(host))

    def _break_something(self) -> None:
        kind = self.chance.random()
        host = self.chance.choice(self.hosts)
        if not host.up or host.has_left:
            return
        if kind < 0.05:
            self._stop(host)
            self.later(0.3, self.chance.choice((0.5, 2.0, 8.0)), partial(self._start, host))
        elif kind < 0.09:
            host.frozen_until_s = self.now_s + self.chance.choice((1.5, 2.0, 3.0, 6.0, 12.0))
        elif kind < 0.10:
            host.clock_s += self.chance.choice((-30.0, -1.0, 2.0, 60.0))
        elif kind < 0.12:
            self.group = {one.index: self.chance.choice((0, 0, 1)) for one in self.hosts}
            self.later(1.0, 9.0, self.group.clear)
        elif kind < 0.15 and host.is_awake(self.now_s):
            changed = replace(host.card, revision=host.card.revision + 1)
            self._hears(host, changed)
            host.roster = rosters.renew(host.roster, changed, self._clock(host))
        elif kind < 0.155 and host.is_awake(self.now_s) and self._may_leave(host):
            self._leave(host)
        elif kind < 0.16 and host.node_id not in self.facts.copied:
            host.incarnation = 0
            self.facts.lost_count.add(host.node_id)

    def _may_leave(self, host: Host) -> bool:
        return host.index not in self.first and host.node_id not in self.facts.copied

    def _leave(self, host: Host) -> None:
        host.has_left = True
        self.facts.left.add((host.node_id, host.card.life))
        host.truth.count(self._clock(host))
        host.roster = rosters.leave(host.roster, host.node_id, host.card.life, self._clock(host))
        run = host.run

        def go() -> None:
            if host.run == run:
                self._stop(host)

        self.later(FAREWELL_S, FAREWELL_S, go)

    def _copy(self, source: Host, target: Host) -> None:
        """The target's machine gets the source's disk."""
        if source.has_left or target.has_left or not self.faults:
            return
        self._stop(target)
        target.node_id, target.incarnation, target.remembered = source.node_id, source.incarnation, source.remembered
        target.version = source.version
        self.facts.copied.add(source.node_id)
        self.later(0.5, 2.0, partial(self._start, target))

    def make_peace(self) -> None:
        """Everybody who has not left is started, and reaches everybody."""
        self.faults = False
        self.group = {}
        for host in self.hosts:
            host.frozen_until_s = self.now_s
            if not host.up and not (host.has_left and self.chance.random() < 0.7):
                self.later(0.0, 1.0, partial(self._start, host))
