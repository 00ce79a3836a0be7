"""Rails: pairs of RDMA devices over one cable, from what the Thunderbolt ports of all nodes tell. Pure.

What is joined is known by the UUIDs of ports: each tells its own, and those of the ports that it sees at the other end
of its cable. No order of receptacles, no index and no name of an interface says it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import RdmaPortState, SeenMac, ThunderboltPort

# By node.
Ports = Mapping[NodeId, Sequence[ThunderboltPort]]


class PortAt(NamedTuple):
    node: NodeId
    port: ThunderboltPort


@dataclass(frozen=True, slots=True)
class PluggedCable:
    """Two ports that see each other, whether or not RDMA can use it. `one` is at the node that sorts first."""

    one: PortAt
    other: PortAt
    # Negotiated, the lesser of what the two ends tell; 0: neither does.
    speed_gbps: int = 0
    # Hubs and docks between, from `one` to `other`.
    behind: tuple[str, ...] = ()
    # Only one of the two ports tells of the other.
    is_one_sided: bool = False
    # None is named, yet something else is plugged in at one of the ports: a dock may not show from behind.
    is_hub_unknown: bool = False

    @property
    def ends(self) -> tuple[PortAt, PortAt]:
        return self.one, self.other


@dataclass(frozen=True, slots=True)
class RailEnd:
    node: NodeId
    # "rdma_en3".
    device: str
    interface: str
    port_uuid: str
    receptacle: str
    state: RdmaPortState = RdmaPortState.UNKNOWN
    # Both as of its port.
    bridge: str = ""
    is_next_to_ethernet: bool = False


@dataclass(frozen=True, slots=True)
class Rail:
    """Both directions of it. The rest is as of the cable."""

    one: RailEnd
    other: RailEnd
    speed_gbps: int = 0
    behind: tuple[str, ...] = ()
    is_one_sided: bool = False
    is_hub_unknown: bool = False

    @property
    def nodes(self) -> tuple[NodeId, NodeId]:
        return self.one.node, self.other.node

    @property
    def ends(self) -> tuple[RailEnd, RailEnd]:
        return self.one, self.other


class Cause(Enum):
    """Why RDMA cannot use one end of a rail."""

    DOWN = 1  # RDMA is off at one of the ends, or the cable is out.
    UNKNOWN = 2  # Nobody tells whether it is ACTIVE.
    BRIDGED = 3  # A bridge holds the interface, which so has no address: the device says ACTIVE nevertheless.
    WRONG_PORT = 4  # The port next to Ethernet of a Mac Studio, whatever the device says.


class Obstacle(NamedTuple):
    cause: Cause
    end: RailEnd


CAUSES = {RdmaPortState.DOWN: Cause.DOWN, RdmaPortState.UNKNOWN: Cause.UNKNOWN}


def obstacles(rail: Rail) -> tuple[Obstacle, ...]:
    """All that keeps RDMA from it, end by end; () where nothing that is known does."""
    return tuple(Obstacle(cause, end) for end in rail.ends for cause in _causes(end))


def _causes(end: RailEnd) -> Iterator[Cause]:
    if end.is_next_to_ethernet:
        yield Cause.WRONG_PORT
    if end.bridge:
        yield Cause.BRIDGED
    if end.state in CAUSES:
        yield CAUSES[end.state]


def rails_over(cables: Iterable[PluggedCable]) -> tuple[Rail, ...]:
    """In their order, one a cable. A cable of which an end has no RDMA device is none."""
    return tuple(
        Rail(
            _rail_end(one.one),
            _rail_end(one.other),
            one.speed_gbps,
            one.behind,
            one.is_one_sided,
            one.is_hub_unknown,
        )
        for one in cables
        if one.one.port.rdma_device and one.other.port.rdma_device
    )


def _rail_end(end: PortAt) -> RailEnd:
    port = end.port
    return RailEnd(
        end.node,
        port.rdma_device,
        port.interface,
        port.uuid,
        port.receptacle,
        port.rdma_port,
        port.bridge,
        port.is_next_to_ethernet,
    )


# Which port says that it sees which, and the hubs on the way.
_Claims = dict[tuple[PortAt, PortAt], tuple[str, ...]]


def plugged_cables(ports: Ports) -> tuple[PluggedCable, ...]:
    """All of them, sorted. What one end tells is enough, unless the other end or a third one says otherwise."""
    every = [PortAt(node, port) for node in sorted(ports) for port in ports[node]]
    claims = _claims(every)
    if not claims:
        return ()
    known = {seen.port.uuid for seen in every}
    claims = {pair: behind for pair, behind in claims.items() if not _is_denied(*pair, claims, known)}
    rivals = Counter(seen for (seer, seen) in claims if _is_alone(seer, seen, claims))
    claims = {pair: behind for pair, behind in claims.items() if not _is_alone(*pair, claims) or rivals[pair[1]] == 1}
    pairs = {(seer, seen) if seer.node < seen.node else (seen, seer) for seer, seen in claims}
    return tuple(sorted((_cable(*pair, claims) for pair in pairs), key=_cable_key))


def _claims(every: Sequence[PortAt]) -> _Claims:
    """A UUID that several ports claim, as those of a copied card do, says nothing: it may be any of them."""
    by_uuid: dict[str, set[PortAt]] = {}
    for one in every:
        by_uuid.setdefault(one.port.uuid, set()).add(one)
    known = {uuid: next(iter(found)) for uuid, found in by_uuid.items() if uuid and len(found) == 1}
    claims: _Claims = {}
    for seer in every:
        if seer.port.uuid and seer.port.uuid not in known:
            continue
        for mac in seer.port.macs:
            seen = known.get(mac.port_uuid)
            # A cable between two ports of one node joins nobody.
            if seen is not None and seen.node != seer.node:
                claims[seer, seen] = _fuller(claims.get((seer, seen), ()), mac.behind)
    return claims


def _is_denied(seer: PortAt, seen: PortAt, claims: _Claims, known: set[str]) -> bool:
    """The seen port tells of other Macs, and of this one not: what a port itself sees has the last word on it.

    One of the two is of a moment ago, a cable having been moved since. Of several Macs behind a hub a port may see few.
    """
    if (seen, seer) in claims or not seen.port.macs or any(_may_be(mac, seer, known) for mac in seen.port.macs):
        return False
    return not (claims[seer, seen] and is_shared(seen.port))


def _may_be(mac: SeenMac, seer: PortAt, known: set[str]) -> bool:
    """Where one of the two has no UUID."""
    return not mac.port_uuid or (not seer.port.uuid and mac.port_uuid not in known)


def _is_alone(seer: PortAt, seen: PortAt, claims: _Claims) -> bool:
    """A direct cable of which the seen port does not tell. Of several that end at one port all but one are over."""
    return not claims[seer, seen] and (seen, seer) not in claims and not is_shared(seen.port)


def is_shared(port: ThunderboltPort) -> bool:
    """Whether a hub or a dock is plugged in, so that several Macs may be behind the port."""
    return len(port.macs) > 1 or bool(port.devices) or any(mac.behind for mac in port.macs)


def _cable(one: PortAt, other: PortAt, claims: _Claims) -> PluggedCable:
    there, back = claims.get((one, other)), claims.get((other, one))
    # From the far side of a dock it may not show.
    behind = _fuller(there or (), (back or ())[::-1])
    # A port has one receptacle: what else is plugged in there, and the Mac, have something between.
    is_hub_unknown = not behind and bool(one.port.devices or other.port.devices)
    speed_gbps = speed_of(one.port, other.port)
    return PluggedCable(one, other, speed_gbps, behind, there is None or back is None, is_hub_unknown)


def speed_of(*ports: ThunderboltPort) -> int:
    """Of what joins them, in Gb/s: with a hub between each may have negotiated another."""
    return min((port.speed_gbps for port in ports if port.speed_gbps), default=0)


def _fuller(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return max(one, other, key=lambda behind: (len(behind), behind))


def _cable_key(one: PluggedCable) -> tuple[object, ...]:
    return *_port_key(one.one), *_port_key(one.other)


def _port_key(end: PortAt) -> tuple[object, ...]:
    """By receptacle as people count: "2" before "10"."""
    port = end.port
    return end.node, len(port.receptacle), port.receptacle, port.bus, port.interface, port.uuid
