"""Which cables are remembered, for how long, and which of them are lost."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, CableEnd, cable
from thunderline.cluster.links import Link, LinkState
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.topology.cables import REMEMBERED_S, as_now, cables_of, distinct, lost, remembered
from thunderline.topology.ports import NOTHING_TOLD, Ports, ports_of
from topology.scenes import A, B, C, end, link, port

S, M = LinkState, Medium
TB, ETH, VPN = M.THUNDERBOLT, M.ETHERNET, M.VPN
NOW_S, DAY_S = 1_800_000_000.0, 86_400.0


def plugged(mine: str, theirs: str, peer: NodeId = B) -> Cable:
    return cable(CableEnd(A, mine), CableEnd(peer, theirs))


def over(mine: str, theirs: str, address: str = "192.168.4.2", state: LinkState = S.UP) -> Link:
    """From A to B by these interfaces."""
    leaves, arrives = End(mine, TB), End(theirs, TB)
    return replace(link(TB, 0.05, state, address), path=Path(leaves, arrives, arrives, leaves))


FIRST, SECOND = plugged("en5", "en3"), plugged("en6", "en4")


def test_a_cable_is_the_same_from_both_sides() -> None:
    there = over("en5", "en3")
    back = replace(there, from_node=B, to_node=A, path=Path(End("en3", TB), End("en5", TB)))
    assert cables_of([there, back]) == {FIRST}


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(over("en5", "en3", state=S.DOWN), id="DOWN"),
        pytest.param(link(ETH, 0.1), id="of another medium"),
        pytest.param(replace(over("en5", "en3"), path=Path(arrives=end(TB))), id="of which one end is not known"),
        pytest.param(
            replace(over("en5", "en3"), path=Path(End("en5", TB), End("en3", TB), End("en4", TB))),
            id="that goes there by one cable and back by another",
        ),
    ],
)
def test_no_cable_is_seen_in_a_link(one: Link) -> None:
    assert not cables_of([one])


def test_a_slow_cable_is_a_cable() -> None:
    assert cables_of([over("en5", "en3", state=S.DEGRADED)]) == {FIRST}


def known(mine: str, a_uuid: str, theirs: str, b_uuid: str) -> Cable:
    """Receptacles are as the UUIDs end."""
    return cable(CableEnd(A, mine, a_uuid, a_uuid[1:]), CableEnd(B, theirs, b_uuid, b_uuid[1:]))


A4, A5 = port("a4", "en5", "b2"), port("a5", "en6", "b3")
B2, B3 = port("b2", "en3", "a4"), port("b3", "en4", "a5")
TWO = ports_of(((A, (A4, A5)), (B, (B2, B3))))
ONE = ports_of(((A, (A4, port("a5", "en6"))), (B, (B2, port("b3", "en4")))))
# Before A has looked again: en5 and en6 have traded names since.
OLD_NAMES = ports_of(((A, (port("a4", "en6", "b2"), port("a5", "en5", "b3"))), (B, (B2, B3))))
BY_C = ports_of(
    ((A, (port("a4", "en5", "c1"),)), (B, (port("b2", "en3", "c2"),)), (C, (port("c1", "en1"), port("c2", "en2"))))
)
KNOWN, OTHER = known("en5", "a4", "en3", "b2"), known("en6", "a5", "en4", "b3")
BRIDGED = plugged("bridge0", "bridge0")

# Ports, a link from A to B: the cables that carry it.
CARRYING: dict[str, tuple[Ports, Link, set[Cable]]] = {
    "of ports that are told": (TWO, over("en5", "en3"), {KNOWN}),
    "of which one is told": (
        ports_of(((A, (A4,)),)),
        over("en5", "en3"),
        {cable(CableEnd(A, "en5", "a4", "4"), CableEnd(B, "en3"))},
    ),
    "over a bridge, with one cable there": (ONE, over("bridge0", "bridge0"), {KNOWN}),
    "over a bridge, with two": (TWO, over("bridge0", "bridge0"), {BRIDGED}),
    "over a bridge of nodes that tell of no ports": (NOTHING_TOLD, over("bridge0", "bridge0"), {BRIDGED}),
    "by names that ports had before": (OLD_NAMES, over("en5", "en3"), set()),
    "by way of a third node's bridge": (BY_C, over("en5", "en3"), set()),
    "by way of it, from bridge to bridge": (BY_C, over("bridge0", "bridge0"), set()),
    "over a bridge of ports without UUIDs": (
        ports_of(((A, (port("", "en5", ""),)), (B, (port("", "en3", ""),)))),
        over("bridge0", "bridge0"),
        {BRIDGED},
    ),
}


@pytest.mark.parametrize(("ports", "one", "expected"), CARRYING.values(), ids=CARRYING.keys())
def test_a_link_is_carried(ports: Ports, one: Link, expected: set[Cable]) -> None:
    assert cables_of([one], ports) == expected


# Remembered with the days since they were seen, seen now: remembered after that, with theirs.
MEMORY: dict[str, tuple[dict[Cable, float], set[Cable], dict[Cable, float]]] = {
    "a first one": ({}, {FIRST}, {FIRST: 0}),
    "seen again": ({FIRST: 3}, {FIRST}, {FIRST: 0}),
    "gone": ({FIRST: 3}, set(), {FIRST: 3}),
    "gone for a month": ({FIRST: 31}, set(), {}),
    "back after a month": ({FIRST: 31}, {FIRST}, {FIRST: 0}),
    "two": ({FIRST: 3}, {FIRST, SECOND}, {FIRST: 0, SECOND: 0}),
    "one of two gone": ({FIRST: 3, SECOND: 3}, {SECOND}, {FIRST: 3, SECOND: 0}),
    "moved at one end": ({FIRST: 3}, {plugged("en5", "en4")}, {plugged("en5", "en4"): 0}),
    "moved at both": ({FIRST: 3}, {SECOND}, {SECOND: 0}),
    "to another node": ({FIRST: 3}, {plugged("en5", "en3", C)}, {plugged("en5", "en3", C): 0}),
    "a new one to another node": ({FIRST: 3}, {plugged("en6", "en3", C)}, {FIRST: 3, plugged("en6", "en3", C): 0}),
    "the one that is gone for longest was moved": (
        {FIRST: 3, SECOND: 5},
        {plugged("en7", "en7")},
        {FIRST: 3, plugged("en7", "en7"): 0},
    ),
}


@pytest.mark.parametrize(("earlier", "here", "expected"), MEMORY.values(), ids=MEMORY.keys())
def test_memory(earlier: dict[Cable, float], here: set[Cable], expected: dict[Cable, float]) -> None:
    before = {one: NOW_S - days * DAY_S for one, days in earlier.items()}
    found = remembered(before, here, NOW_S)
    assert found == {one: NOW_S - days * DAY_S for one, days in expected.items()}
    assert remembered(found, here, NOW_S) == found
    assert REMEMBERED_S == 30 * DAY_S


HUB = ports_of(((A, (port("a4", "en5", "b2", "c1", behind=("Hub",)),)),))
TO_C = cable(CableEnd(A, "en5", "a4", "4"), CableEnd(C, "en1", "c1", "1"))

# Remembered, seen now, ports: remembered after that.
SAME: dict[str, tuple[set[Cable], set[Cable], Ports, set[Cable]]] = {
    "its ports become known": ({FIRST}, {KNOWN}, NOTHING_TOLD, {KNOWN}),
    "the port of one end does": (
        {FIRST},
        {cable(CableEnd(A, "en5", "a4", "4"), CableEnd(B, "en3"))},
        NOTHING_TOLD,
        {cable(CableEnd(A, "en5", "a4", "4"), CableEnd(B, "en3"))},
    ),
    "its ports are not told any more": ({KNOWN}, {FIRST}, NOTHING_TOLD, {KNOWN}),
    "interfaces have other names after a reboot": (
        {KNOWN},
        {known("en9", "a4", "en8", "b2")},
        NOTHING_TOLD,
        {known("en9", "a4", "en8", "b2")},
    ),
    "two ports have traded the names of their interfaces": (
        {KNOWN, OTHER},
        {known("en6", "a4", "en3", "b2"), known("en5", "a5", "en4", "b3")},
        NOTHING_TOLD,
        {known("en6", "a4", "en3", "b2"), known("en5", "a5", "en4", "b3")},
    ),
    "a bridge's port becomes known": ({BRIDGED}, {KNOWN}, ONE, {KNOWN}),
    "two that might be meant": (
        {known("en5", "a4", "en3", "b2"), known("en5", "a5", "en3", "b3")},
        {FIRST},
        NOTHING_TOLD,
        {FIRST},
    ),
    "a port that now has another cable": ({KNOWN}, {TO_C}, NOTHING_TOLD, {TO_C}),
    "another interface has the name while ports are not told": (
        {KNOWN, OTHER},
        {cable(CableEnd(A, "en6"), CableEnd(B, "en3", "b2", "2"))},
        NOTHING_TOLD,
        {cable(CableEnd(A, "en6"), CableEnd(B, "en3", "b2", "2")), OTHER},
    ),
    "a port with a hub has both": ({KNOWN}, {TO_C}, HUB, {KNOWN, TO_C}),
    "a port with a hub, and the other end was moved": (
        {KNOWN},
        {known("en5", "a4", "en4", "b3")},
        HUB,
        {known("en5", "a4", "en4", "b3")},
    ),
}


@pytest.mark.parametrize(("earlier", "here", "ports", "expected"), SAME.values(), ids=SAME.keys())
def test_one_cable_is_remembered_once(
    earlier: set[Cable], here: set[Cable], ports: Ports, expected: set[Cable]
) -> None:
    found = remembered(dict.fromkeys(earlier, NOW_S), here, NOW_S, ports)
    assert found.keys() == expected
    assert remembered(found, here, NOW_S, ports) == found


def test_a_cable_is_forgotten_when_only_the_one_that_took_its_place_is_left() -> None:
    """Of the two directions one shows the new interface before the other does."""
    moved = known("en5", "a4", "en4", "b3")
    for ports in (NOTHING_TOLD, HUB):
        during = remembered({KNOWN: NOW_S}, {KNOWN, moved}, NOW_S, ports)
        assert during.keys() == {KNOWN, moved}
        assert remembered(during, {moved}, NOW_S, ports).keys() == {moved}


@pytest.mark.parametrize(
    ("cables", "expected"),
    [
        pytest.param([FIRST, SECOND], (FIRST, SECOND), id="two"),
        pytest.param([FIRST, KNOWN], (KNOWN,), id="one, of which one node does not know the ports"),
        pytest.param([KNOWN, OTHER, FIRST, SECOND], (KNOWN, OTHER), id="two of them"),
        pytest.param([KNOWN, known("en9", "a4", "en3", "b2")], (KNOWN,), id="one by two names"),
    ],
)
def test_of_what_several_nodes_remember_each_cable_is_told_once(
    cables: list[Cable], expected: tuple[Cable, ...]
) -> None:
    assert distinct(cables) == expected
    assert distinct(cables[::-1]) == expected


def test_a_cable_is_told_with_the_names_of_today() -> None:
    assert as_now(known("en9", "a4", "en8", "b2"), TWO) == KNOWN
    assert as_now(KNOWN, NOTHING_TOLD) == KNOWN
    # Which port an interface belonged to, when nobody told, nobody knows.
    assert as_now(FIRST, TWO) == FIRST


LAN = link(ETH, 0.5)
BOTH = (A, B)
# Links, who is ALIVE: which of the remembered are lost.
LOST: dict[str, tuple[list[Link], Collection[NodeId], tuple[Cable, ...]]] = {
    "plugged in": ([over("en5", "en3"), over("en6", "en4", "192.168.5.2"), LAN], BOTH, ()),
    "both gone, and a LAN": ([LAN], BOTH, (FIRST, SECOND)),
    "one gone, and the other": ([over("en5", "en3")], BOTH, (SECOND,)),
    "both gone, and a VPN": ([link(VPN, 50)], BOTH, (FIRST, SECOND)),
    "one DOWN": ([over("en5", "en3", state=S.DOWN), over("en6", "en4", "192.168.5.2")], BOTH, (FIRST,)),
    "one slow": ([over("en5", "en3", state=S.DEGRADED), over("en6", "en4", "192.168.5.2")], BOTH, ()),
    "nothing else answers": ([over("en5", "en3", state=S.DOWN)], BOTH, ()),
    "the peer is not ALIVE": ([LAN], (A,), ()),
    "a port has another cable": ([over("en5", "en7")], BOTH, (SECOND,)),
}


@pytest.mark.parametrize(("links", "alive", "expected"), LOST.values(), ids=LOST.keys())
def test_cables_that_are_lost(links: list[Link], alive: Collection[NodeId], expected: tuple[Cable, ...]) -> None:
    assert lost([FIRST, SECOND], links, alive) == expected


# Links, remembered cables, ports: which of the cables are lost. A LAN joins the nodes too.
LOST_OF_MACS: dict[str, tuple[list[Link], list[Cable], Ports, list[Cable]]] = {
    "one of two": ([over("en5", "en3")], [KNOWN, OTHER], TWO, [OTHER]),
    "none, by whatever name": ([over("en5", "en3")], [known("en9", "a4", "en8", "b2")], ONE, []),
    "none, while names are those of before": (
        [over("en5", "en3"), over("en6", "en4", "192.168.5.2")],
        [KNOWN, OTHER],
        OLD_NAMES,
        [],
    ),
    "a bridge carries it": ([over("bridge0", "bridge0")], [KNOWN], ONE, []),
    "a bridge may carry either": ([over("bridge0", "bridge0")], [KNOWN, OTHER], TWO, []),
    "a bridge carries the other one": ([over("bridge0", "bridge0")], [KNOWN, OTHER], ONE, [OTHER]),
    "a third node's bridge stands in": (
        [over("bridge0", "bridge0")],
        [KNOWN],
        ports_of(((A, (port("a4", "en5"), port("a5", "en6", "c1"))), (B, (port("b2", "en3"),)))),
        [KNOWN],
    ),
    "its end has another cable": (
        [replace(over("en5", "en1"), to_node=C)],
        [KNOWN],
        ports_of(((A, (port("a4", "en5", "c1"),)), (C, (port("c1", "en1", "a4"),)))),
        [],
    ),
    "its end has another one, of the same hub": ([replace(over("en5", "en1"), to_node=C)], [KNOWN, TO_C], HUB, [KNOWN]),
}


@pytest.mark.parametrize(("links", "cables", "ports", "expected"), LOST_OF_MACS.values(), ids=LOST_OF_MACS.keys())
def test_cables_of_macs_that_are_lost(
    links: list[Link], cables: list[Cable], ports: Ports, expected: list[Cable]
) -> None:
    assert lost(cables, [*links, LAN], (A, B, C), ports) == tuple(expected)


# Two ends of one node: whether they are one.
ENDS: dict[str, tuple[CableEnd, CableEnd, bool]] = {
    "one port": (CableEnd(A, "en5", "u1"), CableEnd(A, "en5", "u1"), True),
    "one port, whose interface has another name": (CableEnd(A, "en5", "u1"), CableEnd(A, "en6", "u1"), True),
    "two ports, which have traded names": (CableEnd(A, "en5", "u1"), CableEnd(A, "en5", "u2"), False),
    "a port that is told only now": (CableEnd(A, "en5"), CableEnd(A, "en5", "u1"), True),
    "another interface, whose port nobody tells": (CableEnd(A, "en5", "u1"), CableEnd(A, "en6"), False),
    "another node": (CableEnd(A, "en5", "u1"), CableEnd(B, "en5", "u1"), False),
}


@pytest.mark.parametrize(("one", "other", "is_same"), ENDS.values(), ids=ENDS.keys())
def test_an_end_is_the_same_by_its_port(one: CableEnd, other: CableEnd, is_same: bool) -> None:
    assert one.is_same(other) is is_same
    assert other.is_same(one) is is_same
