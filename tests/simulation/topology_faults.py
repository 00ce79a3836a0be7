"""What goes wrong in the simulated network. Most of it heals after a while."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from simulation.topology_host import Host
from simulation.topology_networks import Net
from thunderline.cluster.media import Medium
from thunderline.topology.probes import Echoed

if TYPE_CHECKING:
    from simulation.topology_world import World


class Faults:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.chance, self.networks = world.chance, world.networks

    def any(self) -> None:
        """Each heals after a while."""
        chance = self.chance
        host, net = chance.choice(self.world.hosts), chance.choice(self.networks.nets)
        kinds: list[tuple[float, Callable[[], None]]] = [
            (0.22, partial(self._unplug, net)),
            (0.20, partial(self._slow, net)),
            (0.16, partial(self._restart, host, True, False, chance.choice((0.2, 1.0, 3.0)))),
            (0.06, partial(self._restart, host, False, True, chance.choice((0.2, 1.0, 3.0)))),
            (0.08, partial(self._restart, host, True, True, chance.choice((1.0, 3.0, 9.0)))),
            (0.07, partial(self._freeze, host)),
            (0.05, self._part),
            (0.06, self.detour),
            (0.04, partial(self.build_wall, 6.0)),
            (0.04, partial(self._replug, net)),
            (0.04, partial(self._change_hands, net)),
            (0.05, partial(self._pretend, host)),
            (0.02, partial(setattr, host, "wall_ahead_s", host.wall_ahead_s + chance.uniform(-3600, 3600))),
        ]
        chance.choices([call for _, call in kinds], [share for share, _ in kinds])[0]()

    def _unplug(self, net: Net) -> None:
        which = {self.chance.choice(net.members)}
        net.unplugged |= which
        self.world.changed(net)

        def plug() -> None:
            net.unplugged -= which
            self.world.changed(net)

        self.world.later(1.0, self.chance.choice((3.0, 12.0)), plug)

    def _slow(self, net: Net) -> None:
        self.slow_to(net, self.chance.choice((0.6, 1.0, 2.0, 8.0)))

        def heal() -> None:
            net.slow_us, net.near_limit = 0, False
            self.world.changed(net)

        self.world.later(3.0, 20.0, heal)

    def slow_to(self, net: Net, share: float) -> None:
        """A share of the medium's limit; 1: around it."""
        net.near_limit = share == 1.0
        most_us = net.limit_us if net.near_limit else max(1.5 * net.base_us, share * net.limit_us)
        net.slow_us = int(most_us) - net.base_us
        self.world.changed(net)

    def _restart(self, host: Host, topology: bool, discovery: bool, away_s: float) -> None:
        if topology and host.up:
            host.stop()
            # Two starts of one number cannot be told apart: of the first one nothing is lost.
            if self.chance.random() < 0.1 and host.start_count > 1:
                host.start_count = 0
                self.world.lost_count.add(host.node)
            self.world.later(away_s, away_s, partial(self.world.start, host))
        if discovery and host.discovers:
            host.discovers = False
            self.world.later(away_s, away_s, partial(self.world.start_discovery, host))
        if topology and discovery:
            self.world.macs.reboot(host.index)
        self.world.disturb(host.index)

    def _freeze(self, host: Host) -> None:
        """Its clock goes on meanwhile, or not."""
        for_s = self.chance.choice((1.5, 3.0, 6.0))
        host.frozen_until_s = self.world.now_s + for_s
        host.disturbed_s = host.frozen_until_s
        if self.chance.random() < 0.5:
            self.world.later(for_s, for_s, lambda: setattr(host, "ahead_s", host.ahead_s + 60.0))

    def _part(self) -> None:
        self.networks.group = {host.index: self.chance.choice((0, 0, 1)) for host in self.world.hosts}
        self.world.changed(*self.networks.nets)

        def heal() -> None:
            self.networks.group = {}
            self.world.changed(*self.networks.nets)

        self.world.later(1.0, 9.0, heal)

    def detour(self) -> None:
        """A cable's packets go by another net; a route that changes again is a fault like another."""
        cables = [net for net in self.networks.nets if net.medium is Medium.THUNDERBOLT]
        if not cables:
            return
        taken = self.chance.choice(cables)
        host = self.chance.choice(taken.members)
        ends = set(taken.members)
        others = [net for net in self.networks.nets if net is not taken and ends <= set(net.members)]
        key = (host, taken.name)
        if key in self.networks.detours:
            del self.networks.detours[key]
        elif others:
            self.networks.detours[key] = self.chance.choice(others)
        self.world.changed(taken)

    def build_wall(self, for_s: float | None = None) -> None:
        """One cannot dial another, by one net or by any."""
        nets = self.networks.nets
        if self.chance.random() < 0.5:
            nets = [self.chance.choice(nets)]
        one, other = self.chance.sample(nets[0].members, 2)
        built = [net for net in nets if {one, other} <= set(net.members) and (one, other) not in net.walls]
        for net in built:
            net.walls.add((one, other))
        self.world.changed(*built)

        def fall() -> None:
            for net in built:
                net.walls.discard((one, other))
            self.world.changed(*built)

        if for_s is not None:
            self.world.later(for_s, for_s, fall)

    def _replug(self, net: Net) -> None:
        """A cable's end is plugged in elsewhere: another interface of the same address."""
        if net.medium is Medium.THUNDERBOLT:
            host = self.chance.choice(net.members)
            net.moves[host] = net.moves.get(host, 0) + 1
            self.world.macs.plugged(net)
            self.world.changed(net)

    def _change_hands(self, net: Net) -> None:
        """Two hosts get each other's address, and their cards tell it."""
        one, other = self.chance.sample(net.members, 2)
        net.numbers[one], net.numbers[other] = net.numbers[other], net.numbers[one]
        self.world.changed(net)
        for index in (one, other):
            self.world.hosts[index].show(self.world.told_addresses(index), self.world.now_s)

    def _pretend(self, host: Host) -> None:
        """A stranger says a member's name to the echo, at each of its addresses, and that member may know nothing."""
        if not host.up or not host.is_awake(self.world.now_s):
            return
        peer = self.chance.choice(self.world.hosts)
        for net in self.networks.nets:
            if host.index in net.members:
                end, away = net.end(host.index), f"10.66.0.{self.chance.randint(1, 3)}"
                at_s = host.clock_s(self.world.now_s)
                host.hear(Echoed(peer.node, net.addresses(host.index)[0], away, end, end, 300, at_s), self.world.now_s)
        if peer is not host and self.chance.random() < 0.5:
            self.world.later(0.2, 1.5, partial(self._restart, peer, True, False, 0.2))


def heals(call: Callable[[], None]) -> bool:
    return getattr(call, "__name__", "") in {"plug", "heal"}
