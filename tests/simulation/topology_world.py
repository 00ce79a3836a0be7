"""Nodes around the pure core of topology, on one thread and a clock of their own, made from a seed.

Cables, LANs, Wi-Fi and VPNs between them; walls that one side cannot dial through, detours, cuts, slowness and jitter,
partitions, restarts of either role and of machines, sleep, strangers at the echo, addresses that change hands, and
reports that are late, come twice or get lost with their stream. Some are Macs, which tell of their Thunderbolt ports.
Probes, reports, graph and choice are the real ones, or those that a test passes; who is there is told by the real
roster of discovery.
"""

import errno as errnos
import heapq
import itertools
import random
from collections.abc import Callable
from functools import partial

from simulation import topology_laws
from simulation.topology_faults import Faults, heals
from simulation.topology_host import HEARTBEAT_S, TIMEOUT_S, Core, Graphs, Host
from simulation.topology_networks import Net, Networks, Way
from simulation.topology_ports import Macs
from simulation.topology_streams import Streams
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, Outcome, Version
from thunderline.cluster.links import LinkId
from thunderline.cluster.media import Medium
from thunderline.topology.probes import Echoed, Row
from thunderline.topology.reports import Report

# How often a node looks: a machine that is busy less often.
TICK_S, SLOW_TICK_S = 0.5, 1.0
LARGE = 20
# Of many hosts few worlds: they cost the square.
HOST_COUNTS = (*[2] * 12, *[3] * 12, *[4] * 4, 5, 6, 8)
ERRNOS = {
    Outcome.TIMED_OUT: errnos.ETIMEDOUT,
    Outcome.UNREACHABLE: errnos.ENETUNREACH,
    Outcome.REFUSED: errnos.ECONNREFUSED,
    Outcome.WRONG_NODE: 0,
}


class World:
    """`host_count` machines. `faults` until a time, then peace. Raises Broken."""

    def __init__(self, seed: int, core: Core, host_count: int = 0) -> None:
        self.chance = chance = random.Random(seed)
        self.core, self.graphs = core, Graphs()
        self.now_s, self.faults = 1_000.0, True
        count = host_count or chance.choice(HOST_COUNTS)
        self.is_plain, self.is_large = bool(host_count), count >= LARGE
        self.tick_s = SLOW_TICK_S if self.is_large or chance.random() < 0.6 else TICK_S
        # The order of ids is not that of the addresses.
        self.names = [NodeId(f"{chance.getrandbits(32):08x}-{index}") for index in range(count)]
        self.networks = Networks(chance, count, self.is_plain)
        self.macs = Macs(seed, self.networks, count, self.is_plain)
        self.hosts = [Host(index, self.names, core, self.graphs) for index in range(count)]
        for index in self.macs.hosts:
            self.hosts[index].is_mac = True
        # Who makes a graph of what it has heard. That of a hundred nodes takes its time, and is the same for all.
        self.lookers = self.hosts[:: count // 3] if self.is_large else self.hosts
        self._order = itertools.count()
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        # How often something breaks in a tick, and how many probes get lost.
        self.unrest = chance.choice((0.05, 0.15, 0.3))
        self.loss = chance.choice((0.0, 0.01, 0.1))
        # Pairs whose streams do not come about, and the addresses that a host's card does not tell.
        self.deaf: set[frozenset[int]] = set()
        self.hidden: dict[int, set[str]] = {host.index: set() for host in self.hosts}
        # Which links ever were crossed by a probe; reports by their version; cables that carried something,
        # and those that a node has seen do so.
        self.crossed: dict[LinkId, set[Medium]] = {}
        self.versions: dict[tuple[NodeId, Version], Report] = {}
        self.crossed_cables: set[Cable] = set()
        self.seen_cables: set[Cable] = set()
        # Who lost the count of its starts once.
        self.lost_count: set[NodeId] = set()
        self.probe_count = 0
        # Until something changes.
        self._told: dict[int, tuple[str, ...]] = {}
        self._reached: dict[tuple[int, int], bool] = {}
        self.streams, self.breaks = Streams(self), Faults(self)
        if not self.is_plain:
            self._limit()
        for host in self.hosts:
            host.ahead_s, host.wall_ahead_s = chance.uniform(0, 1e6), chance.uniform(0, 1e9)
            self.later(0.0, 3.0, partial(self.start_discovery, host))
            self.later(0.0, 3.0, partial(self.start, host))

    def _limit(self) -> None:
        """What is so for good: walls, detours, deaf pairs, hidden addresses."""
        chance, count = self.chance, len(self.hosts)
        if chance.random() < 0.3:
            self.breaks.build_wall()
        if chance.random() < 0.3:
            self.breaks.detour()
        # Somebody has to be there who passes on what they say.
        is_wide = any(len(net.members) == count for net in self.networks.nets)
        if count > 2 and is_wide and chance.random() < 0.2:
            self.deaf.add(frozenset(chance.sample(range(count), 2)))
        if chance.random() < 0.2:
            net = chance.choice(self.networks.nets)
            self.hidden[chance.choice(net.members)].update(net.prefix + str(one + 1) for one in net.members)

    def later(self, least_s: float, most_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (self.now_s + self.chance.uniform(least_s, most_s), next(self._order), call))

    def run(self, until_s: float) -> None:
        """Whole ticks; what comes between them comes at its own time."""
        while self.now_s < until_s:
            next_s = self.now_s + self.tick_s
            while self._coming and self._coming[0][0] <= next_s:
                self.now_s, _, call = heapq.heappop(self._coming)
                call()
            self.now_s = next_s
            if self.faults and self.chance.random() < self.unrest:
                self.breaks.any()
            if (next_s / HEARTBEAT_S).is_integer():
                self._show_cards()
            self.streams.keep()
            for host in self.hosts:
                if host.is_awake(next_s):
                    self._step(host)
            if not self.is_large and (next_s / HEARTBEAT_S).is_integer():
                topology_laws.of_directions(self)

    def disturb(self, *indices: int) -> None:
        for one in indices:
            self.hosts[one].disturbed_s = max(self.hosts[one].disturbed_s, self.now_s)

    # A node.

    def start_discovery(self, host: Host) -> None:
        if not host.discovers:
            host.start_discovery(self.told_addresses(host.index), self.now_s)

    def start(self, host: Host) -> None:
        if not host.up:
            host.start(self.now_s)

    def told_addresses(self, index: int) -> tuple[str, ...]:
        if index not in self._told:
            every = self.networks.addresses(index)
            self._told[index] = tuple(one for one in every if one not in self.hidden[index])
        return self._told[index]

    def reaches(self, one: int, other: int) -> bool:
        """Whether it can dial the other where its card says."""
        key = (one, other)
        if key not in self._reached:
            self._reached[key] = any(self.leads(one, address, other) for address in self.told_addresses(other))
        return self._reached[key]

    def leads(self, index: int, address: str, to: int) -> bool:
        way = self.networks.way(index, address)
        return isinstance(way, Way) and way.to == to

    def _step(self, host: Host) -> None:
        host.tick_roster(self.now_s)
        if host.is_mac:
            self.macs.look(host, self.now_s, self.faults)
        if not host.up:
            return
        for row in host.look(self.now_s, self.tick_s):
            self._probe(host, row)
        host.tell(self.now_s)
        topology_laws.of_a_look(self, host)
        if not self.is_large:
            self.see(host)
        self.streams.flush(host)

    def see(self, host: Host) -> None:
        if (before := host.see(self.now_s)) is not None:
            topology_laws.of_a_graph(self, host, before)

    def _show_cards(self) -> None:
        """One exchange serves both, whoever can dial."""
        awake = [host for host in self.hosts if host.discovers and host.is_awake(self.now_s)]
        reaches = self.reaches
        for one, other in itertools.combinations(awake, 2):
            if self.faults and self.chance.random() < self.loss:
                self.disturb(one.index, other.index)
            elif reaches(one.index, other.index) or reaches(other.index, one.index):
                one.hear_card(other.card, self.now_s)
                other.hear_card(one.card, self.now_s)

    def _probe(self, host: Host, row: Row) -> None:
        self.probe_count += 1
        way = self.networks.way(host.index, row.address)
        run, key = host.run, row.key

        def fail(outcome: Outcome) -> None:
            if host.run == run:
                before = host.has_failed(key, outcome, ERRNOS[outcome])
                topology_laws.of_a_try(host, key, before)

        if way is Outcome.UNREACHABLE:
            self.later(0.0, 0.01, partial(fail, way))
            return
        if not isinstance(way, Way) or not self._machine_answers(way):
            self.later(TIMEOUT_S, TIMEOUT_S, partial(fail, Outcome.TIMED_OUT))
            return
        other = self.hosts[way.to]
        rtt_us = self.networks.rtt_us(way)
        if self.faults and self.chance.random() < 0.01:
            rtt_us *= 20
        wait_s = min(rtt_us / 1e6, TIMEOUT_S)
        if not other.up or other.node != row.peer:
            outcome = Outcome.REFUSED if not other.up else Outcome.WRONG_NODE
            self.later(wait_s, wait_s, partial(fail, outcome))
            return
        fate = self.chance.random() if self.faults else 1.0
        is_heard, is_answered = fate >= self.loss / 2, fate >= self.loss
        if not is_answered:
            self.disturb(host.index, other.index)
        other_run = other.run

        def cross() -> None:
            if is_heard and other.run == other_run:
                self._hear(host, other, row.address, way)
            if not is_answered or other.run != other_run or not host.is_awake(self.now_s):
                fail(Outcome.TIMED_OUT)
            elif host.run == run:
                before = host.has_answered(key, rtt_us, way.local_address, way.path)
                topology_laws.of_a_try(host, key, before)

        self.later(wait_s, wait_s, cross)

    def _machine_answers(self, way: Way) -> bool:
        """One whose discovery and topology are both away is off; one that sleeps is silent too."""
        other = self.hosts[way.to]
        return (other.up or other.discovers) and other.is_awake(self.now_s)

    def _hear(self, host: Host, other: Host, address: str, way: Way) -> None:
        arrives, returns = way.path.arrives, way.path.returns
        assert arrives is not None
        self.crossed.setdefault(LinkId(host.node, other.node, address), set()).add(way.medium)
        if way.out is way.back and way.medium is Medium.THUNDERBOLT:
            self.crossed_cables.add(way.out.cable(self.names))
        clock_s = other.clock_s(self.now_s)
        rtt_us = self.networks.rtt_us(way)
        echoed = Echoed(host.node, address, way.local_address, arrives, returns, rtt_us, clock_s)
        other.hear(echoed, self.now_s)

    def changed(self, *nets: Net) -> None:
        self.networks.changed()
        self._told, self._reached = {}, {}
        self.disturb(*{one for net in nets for one in net.members})

    def make_peace(self) -> None:
        """All run, and hear each other again. Some cables stay out, some nets stay slow."""
        self.faults = False
        self.networks.group = {}
        for net in self.networks.nets:
            net.unplugged, net.slow_us, net.near_limit = set(), 0, False
        for host in self.hosts:
            host.frozen_until_s = min(host.frozen_until_s, self.now_s)
            for start in (self.start_discovery, self.start):
                self.later(0.0, 1.0, partial(start, host))
        if not self.is_plain and self.chance.random() < 0.4:
            net = self.chance.choice(self.networks.nets)
            if net.medium is Medium.THUNDERBOLT and self.chance.random() < 0.6:
                net.unplugged = {net.members[0]}
            else:
                self.breaks.slow_to(net, self.chance.choice((0.6, 1.0, 1.0, 2.0)))
        # What was to heal is healed.
        self._coming = [one for one in self._coming if not heals(one[2])]
        heapq.heapify(self._coming)
        self.changed(*self.networks.nets)
