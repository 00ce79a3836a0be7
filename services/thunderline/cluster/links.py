"""Links, their one order, and which of them to use. Pure.

The order: not DOWN, tier, UP before DEGRADED, private addresses, RTT, address, local interface. Several roles choose;
all by this.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import address_key, is_ipv4, is_private
from thunderline.cluster.media import ORDER, Medium
from thunderline.cluster.paths import UNKNOWN, Path

# Above this a link is too slow for its medium, with room for load: a direct cable shows 0.3 to 0.7 ms, a good Wi-Fi up
# to 30 ms. The other media have no limit: anything may be behind them.
RTT_LIMITS_US: Mapping[Medium, int] = MappingProxyType(
    {Medium.THUNDERBOLT: 5_000, Medium.ETHERNET: 10_000, Medium.WIFI: 50_000}
)
# A link in use is kept unless a rival is this much faster, so that two near-equal links do not trade places at every
# measurement: 1.2 of 0.6 ms is 0.72 ms.
SWITCH_GAIN_MIN = 1.2
# Between idle cables a fifth is noise: a probe of 0.05 ms scatters by more than 0.01 ms.
SWITCH_GAIN_MIN_US = 100


class LinkState(Enum):
    """Numbers are those of LinkState in topology.proto."""

    UP = 1  # Answers, fast enough for its medium.
    DEGRADED = 2  # Answers, too slowly for its medium.
    DOWN = 3  # Has answered once, and does not any more.


class Mark(Enum):
    """What else there is to say of a link."""

    ASYMMETRIC_ROUTE = 1  # There and back take different interfaces.
    ONE_SIDED = 2  # Only one of its two nodes tells of it.
    # The peer's card does not tell the address. Who says a peer's name to an echo can answer to it at its own: nothing
    # is sent there.
    UNADVERTISED = 3


class LinkId(NamedTuple):
    from_node: NodeId
    to_node: NodeId
    address: str


@dataclass(frozen=True, slots=True)
class Link:
    """One directed, verified way from a node to a peer's address."""

    from_node: NodeId
    to_node: NodeId
    # Of the peer: what is dialled.
    address: str
    medium: Medium
    state: LinkState
    # The median of the last five.
    rtt_us: int
    path: Path = UNKNOWN
    # "" when only the peer tells of the link.
    local_address: str = ""
    marks: frozenset[Mark] = frozenset()

    @property
    def id(self) -> LinkId:
        return LinkId(self.from_node, self.to_node, self.address)

    @property
    def is_usable(self) -> bool:
        return self.state is not LinkState.DOWN and Mark.UNADVERTISED not in self.marks

    @property
    def local_interface(self) -> str:
        return self.path.leaves.interface if self.path.leaves else ""

    @property
    def remote_interface(self) -> str:
        return self.path.arrives.interface if self.path.arrives else ""


def tier(link: Link, limits_us: Mapping[Medium, int] = RTT_LIMITS_US) -> Medium:
    """The medium as which a link counts.

    A DEGRADED one takes the fastest medium, never above its own, whose limit its RTT meets: a cable at 6 ms counts as
    ETHERNET, at 40 ms as WIFI. With none it joins VPN.
    """
    if link.state is not LinkState.DEGRADED:
        return link.medium
    slower = ORDER[ORDER.index(link.medium) :]
    return next((one for one in slower if link.rtt_us <= limits_us.get(one, -1)), Medium.VPN)


class LinkKey(NamedTuple):
    """The criteria of the link order, the first that differs decides."""

    is_down: bool
    tier: int
    is_degraded: bool
    is_public: bool
    rtt_us: int
    address: tuple[int, int, str]
    local_interface: str


def link_key(link: Link, limits_us: Mapping[Medium, int] = RTT_LIMITS_US) -> LinkKey:
    """Sorts the best first. Total over the links from one node to another: no two of them have the same address.

    Among those that count as VPN nothing tells good from bad but the RTT.
    """
    counts_as = tier(link, limits_us)
    of_vpn = counts_as is Medium.VPN
    return LinkKey(
        is_down=link.state is LinkState.DOWN,
        tier=ORDER.index(counts_as),
        is_degraded=not of_vpn and link.state is LinkState.DEGRADED,
        # Link-local ones, such as a cable's 169.254.x.x, are not private in this sense: they may change at any time.
        is_public=not of_vpn and not is_private(link.address),
        rtt_us=link.rtt_us,
        address=address_key(link.address),
        local_interface=link.local_interface,
    )


def in_order(links: Iterable[Link], limits_us: Mapping[Medium, int] = RTT_LIMITS_US) -> list[Link]:
    """Those that can be used, the best first."""
    usable = [one for one in links if one.is_usable]
    return sorted(usable, key=lambda one: link_key(one, limits_us))


def data_path(links: Iterable[Link], limits_us: Mapping[Medium, int] = RTT_LIMITS_US) -> Link | None:
    """Where activations go from one node to another: the first of the order. MLX's sockets know IPv4 only."""
    return next((one for one in in_order(links, limits_us) if is_ipv4(one.address)), None)


def choose(
    links: Iterable[Link], current: LinkId | None, limits_us: Mapping[Medium, int] = RTT_LIMITS_US
) -> Link | None:
    """The link for connections from one node to another: the one in use, unless another is clearly better.

    That is one which would still come first if it were slower by SWITCH_GAIN_MIN: better by medium or health, or
    faster by that much. The margin holds also where an RTT decides what a link counts as: a rival that would be
    DEGRADED by it is looked at as if it were. So none that was left comes back while RTTs scatter by less than that:
    what is chosen is at its worst better than what was left ever was.
    """
    answering = [one for one in links if one.is_usable]
    if len(answering) <= 1:
        return answering[0] if answering else None
    answering = in_order(answering, limits_us)
    held = next((one for one in answering if one.id == current), None)
    if held is None:
        return answering[0]
    held_key = link_key(held, limits_us)
    # A slower one is never better: those that come after it need not be looked at.
    before = itertools.takewhile(lambda one: one is not held, answering)
    return next((one for one in before if link_key(_slowed(one, limits_us), limits_us) < held_key), held)


def believed(links: Iterable[Link], told: Collection[LinkId]) -> Link | None:
    """The link that another node's connections take: it keeps one by what it had before, and tells which.

    Where it tells none, as an older version does, the first of the order.
    """
    usable = [one for one in links if one.is_usable]
    of_told = [one for one in usable if one.id in told]
    return min(of_told or usable, key=link_key, default=None)


def _slowed(link: Link, limits_us: Mapping[Medium, int]) -> Link:
    """As it may be a moment later, at its worst.

    Of two addresses behind one slow switch now the one is DEGRADED, then the other.
    """
    rtt_us = max(int(link.rtt_us * SWITCH_GAIN_MIN), link.rtt_us + SWITCH_GAIN_MIN_US)
    is_slow = rtt_us > limits_us.get(link.medium, rtt_us)
    return replace(link, rtt_us=rtt_us, state=LinkState.DEGRADED if is_slow else link.state)
