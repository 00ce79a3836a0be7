"""Media between simulated hosts: who reaches whom, by which interfaces and how fast, as routes and walls are now."""

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, CableEnd, Outcome, cable
from thunderline.cluster.links import RTT_LIMITS_US
from thunderline.cluster.media import ORDER, Medium
from thunderline.cluster.paths import End, Path

M = Medium
# Round trips of an idle net, from the fastest to the slowest, in microseconds: all good for UP.
BASES_US = {
    M.THUNDERBOLT: (40, 400),
    M.ETHERNET: (300, 900),
    M.WIFI: (2_000, 20_000),
    M.OTHER: (100, 2_000),
    M.VPN: (20_000, 60_000),
}
# An idle net scatters by so much, less than what makes one link clearly better than another.
NOISE = 0.15
# Around a limit: too little to be UP again, or to be clearly better one moment and clearly worse the next.
NEAR_NOISE = 0.1


@dataclass
class Net:
    """One medium that joins some hosts; a cable joins two."""

    name: str
    medium: Medium
    prefix: str
    members: tuple[int, ...]
    base_us: int
    # "" without IPv6.
    prefix6: str = ""
    # What makes it slower for now.
    slow_us: int = 0
    near_limit: bool = False
    unplugged: set[int] = field(default_factory=set)
    # (from, to): it cannot dial there.
    walls: set[tuple[int, int]] = field(default_factory=set)
    # The last number of each host's address, and how often its end was moved to another port.
    numbers: dict[int, int] = field(default_factory=dict)
    moves: dict[int, int] = field(default_factory=dict)
    # Of a cable: its hosts whose ports tell of themselves, hubs from the first host to the other, and what interfaces
    # are called where that is not after the net.
    macs: Set[int] = frozenset()
    hubs: tuple[str, ...] = ()
    labels: dict[int, str] = field(default_factory=dict)

    def label(self, host: int) -> str:
        return self.labels.get(host, self.name)

    def end(self, host: int) -> End:
        return End(f"{self.label(host)}.{self.moves.get(host, 0)}", self.medium)

    def uuid(self, host: int, number: int | None = None) -> str:
        """Of the port where its end is, or was after so many moves."""
        moves = self.moves.get(host, 0) if number is None else number
        return f"{self.name}.{moves}@{host}" if host in self.macs else ""

    def cable(self, names: Sequence[NodeId]) -> Cable:
        return cable(*(CableEnd(names[host], self.end(host).interface, self.uuid(host)) for host in self.members))

    def addresses(self, host: int) -> tuple[str, ...]:
        number = self.numbers[host]
        return (f"{self.prefix}{number}", f"{self.prefix6}{number:x}") if self.prefix6 else (f"{self.prefix}{number}",)

    @property
    def limit_us(self) -> int:
        """Where nothing is a limit: something to be slow by."""
        return RTT_LIMITS_US.get(self.medium, 2 * self.base_us)

    def half_us(self, chance: random.Random) -> float:
        """One way."""
        whole_us = (self.base_us + self.slow_us) / 2
        if self.near_limit:
            return whole_us * chance.uniform(1 - NEAR_NOISE, 1 + NEAR_NOISE)
        return whole_us * chance.uniform(1.0, 1.0 + NOISE)

    @property
    def range_us(self) -> tuple[float, float]:
        whole_us = self.base_us + self.slow_us
        low, high = (1 - NEAR_NOISE, 1 + NEAR_NOISE) if self.near_limit else (1.0, 1.0 + NOISE)
        return whole_us * low, whole_us * high


@dataclass(frozen=True, slots=True)
class Way:
    """What becomes of a dial that crosses."""

    to: int
    out: Net
    back: Net
    medium: Medium
    local_address: str
    path: Path


class Networks:
    """All nets of a world, and how its hosts route. `changed` after every change."""

    def __init__(self, chance: random.Random, host_count: int, is_plain: bool) -> None:
        self.chance = chance
        self.nets = _plain(host_count) if is_plain else _drawn(chance, host_count)
        for net in self.nets:
            net.numbers = {host: host + 1 for host in net.members}
        # A host that sends what is for one net by another.
        self.detours: dict[tuple[int, str], Net] = {}
        # Groups that do not hear each other, by host.
        self.group: dict[int, int] = {}
        self._ways: dict[tuple[int, str], Way | Outcome] = {}
        self._owners: dict[str, tuple[int, Net]] = {}
        self.changed()

    def changed(self) -> None:
        self._ways.clear()
        self._owners = {
            address: (host, net) for net in self.nets for host in net.members for address in net.addresses(host)
        }

    def addresses(self, host: int) -> tuple[str, ...]:
        return tuple(one for net in self.nets if host in net.members for one in net.addresses(host))

    def way(self, host: int, address: str) -> Way | Outcome:
        """From a host to whoever has the address."""
        key = (host, address)
        found = self._ways.get(key)
        if found is None:
            found = self._ways[key] = self._way(host, address)
        return found

    def _way(self, host: int, address: str) -> Way | Outcome:
        if address not in self._owners:
            return Outcome.TIMED_OUT
        other, net = self._owners[address]
        out = self.detours.get((host, net.name), net)
        if host not in out.members or host in out.unplugged:
            return Outcome.UNREACHABLE
        back = self.detours.get((other, out.name), out)
        if not self._carries(out, host, other) or not self._carries(back, other, host) or (host, other) in out.walls:
            return Outcome.TIMED_OUT
        own = out.addresses(host)
        path = Path(out.end(host), out.end(other), back.end(other))
        medium = max(out.medium, back.medium, key=ORDER.index)
        return Way(other, out, back, medium, own[-1] if ":" in address else own[0], path)

    def _carries(self, net: Net, host: int, other: int) -> bool:
        there = host in net.members and other in net.members and not net.unplugged & {host, other}
        return there and self.group.get(host, 0) == self.group.get(other, 0)

    def rtt_us(self, way: Way) -> int:
        return int(way.out.half_us(self.chance) + way.back.half_us(self.chance))

    def cables(self, names: Sequence[NodeId]) -> dict[Cable, bool]:
        """Those of which nothing is detoured, and whether each carries anything now. `names`: ids of the hosts."""
        found = {}
        for net in self.nets:
            if net.medium is M.THUNDERBOLT and not any((one, net.name) in self.detours for one in net.members):
                found[net.cable(names)] = self._carries(net, *net.members)
        return found


def _drawn(chance: random.Random, count: int) -> list[Net]:
    """A few nets, of which at least one joins somebody. Of many hosts fewer: they cost the square."""
    everybody = tuple(range(count))
    nets: list[Net] = []

    def add(medium: Medium, prefix: str, members: tuple[int, ...], prefix6: str = "") -> Net:
        low, high = BASES_US[medium]
        net = Net(f"{medium.name.lower()}{len(nets)}", medium, prefix, members, chance.randint(low, high), prefix6)
        nets.append(net)
        return net

    wide = [medium for medium, share in ((M.ETHERNET, 0.6), (M.WIFI, 0.35), (M.VPN, 0.4)) if chance.random() < share]
    for medium in wide[: 1 if count > 4 else 3]:
        prefix = {M.ETHERNET: "10.0.0.", M.WIFI: "192.168.1.", M.VPN: "100.64.0."}[medium]
        prefix6 = "fd00::" if medium is M.ETHERNET and chance.random() < 0.3 else ""
        net = add(medium, prefix, everybody, prefix6)
        if medium is M.ETHERNET and count <= 4 and chance.random() < 0.2:
            # A second LAN that is about as fast.
            add(medium, "203.0.113." if chance.random() < 0.3 else "10.0.1.", everybody).base_us = net.base_us
    pairs = [(one, one + 1) for one in range(count - 1)]
    if count > 2 and chance.random() < 0.5:
        pairs.append((0, count - 1))
    for pair in pairs:
        if chance.random() < (0.7 if wide else 1.0):
            for _ in range(2 if chance.random() < 0.15 else 1):
                far = "169.254" if chance.random() < 0.3 else "192.168"
                add(M.THUNDERBOLT, f"{far}.{len(nets) + 4}.", pair)
    return nets or [add(M.OTHER, "10.9.0.", everybody)]


def _plain(count: int) -> list[Net]:
    """A LAN, and cables between two and two."""
    lan = Net("ethernet0", M.ETHERNET, "10.0.0.", tuple(range(count)), 500)
    cables = [
        Net(f"thunderbolt{one}", M.THUNDERBOLT, f"172.16.{one}.", (one, one + 1), 60) for one in range(0, count - 1, 2)
    ]
    return [lan, *cables]
