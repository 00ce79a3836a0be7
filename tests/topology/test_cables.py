"""Which cables are remembered, for how long, and which of them are lost."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, CableEnd, cable
from thunderline.cluster.links import Link, LinkState
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.topology.cables import REMEMBERED_S, cables_of, lost, remembered
from topology.scenes import A, B, C, end, link

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
    assert cables_of([there, back], {}) == {FIRST}


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
    assert not cables_of([one], {})


def test_a_slow_cable_is_a_cable() -> None:
    assert cables_of([over("en5", "en3", state=S.DEGRADED)], {}) == {FIRST}


def test_ports_give_an_end_its_uuid_and_receptacle() -> None:
    [found] = cables_of([over("en5", "en3")], {(A, "en5"): ("uuid-a", "4")})
    assert found == cable(CableEnd(A, "en5", "uuid-a", "4"), CableEnd(B, "en3"))


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
    known = {one: NOW_S - days * DAY_S for one, days in earlier.items()}
    found = remembered(known, here, NOW_S)
    assert found == {one: NOW_S - days * DAY_S for one, days in expected.items()}
    assert remembered(found, here, NOW_S) == found
    assert REMEMBERED_S == 30 * DAY_S


def test_a_cable_whose_port_becomes_known_is_one_cable() -> None:
    known = cable(CableEnd(A, "en5", "uuid-a", "4"), CableEnd(B, "en3", "uuid-b", "2"))
    assert remembered({FIRST: NOW_S}, {known}, NOW_S) == {known: NOW_S}
    renamed = cable(CableEnd(A, "en9", "uuid-a", "4"), CableEnd(B, "en9", "uuid-b", "2"))
    assert remembered({known: NOW_S}, {renamed}, NOW_S) == {renamed: NOW_S}


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
