"""Over which link and address one node dials another, and what to say where it cannot. Pure.

MLX dials IPv4 only, unbound: a link is what a probe has crossed the same way.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import address_key, is_ipv4
from thunderline.cluster.graph import Outcome, Tried
from thunderline.cluster.links import Link, LinkKey, LinkState, Mark, in_order, link_key, tier
from thunderline.cluster.media import ORDER, Medium
from thunderline.scheduler.placing.values import Measured, Minimum, Policy, Situation

Pair = tuple[NodeId, NodeId]

# What `require-fast` lets through; LOOPBACK is no network at all.
FAST = {Medium.LOOPBACK, Medium.THUNDERBOLT, Medium.ETHERNET}
# The coordinator carries a few bytes once, and should not hang on the fabric that it sets up.
COORDINATOR_ORDER = (
    Medium.LOOPBACK,
    Medium.ETHERNET,
    Medium.WIFI,
    Medium.OTHER,
    Medium.THUNDERBOLT,
    Medium.VPN,
)


class Quality(NamedTuple):
    """Sorts the better first: whether it misses its minimums, what it counts as, whether it is DEGRADED."""

    is_below: bool
    tier: int
    is_degraded: bool


class Cost(NamedTuple):
    quality: Quality
    rtt_us: int


@dataclass(frozen=True, slots=True)
class Way:
    """The link by which one node dials another."""

    link: Link
    cost: Cost


def below(link: Link, minimums: Mapping[Medium, Minimum], measured: Measured | None) -> str:
    """Why it does not meet the minimums of its medium; "" where it does."""
    if link.medium is Medium.LOOPBACK:
        return ""
    minimum = minimums.get(link.medium)
    if minimum is None:
        return f"{link.medium.name} has no minimum that it could meet"
    rtt_us = (measured.rtt_us if measured else 0) or link.rtt_us
    if rtt_us > minimum.rtt_us:
        return f"RTT {_ms(rtt_us)}, at most {_ms(minimum.rtt_us)} for {link.medium.name}"
    if measured and 0 < measured.bits_per_s < minimum.bits_per_s:
        return f"{_gbps(measured.bits_per_s)}, at least {_gbps(minimum.bits_per_s)} for {link.medium.name}"
    return ""


def describe(link: Link) -> str:
    """ "192.168.4.2 (THUNDERBOLT, en5, 0.45 ms, UP)"."""
    interface = f"{link.local_interface}, " if link.local_interface else ""
    return f"{link.address} ({link.medium.name}, {interface}{_ms(link.rtt_us)}, {link.state.name})"


class Dialling:
    """The ways between these nodes; by pair, in the direction in which they are dialled."""

    def __init__(self, situation: Situation, nodes: Collection[NodeId], policy: Policy) -> None:
        self._graph = situation.graph
        self._policy = policy
        self._measured = situation.measured
        self.links = _by_pair(situation.graph.links, set(nodes))
        self.ways: dict[Pair, Way] = {}
        self._told: dict[Pair, str] = {}
        for pair, links in self.links.items():
            if way := self._way(links):
                self.ways[pair] = way

    def _way(self, links: list[Link]) -> Way | None:
        """The first link of the order that meets its minimums; with none the first of all, where that is allowed."""
        if self._policy.requires_fast:
            links = [one for one in links if not self.too_slow(one)]
            if not links:
                return None
        chosen = next((one for one in links if not self.below(one)), None)
        is_below = chosen is None
        link = chosen or links[0]
        is_degraded = link.state is LinkState.DEGRADED
        return Way(link, Cost(Quality(is_below, ORDER.index(tier(link)), is_degraded), self.rtt_us(link)))

    def below(self, link: Link) -> str:
        return below(link, self._policy.minimums, self._measured.get(link.id))

    def too_slow(self, link: Link) -> str:
        """Why `require-fast` does not let it through; "" where it does."""
        return self.below(link) or ("" if link.medium in FAST else f"{link.medium.name} is none of the fast media")

    def rtt_us(self, link: Link) -> int:
        measured = self._measured.get(link.id)
        return (measured.rtt_us if measured else 0) or link.rtt_us

    def bits_per_s(self, link: Link) -> int:
        """Measured, or else what its medium has at least; 0: nobody knows."""
        measured = self._measured.get(link.id)
        minimum = self._policy.minimums.get(link.medium)
        return (measured.bits_per_s if measured else 0) or (minimum.bits_per_s if minimum else 0)

    def coordinator(self, listener: NodeId, others: Collection[NodeId]) -> str:
        """The address of the listener that all others can dial, the best by the worst of their links; "" with none."""
        found: dict[str, list[LinkKey]] = {}
        for other in others:
            for link in self.links.get((other, listener), ()):
                found.setdefault(link.address, []).append(coordinator_key(link))
        whole = {address: max(keys) for address, keys in found.items() if len(keys) == len(others)}
        return min(whole, key=lambda address: whole[address], default="")

    def evidence(self, pair: Pair) -> str:
        """What is known of every address that the first has of the second."""
        if pair not in self._told:
            rows, links = self._tried.get(pair, []), self._every_link.get(pair, {})
            told = {link.address: self._of_link(link) for link in links.values()}
            told |= {row.address: self._row(row, links.get(row.address)) for row in rows}
            in_order = sorted(told, key=address_key)
            self._told[pair] = "; ".join(told[address] for address in in_order) or "no address is known"
        return self._told[pair]

    @cached_property
    def _tried(self) -> dict[Pair, list[Tried]]:
        found: dict[Pair, list[Tried]] = {}
        for row in self._graph.tried:
            found.setdefault((row.from_node, row.to_node), []).append(row)
        return found

    @cached_property
    def _every_link(self) -> dict[Pair, dict[str, Link]]:
        found: dict[Pair, dict[str, Link]] = {}
        for link in self._graph.links:
            found.setdefault((link.from_node, link.to_node), {})[link.address] = link
        return found

    def _row(self, row: Tried, link: Link | None) -> str:
        if link is not None and link.state is not LinkState.DOWN:
            return self._of_link(link)
        if row.outcome is Outcome.UNTRIED:
            return f"{row.address} was not tried yet"
        errno = f", errno {row.errno}" if row.errno else ""
        down = ", DOWN" if link is not None or row.state is LinkState.DOWN else ""
        return f"{row.address} {row.outcome.name}{errno}{down}"

    def _of_link(self, link: Link) -> str:
        if Mark.UNADVERTISED in link.marks:
            return f"{describe(link)} is not on the card of its node"
        if not is_ipv4(link.address):
            return f"{describe(link)} is IPv6, which MLX does not know"
        why = self.too_slow(link) if self._policy.requires_fast else self.below(link)
        return f"{describe(link)}{f': {why}' if why else ''}"


def coordinator_key(link: Link) -> LinkKey:
    """The link order, with other media first."""
    return link_key(link)._replace(tier=COORDINATOR_ORDER.index(tier(link)))


def _by_pair(links: Iterable[Link], nodes: set[NodeId]) -> dict[Pair, list[Link]]:
    """Those that answer and that MLX can dial, the best first."""
    found: dict[Pair, list[Link]] = {}
    for link in links:
        if link.from_node in nodes and link.to_node in nodes and is_ipv4(link.address):
            found.setdefault((link.from_node, link.to_node), []).append(link)
    return {pair: answering for pair, each in found.items() if (answering := in_order(each))}


def _ms(us: int) -> str:
    return f"{us / 1000:.4g} ms"


def _gbps(bits_per_s: int) -> str:
    return f"{bits_per_s / 1e9:.3g} Gb/s"
