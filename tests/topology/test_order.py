"""The link order and the choice, as tables; that the order is one, over all classes and over drawn links."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderline.cluster.addresses import is_ipv4, parse
from thunderline.cluster.links import (
    RTT_LIMITS_US,
    SWITCH_GAIN_MIN,
    SWITCH_GAIN_MIN_US,
    Link,
    LinkId,
    LinkState,
    Mark,
    believed,
    choose,
    data_path,
    in_order,
    link_key,
    tier,
)
from thunderline.cluster.media import ORDER, Medium
from thunderline.topology.health import DEGRADED_AFTER_COUNT, answered
from thunderline.v1 import topology_pb2
from topology.scenes import ADDRESSES, A, B, link

M, S = Medium, LinkState
TB, ETH, WIFI, VPN, LO, OTHER = M.THUNDERBOLT, M.ETHERNET, M.WIFI, M.VPN, M.LOOPBACK, M.OTHER
# One on each side of every limit.
RTTS_MS = (0.05, 0.5, 4.9, 5.1, 9.9, 10.1, 30.0, 49.9, 50.1, 400.0)
CLASSES = [link(*one) for one in itertools.product(M, RTTS_MS, S)]
# A cable's own address, one of nobody's network, and IPv6.
KINDS = ("169.254.7.2", "8.8.4.4", "fd00::2", "10.1.1.2")
ALL = [
    one
    for made in CLASSES
    for one in (made, *(replace(made, address=address) for address in KINDS))
    # A VPN has no limit that it could miss.
    if (one.medium, one.state) != (VPN, S.DEGRADED)
]


def name(one: Link) -> str:
    return f"{one.medium.name} {one.state.name} {one.rtt_us / 1000:g} ms"


def before(one: Link, other: Link) -> bool:
    return link_key(one) < link_key(other)


def test_states_are_numbered_as_on_the_wire() -> None:
    wire = {name.removeprefix("LINK_STATE_"): number for name, number in topology_pb2.LinkState.items()}
    assert {name: wire[name] for name in S.__members__} == {one.name: one.value for one in S}


# The RTTs in ms up to which a DEGRADED link counts as a medium; above all of them as VPN.
COUNTS_AS: dict[Medium, list[tuple[float, Medium]]] = {
    TB: [(5, TB), (10, ETH), (50, WIFI)],
    ETH: [(10, ETH), (50, WIFI)],
    WIFI: [(50, WIFI)],
    VPN: [],
    OTHER: [],
    # Without a limit of its own it never gets DEGRADED.
    LO: [(5, TB), (10, ETH), (50, WIFI)],
}


@pytest.mark.parametrize("one", CLASSES, ids=name)
def test_a_link_counts_as(one: Link) -> None:
    assert tier(one) is counts_as(one)


# The better of two, and the other.
ROWS: dict[str, tuple[Link, Link]] = {
    "a cable on 169.254 beats a LAN": (link(TB, 0.6, address="169.254.7.2"), link(ETH, 0.1)),
    "a LAN beats Tailscale among equals": (link(ETH, 0.5), link(VPN, 0.5)),
    "a slow LAN that is UP beats a fast Tailscale": (link(ETH, 9.0), link(VPN, 0.5)),
    "a cable at 6 ms beats a VPN": (link(TB, 6, S.DEGRADED), link(VPN, 0.5)),
    "a cable at 6 ms counts as Ethernet, and comes after one that is UP": (link(ETH, 9), link(TB, 6, S.DEGRADED)),
    "a cable at 6 ms beats Wi-Fi": (link(TB, 6, S.DEGRADED), link(WIFI, 2)),
    "Ethernet at 0.5 ms beats a cable at 40 ms": (link(ETH, 0.5), link(TB, 40, S.DEGRADED)),
    "a cable at 40 ms beats a VPN at 40 ms": (link(TB, 40, S.DEGRADED), link(VPN, 40)),
    "a cable at 60 ms is no better than a VPN at 50 ms": (link(VPN, 50), link(TB, 60, S.DEGRADED)),
    "nor worse than one at 70 ms": (link(TB, 60, S.DEGRADED), link(VPN, 70)),
    "a cable that is not DEGRADED yet is a cable": (link(TB, 40), link(ETH, 0.5)),
    "a cable that is DEGRADED still, and fast again, beats a LAN": (link(TB, 0.6, S.DEGRADED), link(ETH, 0.1)),
    "and comes after another cable": (link(TB, 4.9), link(TB, 0.6, S.DEGRADED, "192.168.5.2")),
    "what nobody knows beats a VPN": (link(OTHER, 400), link(VPN, 1)),
    "Wi-Fi at a steady 30 ms beats what nobody knows": (link(WIFI, 30), link(OTHER, 0.1)),
    "one's own machine is the nearest": (link(LO, 1), link(TB, 0.1)),
    "whatever answers beats what is DOWN": (link(VPN, 400), link(LO, 0.01, S.DOWN)),
    "a private address before a public one": (link(ETH, 9), link(ETH, 0.1, address="8.8.4.4")),
    "a private address before the cable's own": (link(TB, 0.7), link(TB, 0.3, address="169.254.7.2")),
    "a private address before IPv6": (link(ETH, 9), link(ETH, 0.1, address="fd00::2")),
    "among VPNs an address says nothing": (link(VPN, 20, address="8.8.4.4"), link(VPN, 21, address="10.0.0.2")),
    "then the faster": (link(WIFI, 3), link(WIFI, 4, address="192.168.2.1")),
    "then the lower address, as a number": (link(ETH, 1, address="10.0.0.9"), link(ETH, 1, address="10.0.0.10")),
    "IPv4 before IPv6": (link(ETH, 1, address="8.8.4.4"), link(ETH, 1, address="::1:1")),
    "then the name of the interface": (link(ETH, 1, local_interface="en0"), link(ETH, 1, local_interface="en4")),
}


@pytest.mark.parametrize(("better", "worse"), ROWS.values(), ids=ROWS.keys())
def test_the_order_of_two(better: Link, worse: Link) -> None:
    assert before(better, worse)
    assert not before(worse, better)


BEST_FIRST = [LO, TB, ETH, WIFI, OTHER, VPN]
OWN_NETWORKS = ("10.", "192.168.")


def counts_as(one: Link) -> Medium:
    steps = COUNTS_AS[one.medium] if one.state is S.DEGRADED else [(float("inf"), one.medium)]
    return next((medium for limit_ms, medium in steps if one.rtt_us <= limit_ms * 1000), VPN)


def comes_before(one: Link, other: Link) -> bool:
    """The order once more, criterion by criterion, as README.md says it."""
    if S.DOWN in (one.state, other.state) and one.state is not other.state:
        return other.state is S.DOWN
    first, second = counts_as(one), counts_as(other)
    if first is not second:
        return BEST_FIRST.index(first) < BEST_FIRST.index(second)
    if first is not VPN:
        if one.state is not other.state:
            return one.state is S.UP
        is_own = [each.address.startswith(OWN_NETWORKS) for each in (one, other)]
        if is_own[0] is not is_own[1]:
            return is_own[0]
    if one.rtt_us != other.rtt_us:
        return one.rtt_us < other.rtt_us
    addresses = [ip_address(each.address) for each in (one, other)]
    if addresses[0] != addresses[1]:
        return (addresses[0].version, int(addresses[0])) < (addresses[1].version, int(addresses[1]))
    return one.local_interface < other.local_interface


def test_the_order_over_every_pair_of_classes_is_the_one_that_is_written_down() -> None:
    """Keys of tuples are antisymmetric and transitive by themselves; that no two are equal makes the order total."""
    keyed = [(link_key(one), one) for one in ALL]
    assert len({key for key, _ in keyed}) == len(ALL)
    wrong = [
        (name(one), one.address, name(other), other.address)
        for (key, one), (other_key, other) in itertools.combinations(keyed, 2)
        if (key < other_key) is not comes_before(one, other)
    ]
    assert wrong == []


ADDRESS = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number))),
    st.integers(0, 2**128 - 1).map(lambda number: str(IPv6Address(number))),
    st.sampled_from([*KINDS, *(pair[0] for pair in ADDRESSES.values())]),
)
LINK = st.builds(
    link,
    st.sampled_from(M),
    st.sampled_from(RTTS_MS) | st.floats(0, 500),
    st.sampled_from(S),
    ADDRESS,
    st.sampled_from(["en0", "en1", "utun3"]),
)


@given(LINK, LINK, LINK)
def test_three_links_stand_in_one_line(one: Link, two: Link, three: Link) -> None:
    assert before(one, two) + before(two, one) + (link_key(one) == link_key(two)) == 1
    assert not (before(one, two) and before(two, three)) or before(one, three)
    assert in_order([one, two, three]) == in_order([three, one, two]) or len({one.id, two.id, three.id}) < 3


@given(LINK, LINK)
def test_links_that_are_alike_in_the_order_have_the_same_address(one: Link, two: Link) -> None:
    if link_key(one) == link_key(two):
        assert parse(one.address) == parse(two.address)


@given(LINK, st.integers(0, 100_000))
def test_a_slower_link_is_never_better(one: Link, more_us: int) -> None:
    assert not before(replace(one, rtt_us=one.rtt_us + more_us + 1), one)


@given(st.lists(LINK, min_size=1, max_size=6, unique_by=lambda one: one.id))
def test_ipv6_and_vpn_never_carry_data_while_another_is_up(links: list[Link]) -> None:
    found = data_path(links)
    assert found is None or is_ipv4(found.address)
    if any(one.state is S.UP and is_ipv4(one.address) and one.medium is not VPN for one in links):
        assert found is not None and found.medium is not VPN


DATA: dict[str, tuple[list[Link], Link | None]] = {
    "nothing without links": ([], None),
    "nothing over a link that is DOWN": ([link(TB, 1, S.DOWN)], None),
    "nothing over IPv6 alone": ([link(TB, 1, address="fd00::2")], None),
    "a LAN before a cable that has IPv6 only": ([link(TB, 1, address="fd00::2"), link(ETH, 1)], link(ETH, 1)),
    "a VPN when nothing else answers": ([link(TB, 1, S.DOWN), link(VPN, 50)], link(VPN, 50)),
    "a link that is DEGRADED and not too slow before a VPN": (
        [link(WIFI, 49, S.DEGRADED), link(VPN, 5)],
        link(WIFI, 49, S.DEGRADED),
    ),
}


@pytest.mark.parametrize(("links", "expected"), DATA.values(), ids=DATA.keys())
def test_data_goes_by(links: list[Link], expected: Link | None) -> None:
    assert data_path(links) == expected


SECOND = "192.168.1.9"
# The links of another node, the addresses to which it says that its connections go: what is shown.
TOLD: dict[str, tuple[list[Link], list[str], Link | None]] = {
    "what it tells, though another is better": ([link(TB, 0.05), link(VPN, 50)], ["100.64.0.2"], link(VPN, 50)),
    "the first when it tells none": ([link(VPN, 50), link(TB, 0.05)], [], link(TB, 0.05)),
    "the first when what it tells is no link": ([link(VPN, 50), link(TB, 0.05)], ["10.1.1.2"], link(TB, 0.05)),
    "the first when what it tells is DOWN": (
        [link(TB, 0.05, S.DOWN), link(ETH, 1), link(VPN, 50)],
        ["192.168.4.2"],
        link(ETH, 1),
    ),
    "the first of two that it tells": ([link(VPN, 50), link(TB, 0.05)], ["100.64.0.2", "192.168.4.2"], link(TB, 0.05)),
    "none when nothing answers": ([link(TB, 0.05, S.DOWN)], ["192.168.4.2"], None),
}


@pytest.mark.parametrize(("links", "told", "expected"), TOLD.values(), ids=TOLD.keys())
def test_connections_of_another_node_go_by(links: list[Link], told: list[str], expected: Link | None) -> None:
    assert believed(links, {LinkId(A, B, address) for address in told}) == expected


# What is in use, what answers beside it: which is used next.
CHOICES: dict[str, tuple[Link | None, list[Link], Link | None]] = {
    "nothing answers": (None, [], None),
    "the first one at the begin": (None, [link(VPN, 50), link(TB, 0.05)], link(TB, 0.05)),
    "the first one when that in use is gone": (link(TB, 0.05), [link(VPN, 50), link(ETH, 1)], link(ETH, 1)),
    "the first one when that in use is DOWN": (link(TB, 1, S.DOWN), [link(TB, 1, S.DOWN), link(VPN, 9)], link(VPN, 9)),
    "the cable as soon as it is back": (link(VPN, 50), [link(VPN, 50), link(TB, 0.05)], link(TB, 0.05)),
    "not for 19 %": (link(ETH, 1.19), [link(ETH, 1.19), link(ETH, 1, address=SECOND)], link(ETH, 1.19)),
    "for 21 %": (link(ETH, 1.21), [link(ETH, 1.21), link(ETH, 1, address=SECOND)], link(ETH, 1, address=SECOND)),
    "not for noise": (link(TB, 0.1), [link(TB, 0.1), link(TB, 0.05, address="192.168.4.9")], link(TB, 0.1)),
    "by class, though it is slower": (link(WIFI, 1), [link(WIFI, 1), link(ETH, 8)], link(ETH, 8)),
    "not by class for one that is nearly too slow for it": (
        link(WIFI, 1),
        [link(WIFI, 1), link(ETH, 9)],
        link(WIFI, 1),
    ),
    "for one that is nearly too slow, and good even then": (
        link(VPN, 50),
        [link(VPN, 50), link(TB, 4.9)],
        link(TB, 4.9),
    ),
    "one that is UP before one that is not": (
        link(ETH, 1, S.DEGRADED),
        [link(ETH, 1, S.DEGRADED), link(ETH, 2, address=SECOND)],
        link(ETH, 2, address=SECOND),
    ),
    "not for one that is UP, and as slow": (
        link(ETH, 10.2, S.DEGRADED),
        [link(ETH, 10.2, S.DEGRADED), link(ETH, 9.97, address="fd00::2")],
        link(ETH, 10.2, S.DEGRADED),
    ),
    "away from a cable that got slow": (
        link(TB, 40, S.DEGRADED),
        [link(TB, 40, S.DEGRADED), link(ETH, 1)],
        link(ETH, 1),
    ),
    "away from one that counts as Wi-Fi now": (
        link(TB, 10.1, S.DEGRADED),
        [link(TB, 10.1, S.DEGRADED), link(WIFI, 5)],
        link(WIFI, 5),
    ),
    "not back to one that barely counts as Ethernet": (
        link(WIFI, 5),
        [link(WIFI, 5), link(TB, 9.5, S.DEGRADED)],
        link(WIFI, 5),
    ),
    "back to one that clearly does": (
        link(WIFI, 5),
        [link(WIFI, 5), link(TB, 8, S.DEGRADED)],
        link(TB, 8, S.DEGRADED),
    ),
    "a third one, when the best is not clearly better": (
        link(WIFI, 30),
        [link(WIFI, 30), link(TB, 9.5, S.DEGRADED), link(WIFI, 5, address="192.168.2.9")],
        link(WIFI, 5, address="192.168.2.9"),
    ),
}


@pytest.mark.parametrize(("current", "links", "expected"), CHOICES.values(), ids=CHOICES.keys())
def test_connections_go_by(current: Link | None, links: list[Link], expected: Link | None) -> None:
    for order in itertools.permutations(links):
        assert choose(order, current.id if current else None) == expected


@given(st.lists(LINK, max_size=6, unique_by=lambda one: one.id), st.integers(0, 5))
def test_a_choice_is_made_once(links: list[Link], number: int) -> None:
    """As long as nothing changes the second choice is the first, and never worse than what was in use."""
    current = links[number].id if number < len(links) else None
    found = choose(links, current)
    assert choose(links, found.id if found else None) == found
    held = next((one for one in links if one.id == current and one.state is not S.DOWN), None)
    if held is not None:
        assert found is not None and not before(held, found)


@dataclass(frozen=True)
class Scattering:
    """A link whose RTTs stay within the margin. Each lasts as long as it takes to be DEGRADED by it."""

    medium: Medium
    address: str
    rtts_us: list[int]

    def links(self) -> Iterator[Link]:
        """After each answer."""
        health = None
        for rtt_us in itertools.chain.from_iterable([one] * DEGRADED_AFTER_COUNT for one in self.rtts_us):
            health = answered(health, rtt_us, self.medium)
            yield replace(link(self.medium, 0, health.state, self.address), rtt_us=health.rtt_us)


@st.composite
def idle(draw: st.DrawFn) -> tuple[Medium, int]:
    """The least RTT of a link: any, or such that the limit is among those that come."""
    medium = draw(st.sampled_from([*RTT_LIMITS_US, *M]))
    limit_us = RTT_LIMITS_US.get(medium, 50_000)
    return medium, draw(st.integers(int(limit_us / SWITCH_GAIN_MIN), limit_us) | st.integers(1, 500_000))


@st.composite
def scattering(draw: st.DrawFn, addresses: list[str]) -> list[Scattering]:
    """Most of them behind one switch."""
    found, switch = [], st.just(draw(idle()))
    for address in addresses:
        medium, least_us = draw(switch | switch | idle())
        most_us = max(int(least_us * SWITCH_GAIN_MIN), least_us + SWITCH_GAIN_MIN_US)
        rtt = st.sampled_from([least_us, most_us]) | st.integers(least_us, most_us)
        found.append(Scattering(medium, address, draw(st.lists(rtt, min_size=4, max_size=4))))
    return found


@settings(max_examples=500)
@given(st.lists(ADDRESS, min_size=2, max_size=4, unique_by=parse).flatmap(scattering))
def test_none_that_was_left_is_chosen_again_while_rtts_scatter_within_the_margin(links: list[Scattering]) -> None:
    """So of two the choice changes at most once."""
    held, seen = None, []
    for now in zip(*(one.links() for one in links), strict=True):
        found = choose(now, held)
        assert found is not None
        if found.id != held:
            held = found.id
            seen.append(found.address)
    assert len(seen) == len(set(seen)), seen


def test_a_rival_of_the_same_class_needs_its_margin() -> None:
    assert SWITCH_GAIN_MIN == 1.2 and SWITCH_GAIN_MIN_US == 100
    assert [RTT_LIMITS_US.get(one) for one in ORDER] == [None, 5_000, 10_000, 50_000, None, None]


def test_an_address_that_the_peers_card_does_not_tell_is_never_used() -> None:
    """Anybody may say a peer's name to an echo, and answer to it at an address of their own."""
    told = link(ETH, 0.5)
    said = replace(link(TB, 0.01, address="10.0.0.66"), marks=frozenset({Mark.UNADVERTISED}))
    assert choose([said], None) is None and data_path([said]) is None
    assert choose([said, told], said.id) == told == data_path([said, told])
