"""Nodes around the pure core of topology, on one thread and a clock of their own, made from a seed.

Cables, LANs, Wi-Fi and VPNs between them; walls that one side cannot dial through, detours, cuts, slowness and jitter,
partitions, restarts of either role and of machines, sleep, strangers at the echo, addresses that change hands, and
reports that are late, come twice or get lost with their stream. Probes, reports, graph and choice are the real ones,
or those that a test passes; who is there is told by the real roster of discovery.
"""

import errno as errnos
import heapq
import itertools
import random
from collections.abc import Callable
from functools import partial

from simulation import topology_laws
from simulation.topology_host import HEARTBEAT_S, PERIOD_S, TIMEOUT_S, Core, Graphs, Host, Stream
from simulation.topology_networks import Net, Networks, Way
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, CableEnd, Outcome, Version, cable
from thunderline.cluster.links import LinkId
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End
from thunderline.topology.probes import Echoed, Row
from thunderline.topology.reports import Report

TICK_S, LARGE_TICK_S = 0.5, 1.0
LARGE = 20
# A stream whose way is gone ends after so long (rpc/channel.py).
KEEP_ALIVE_S = 15.0
# A NodeReport comes in a message of at most so many.
REPORTS_PER_MESSAGE = 64
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
        count = host_count or chance.choice((2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 8))
        self.is_plain, self.is_large = bool(host_count), count >= LARGE
        self.tick_s = LARGE_TICK_S if self.is_large else TICK_S
        # The order of ids is not that of the addresses.
        self.names = [NodeId(f"{chance.getrandbits(32):08x}-{index}") for index in range(count)]
        self.networks = Networks(chance, count, self.is_plain)
        self.hosts = [Host(index, self.names, core, self.graphs) for index in range(count)]
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
        self.message_count = self.report_count = self.probe_count = 0
        if not self.is_plain:
            self._limit()
        for host in self.hosts:
            host.ahead_s, host.wall_ahead_s = chance.uniform(0, 1e6), chance.uniform(0, 1e9)
            self.later(0.0, 3.0, partial(self._start_discovery, host))
            self.later(0.0, 3.0, partial(self._start, host))

    def _limit(self) -> None:
        """What is so for good: walls, detours, deaf pairs, hidden addresses."""
        chance, count = self.chance, len(self.hosts)
        if chance.random() < 0.3:
            self._build_wall()
        if chance.random() < 0.3:
            self._detour()
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
                self._break_something()
            if (next_s / HEARTBEAT_S).is_integer():
                self._show_cards()
            self._keep_streams()
            for host in self.hosts:
                if host.is_awake(next_s):
                    self._step(host)
            if not self.is_large and (next_s / HEARTBEAT_S).is_integer():
                topology_laws.of_directions(self)

    def disturb(self, *indices: int) -> None:
        for one in indices:
            self.hosts[one].disturbed_s = max(self.hosts[one].disturbed_s, self.now_s)

    # A node.

    def _start_discovery(self, host: Host) -> None:
        if not host.discovers:
            host.start_discovery(self.told_addresses(host.index), self.now_s)

    def _start(self, host: Host) -> None:
        if not host.up:
            host.start(self.now_s)

    def told_addresses(self, index: int) -> tuple[str, ...]:
        return tuple(one for one in self.networks.addresses(index) if one not in self.hidden[index])

    def reaches(self, one: int, other: int) -> bool:
        """Whether it can dial the other where its card says."""
        return any(self._leads(one, address, other) for address in self.told_addresses(other))

    def _step(self, host: Host) -> None:
        host.tick_roster(self.now_s)
        if not host.up:
            return
        for row in host.look(self.now_s, self.tick_s):
            self._probe(host, row)
        host.tell(self.now_s)
        topology_laws.of_a_look(self, host)
        if not self.is_large:
            self.see(host)
        self._flush(host)

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
        leaves, arrives, returns = way.path.leaves, way.path.arrives, way.path.returns
        assert leaves is not None and arrives is not None
        self.crossed.setdefault(LinkId(host.node, other.node, address), set()).add(way.medium)
        if way.out is way.back and way.medium is Medium.THUNDERBOLT:
            ends = CableEnd(host.node, leaves.interface), CableEnd(other.node, arrives.interface)
            self.crossed_cables.add(cable(*ends))
        clock_s = other.clock_s(self.now_s)
        rtt_us = self.networks.rtt_us(way)
        echoed = Echoed(host.node, address, way.local_address, arrives, returns, rtt_us, clock_s)
        other.hear(echoed, self.now_s)

    # Streams of reports.

    def _keep_streams(self) -> None:
        for one, other in itertools.combinations(self.hosts, 2):
            stream = one.streams.get(other.index) or other.streams.get(one.index)
            if stream is not None and self._ends(stream):
                self._drop(stream)
            elif stream is not None:
                self._change_over(stream)
            elif one.serves_reports(self.now_s) and other.serves_reports(self.now_s):
                self._dial(*sorted((one, other), key=lambda host: host.node))

    def _dial(self, first: Host, second: Host) -> None:
        """The one with the smaller id at once, the other after a period without a stream."""
        if frozenset((first.index, second.index)) in self.deaf:
            return
        since_s = second.lonely_s.setdefault(first.index, self.now_s)
        for host, peer in ((first, second), (second, first)):
            known = host.members.peers.get(peer.node)
            if known is None or not known.is_present or (host is second and self.now_s - since_s < PERIOD_S):
                continue
            addresses = [host.known.best(peer.node), *known.addresses]
            works = [address for address in addresses if self._leads(host.index, address, peer.index)]
            if works:
                self._join(host, peer, works[0])
                return

    def _join(self, host: Host, peer: Host, address: str) -> None:
        ends = ((host.index, host.run), (peer.index, peer.run))
        stream = Stream(address, ends, {host.index: {}, peer.index: {}})
        for one, other in ((host, peer), (peer, host)):
            one.streams[other.index] = stream
            one.lonely_s.pop(other.index, None)
            one.is_dirty = True

    def _leads(self, index: int, address: str, to: int) -> bool:
        way = self.networks.way(index, address)
        return isinstance(way, Way) and way.to == to

    def _change_over(self, stream: Stream) -> None:
        """To the better link; everything is told again over the new one."""
        host, peer = (self.hosts[index] for index, _ in stream.ends)
        best = host.known.best(peer.node)
        if best not in ("", stream.address) and self._leads(host.index, best, peer.index):
            self._join(host, peer, best)

    def _ends(self, stream: Stream) -> bool:
        """A role that dies is noticed at once; who is DEAD is let go; a way that is gone ends after the keep-alive."""
        (dialler, run), (dialled, dialled_run) = stream.ends
        host, peer = self.hosts[dialler], self.hosts[dialled]
        known = host.members.peers.get(peer.node)
        is_over = (host.run, peer.run) != (run, dialled_run) or known is None or not known.is_present
        if is_over or stream.is_broken:
            return True
        if self._carries(stream):
            stream.silent_s = None
            return False
        self.disturb(dialler, dialled)
        stream.silent_s = self.now_s if stream.silent_s is None else stream.silent_s
        return self.now_s - stream.silent_s >= KEEP_ALIVE_S

    def _carries(self, stream: Stream) -> bool:
        (dialler, _), (dialled, _) = stream.ends
        awake = self.hosts[dialler].is_awake(self.now_s) and self.hosts[dialled].is_awake(self.now_s)
        return awake and self._leads(dialler, stream.address, dialled)

    def _drop(self, stream: Stream) -> None:
        for (index, _), (peer, _) in (stream.ends, stream.ends[::-1]):
            if self.hosts[index].streams.get(peer) is stream:
                del self.hosts[index].streams[peer]
                self.hosts[index].is_dirty = True
        self.disturb(stream.ends[0][0], stream.ends[1][0])

    def _flush(self, host: Host) -> None:
        """To each stream what its other end lacks; over a new one everything."""
        news, reports = host.news(), host.known.reports
        for peer, stream in host.streams.items():
            is_new, held = host.index not in stream.begun, stream.held[host.index]
            if not is_new and not news:
                continue
            stream.begun.add(host.index)
            told = self.core.to_send(reports if is_new else news, held, host.node, self.names[peer])
            if told:
                held.update((one.node, one.version) for one in told)
                self._send(host, self.hosts[peer], stream, told)

    def _send(self, host: Host, other: Host, stream: Stream, told: tuple[Report, ...]) -> None:
        """TCP: while the way carries nothing the message waits, and is lost only with its stream."""
        self.message_count += -(-len(told) // REPORTS_PER_MESSAGE)
        self.report_count += len(told)

        def arrive() -> None:
            if other.streams.get(host.index) is not stream or stream.is_broken:
                return
            if not self._carries(stream):
                self.later(0.2, 1.0, arrive)
                return
            held = stream.held[other.index]
            held.update({one.node: max(one.version, held.get(one.node, one.version)) for one in told})
            mine = other.known.reports.get(host.node)
            if mine is not None and any(one.node == host.node and one.version < mine.version for one in told):
                # It has lost its count, and has to be told.
                stream.begun.discard(other.index)
            other.receive(told)

        if self.faults and self.chance.random() < 0.02:
            self.disturb(host.index, other.index)
            stream.is_broken = True
            return
        is_late = self.faults and self.chance.random() < 0.05
        self.later(0.0, 2.5 if is_late else 0.05, arrive)
        if is_late:
            self.disturb(host.index, other.index)
            self.later(0.0, 2.5, arrive)

    # What goes wrong.

    def _break_something(self) -> None:
        """Each heals after a while."""
        chance = self.chance
        host, net = chance.choice(self.hosts), chance.choice(self.networks.nets)
        kinds: list[tuple[float, Callable[[], None]]] = [
            (0.22, partial(self._unplug, net)),
            (0.20, partial(self._slow, net)),
            (0.16, partial(self._restart, host, True, False, chance.choice((0.2, 1.0, 3.0)))),
            (0.06, partial(self._restart, host, False, True, chance.choice((0.2, 1.0, 3.0)))),
            (0.08, partial(self._restart, host, True, True, chance.choice((1.0, 3.0, 9.0)))),
            (0.07, partial(self._freeze, host)),
            (0.05, self._part),
            (0.06, self._detour),
            (0.04, partial(self._build_wall, 6.0)),
            (0.04, partial(self._move, net)),
            (0.04, partial(self._change_hands, net)),
            (0.05, partial(self._pretend, host)),
            (0.02, partial(setattr, host, "wall_ahead_s", host.wall_ahead_s + chance.uniform(-3600, 3600))),
        ]
        chance.choices([call for _, call in kinds], [share for share, _ in kinds])[0]()

    def _changed(self, *nets: Net) -> None:
        self.networks.changed()
        self.disturb(*{one for net in nets for one in net.members})

    def _unplug(self, net: Net) -> None:
        which = {self.chance.choice(net.members)}
        net.unplugged |= which
        self._changed(net)

        def plug() -> None:
            net.unplugged -= which
            self._changed(net)

        self.later(1.0, self.chance.choice((3.0, 12.0)), plug)

    def _slow(self, net: Net) -> None:
        self._slow_to(net, self.chance.choice((0.7, 1.0, 2.0, 8.0)))

        def heal() -> None:
            net.slow_us, net.near_limit = 0, False
            self._changed(net)

        self.later(3.0, 20.0, heal)

    def _slow_to(self, net: Net, share: float) -> None:
        """A share of the medium's limit; 1: around it."""
        net.near_limit = share == 1.0
        most_us = net.limit_us if net.near_limit else max(1.5 * net.base_us, share * net.limit_us)
        net.slow_us = int(most_us) - net.base_us
        self._changed(net)

    def _restart(self, host: Host, topology: bool, discovery: bool, away_s: float) -> None:
        if topology and host.up:
            host.stop()
            if self.chance.random() < 0.1:
                host.start_count = 0
                self.lost_count.add(host.node)
            self.later(away_s, away_s, partial(self._start, host))
        if discovery and host.discovers:
            host.discovers = False
            self.later(away_s, away_s, partial(self._start_discovery, host))
        self.disturb(host.index)

    def _freeze(self, host: Host) -> None:
        """Its clock goes on meanwhile, or not."""
        for_s = self.chance.choice((1.5, 3.0, 6.0))
        host.frozen_until_s = self.now_s + for_s
        host.disturbed_s = host.frozen_until_s
        if self.chance.random() < 0.5:
            self.later(for_s, for_s, lambda: setattr(host, "ahead_s", host.ahead_s + 60.0))

    def _part(self) -> None:
        self.networks.group = {host.index: self.chance.choice((0, 0, 1)) for host in self.hosts}
        self._changed(*self.networks.nets)

        def heal() -> None:
            self.networks.group = {}
            self._changed(*self.networks.nets)

        self.later(1.0, 9.0, heal)

    def _detour(self) -> None:
        """A cable's packets go by another net; a route that changes again is a fault like another."""
        cables = [net for net in self.networks.nets if net.medium is Medium.THUNDERBOLT]
        if not cables:
            return
        taken = self.chance.choice(cables)
        host = self.chance.choice(taken.members)
        others = [net for net in self.networks.nets if net is not taken and set(taken.members) <= set(net.members)]
        key = (host, taken.name)
        if key in self.networks.detours:
            del self.networks.detours[key]
        elif others:
            self.networks.detours[key] = self.chance.choice(others)
        self._changed(taken)

    def _build_wall(self, for_s: float | None = None) -> None:
        """One cannot dial another, by one net or by any."""
        nets = self.networks.nets if self.chance.random() < 0.5 else [self.chance.choice(self.networks.nets)]
        one, other = self.chance.sample(nets[0].members, 2)
        built = [net for net in nets if {one, other} <= set(net.members) and (one, other) not in net.walls]
        for net in built:
            net.walls.add((one, other))
        self._changed(*built)

        def fall() -> None:
            for net in built:
                net.walls.discard((one, other))
            self._changed(*built)

        if for_s is not None:
            self.later(for_s, for_s, fall)

    def _move(self, net: Net) -> None:
        """A cable's end is plugged in elsewhere: another interface of the same address."""
        if net.medium is Medium.THUNDERBOLT:
            host = self.chance.choice(net.members)
            net.moves[host] = net.moves.get(host, 0) + 1
            self._changed(net)

    def _change_hands(self, net: Net) -> None:
        """Two hosts get each other's address, and their cards tell it."""
        one, other = self.chance.sample(net.members, 2)
        net.numbers[one], net.numbers[other] = net.numbers[other], net.numbers[one]
        self._changed(net)
        for index in (one, other):
            self.hosts[index].show(self.told_addresses(index), self.now_s)

    def _pretend(self, host: Host) -> None:
        """A stranger says a member's name to the echo."""
        if host.up and host.is_awake(self.now_s):
            peer = self.chance.choice(self.names)
            net = self.chance.choice([net for net in self.networks.nets if host.index in net.members])
            end = End(net.end(host.index).interface, net.medium)
            away = f"10.66.0.{self.chance.randint(1, 3)}"
            echoed = Echoed(peer, net.addresses(host.index)[0], away, end, end, 300, host.clock_s(self.now_s))
            host.hear(echoed, self.now_s)

    def make_peace(self) -> None:
        """All run, and hear each other again. Some cables stay out, some nets stay slow."""
        self.faults = False
        self.networks.group = {}
        for net in self.networks.nets:
            net.unplugged, net.slow_us, net.near_limit = set(), 0, False
        for host in self.hosts:
            host.frozen_until_s = min(host.frozen_until_s, self.now_s)
            for start in (self._start_discovery, self._start):
                self.later(0.0, 1.0, partial(start, host))
        if not self.is_plain and self.chance.random() < 0.4:
            net = self.chance.choice(self.networks.nets)
            if net.medium is Medium.THUNDERBOLT and self.chance.random() < 0.6:
                net.unplugged = {net.members[0]}
            else:
                self._slow_to(net, self.chance.choice((0.7, 1.0, 1.0, 2.0)))
        self._coming = [one for one in self._coming if not _heals(one[2])]
        heapq.heapify(self._coming)
        self._changed(*self.networks.nets)


def _heals(call: Callable[[], None]) -> bool:
    """What was to heal is healed."""
    return getattr(call, "__name__", "") in {"plug", "heal"}

