"""Cables, LANs and tunnels between hosts, each of which can be pulled, delayed and mended while it is in use.

A cable is a veth pair from each host into the lab's patch room, a namespace where a bridge joins the two: 0.05 ms. To
delay it, netem is put on its ends in that room; where the kernel has no netem, the bridge gives way to a relay
(relay.py) that carries the same frames. The hosts' interfaces and addresses stay as they are. A LAN is a bridge in the
room with such a cable to every host. A tunnel is a tun device on each host with a relay between them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Network

from lab.namespaces import LabError, ip
from lab.relay import QUEUE_COUNT_MAX, Shape
from lab.relaying import RunningRelay, packets, tun

MEGA = 1_000_000


@lru_cache(maxsize=1)
def has_netem(room: str) -> bool:
    """Whether this machine's kernel can delay packets itself; tried once."""
    try:
        ip("qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms", namespace=room, tool="tc")
        ip("qdisc", "del", "dev", "lo", "root", namespace=room, tool="tc")
    except (LabError, FileNotFoundError):
        return False
    return True


@dataclass
class Wire:
    """Two interfaces in the patch room, `NAMEa` and `NAMEb`, and what joins them."""

    room: str
    name: str
    shape: Shape = field(default_factory=Shape)
    _relay: RunningRelay | None = None

    @property
    def ends(self) -> tuple[str, str]:
        return f"{self.name}a", f"{self.name}b"

    def build(self) -> None:
        """The ends are there."""
        ip("link", "add", self.name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0", namespace=self.room)
        ip("link", "set", self.name, "up", namespace=self.room)
        self.become(Shape())

    def become(self, shape: Shape) -> None:
        """Raises LabError."""
        self.shape = shape
        netem = has_netem(self.room)
        relayed = shape.is_open and not shape.is_plain and not netem
        if netem:
            self._netem(shape)
        if not relayed:
            self.close()
        self._join(shape.is_open and not relayed)
        for end in self.ends:
            ip("link", "set", end, "up" if shape.is_plugged else "down", namespace=self.room)
        if relayed:
            if self._relay is None:
                first, second = (packets(self.room, end) for end in self.ends)
                self._relay = RunningRelay("packets", first, second)
            self._relay.shape(shape)

    def _join(self, joined: bool) -> None:
        for end in self.ends:
            ip("link", "set", end, *(("master", self.name) if joined else ("nomaster",)), namespace=self.room)

    def _netem(self, shape: Shape) -> None:
        for end in self.ends:
            if shape.is_plain:
                if "netem" in ip("qdisc", "show", "dev", end, namespace=self.room, tool="tc"):
                    ip("qdisc", "del", "dev", end, "root", namespace=self.room, tool="tc")
                continue
            delay = ("delay", f"{int(shape.delay_s * MEGA)}us", f"{int(shape.jitter_s * MEGA)}us")
            rest = ("loss", f"{shape.loss * 100:g}%", "limit", str(QUEUE_COUNT_MAX))
            ip("qdisc", "replace", "dev", end, "root", "netem", *delay, *rest, namespace=self.room, tool="tc")

    def close(self) -> None:
        if self._relay is not None:
            self._relay.close()
            self._relay = None


class Medium(ABC):
    """`interfaces` and `addresses` by the member's namespace."""

    def __init__(self, interfaces: Mapping[str, str], subnet: str) -> None:
        self.interfaces = dict(interfaces)
        self.network = IPv4Network(subnet)
        self.addresses: Mapping[str, str] = {
            member: str(address) for member, address in zip(interfaces, self.network.hosts(), strict=False)
        }
        # What it is like when nothing is wrong with it.
        self.sound = Shape()

    @abstractmethod
    def shape_between(self, one: str, other: str) -> Shape:
        """What a packet meets from one member to the other."""

    @abstractmethod
    def become(self, shape: Shape, member: str | None = None) -> None:
        """From member to member; or only that member's part of it, where there are parts. Raises LabError."""

    @abstractmethod
    def close(self) -> None: ...

    def pairs(self, member: str | None = None) -> Iterator[tuple[str, str]]:
        """Who is joined by it, each pair both ways; or only this member's pairs."""
        for one in self.addresses:
            for other in self.addresses:
                if one != other and member in {None, one, other}:
                    yield one, other

    def shape_of(self, member: str | None = None) -> Shape:
        """Of the medium, or of one member's part."""
        one, other = next(self.pairs(member))
        return self.shape_between(one, other)

    def bridge(self, member: str, name: str) -> None:
        """Joins a member's interface into a bridge of its own, which takes the address, as Thunderbolt Bridge does."""
        one, address = self.interfaces[member], f"{self.addresses[member]}/{self.network.prefixlen}"
        ip("link", "add", name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0", namespace=member)
        ip("addr", "del", address, "dev", one, namespace=member)
        ip("link", "set", one, "master", name, namespace=member)
        self.interfaces[member] = name
        self._address(member)

    def _address(self, *members: str) -> None:
        for member in members:
            interface, address = self.interfaces[member], self.addresses[member]
            ip("addr", "add", f"{address}/{self.network.prefixlen}", "dev", interface, namespace=member)
            ip("link", "set", interface, "up", namespace=member)


class Cable(Medium):
    """Between two hosts."""

    def __init__(self, interfaces: Mapping[str, str], subnet: str, room: str, number: int) -> None:
        super().__init__(interfaces, subnet)
        self._wire = Wire(room, f"w{number}")
        for (member, interface), end in zip(interfaces.items(), self._wire.ends, strict=True):
            plug(member, interface, room, end)
        self._wire.build()
        self._address(*interfaces)

    def shape_between(self, one: str, other: str) -> Shape:
        return self._wire.shape

    def become(self, shape: Shape, member: str | None = None) -> None:
        self._wire.become(shape)

    def close(self) -> None:
        self._wire.close()


class Lan(Medium):
    """Between any number of hosts; each has a leg of its own."""

    def __init__(self, interfaces: Mapping[str, str], subnet: str, room: str, number: int) -> None:
        super().__init__(interfaces, subnet)
        self._room = room
        switch = f"s{number}"
        ip("link", "add", switch, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0", namespace=room)
        ip("link", "set", switch, "up", namespace=room)
        self._legs = {member: Wire(room, f"w{number}x{place}") for place, member in enumerate(interfaces)}
        for member, leg in self._legs.items():
            near, far = leg.ends
            plug(member, interfaces[member], room, near)
            plug(room, f"p{leg.name}", room, far)
            ip("link", "set", f"p{leg.name}", "master", switch, "up", namespace=room)
            leg.build()
        self._address(*interfaces)

    def shape_between(self, one: str, other: str) -> Shape:
        first, second = self._legs[one].shape, self._legs[other].shape
        return Shape(
            first.delay_s + second.delay_s,
            first.jitter_s + second.jitter_s,
            1 - (1 - first.loss) * (1 - second.loss),
            first.is_open and second.is_open,
            first.is_plugged and second.is_plugged,
        )

    def shape_of(self, member: str | None = None) -> Shape:
        return self._legs[member].shape if member is not None else super().shape_of()

    def become(self, shape: Shape, member: str | None = None) -> None:
        if member is not None:
            self._legs[member].become(shape)
            return
        # Two legs lie between two hosts.
        half = replace(
            shape,
            delay_s=shape.delay_s / 2,
            jitter_s=shape.jitter_s / 2,
            loss=1 - (1 - shape.loss) ** 0.5,
        )
        for leg in self._legs.values():
            leg.become(half)

    def hush(self) -> None:
        """Nothing that is for a group of hosts crosses from now on; what is for all of them does."""
        for leg in self._legs.values():
            words = ("type", "bridge_slave", "mcast_flood", "off")
            ip("link", "set", f"p{leg.name}", *words, namespace=self._room)

    def isolate(self, *members: str) -> None:
        """From each other, as Macs behind one hub: each reaches only the others."""
        for member in members:
            words = ("type", "bridge_slave", "isolated", "on")
            ip("link", "set", f"p{self._legs[member].name}", *words, namespace=self._room)

    def close(self) -> None:
        for leg in self._legs.values():
            leg.close()


class Tunnel(Medium):
    """Between two hosts, as a VPN is: a tun device that is always up, whatever happens on the way."""

    def __init__(self, interfaces: Mapping[str, str], subnet: str, shape: Shape) -> None:
        super().__init__(interfaces, subnet)
        first, second = (tun(member, interface) for member, interface in interfaces.items())
        self._relay = RunningRelay("tun", first, second)
        self.sound = self._shape = shape
        self.become(shape)
        self._address(*interfaces)

    def shape_between(self, one: str, other: str) -> Shape:
        return self._shape

    def become(self, shape: Shape, member: str | None = None) -> None:
        self._shape = shape
        # It has no plug.
        self._relay.shape(replace(shape, is_open=shape.is_open and shape.is_plugged))

    def close(self) -> None:
        self._relay.close()


def plug(member: str, interface: str, room: str, end: str) -> None:
    """A veth pair, made in its places: it is never seen outside."""
    ip("link", "add", interface, "type", "veth", "peer", "name", end, "netns", room, namespace=member)
