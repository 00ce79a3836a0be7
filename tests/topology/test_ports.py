"""Which ports a link passes, by what the ports of all nodes tell."""

from dataclasses import replace

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.graph import CableEnd
from thunderline.cluster.links import Link
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.topology.ports import NOTHING_TOLD, Ports, Told, ports_of
from topology.scenes import A, B, C, link, port

TB, ETH = Medium.THUNDERBOLT, Medium.ETHERNET
A4, B2 = port("a4", "en5", "b2"), port("b2", "en3", "a4")
A5, B3 = port("a5", "en6", "b3"), port("b3", "en4", "a5")
ONE_CABLE: Told = ((A, (A4, port("a6", "en7"))), (B, (B2,)))
TWO_CABLES: Told = ((A, (A4, A5)), (B, (B2, B3)))
# A and B have a cable to C each, and none between them.
BY_WAY_OF_C: Told = ((A, (port("a4", "en5", "c1"),)), (B, (port("b2", "en3", "c2"),)))
BY_WAY_OF_C += ((C, (port("c1", "en1", "a4"), port("c2", "en2", "b2"))),)


def over(leaves: str, arrives: str, medium: Medium = TB) -> Link:
    """From A to B."""
    ends = End(leaves, medium), End(arrives, medium)
    return replace(link(medium, 0.05), path=Path(*ends, *ends[::-1]))


# What ports tell, the interfaces by which packets leave A and arrive at B: the UUIDs of the ports that they pass.
PASSED: dict[str, tuple[Told, Link, tuple[str | None, str | None]]] = {
    "ports of those interfaces": (TWO_CABLES, over("en5", "en3"), ("a4", "b2")),
    "the other cable's": (TWO_CABLES, over("en6", "en4"), ("a5", "b3")),
    "nobody tells of ports": ((), over("en5", "en3"), (None, None)),
    "only the dialled node does": (ONE_CABLE[1:], over("en5", "en3"), (None, "b2")),
    "an Ethernet interface": (ONE_CABLE, over("en0", "en0", ETH), (None, None)),
    "bridges, with one cable between the nodes": (ONE_CABLE, over("bridge0", "bridge0"), ("a4", "b2")),
    "a bridge at one end": (ONE_CABLE, over("bridge0", "en3"), ("a4", "b2")),
    "a bridge at one end, and two cables": (TWO_CABLES, over("bridge0", "en4"), ("a5", "b3")),
    "bridges with two cables: nobody can tell which": (TWO_CABLES, over("bridge0", "bridge0"), (None, None)),
    "bridges, and a cable that only the other node tells of": (
        ((A, (port("a4", "en5"),)), (B, (B2,))),
        over("bridge0", "bridge0"),
        ("a4", "b2"),
    ),
    "a bridge of a node that tells of no ports": (ONE_CABLE[1:], over("bridge0", "en3"), (None, "b2")),
    "bridges without a cable between them": (BY_WAY_OF_C, over("bridge0", "bridge0"), (None, None)),
    "a bridge at the near end, and a port with a cable to elsewhere": (
        BY_WAY_OF_C,
        over("bridge0", "en3"),
        (None, "b2"),
    ),
}


@pytest.mark.parametrize(("told", "one", "expected"), PASSED.values(), ids=PASSED.keys())
def test_a_link_passes(told: Told, one: Link, expected: tuple[str | None, str | None]) -> None:
    assert tuple(found and found.uuid for found in ports_of(told).passed(one)) == expected


def test_the_way_back_passes_the_same_ports() -> None:
    there = over("bridge0", "bridge0")
    back = replace(there, from_node=B, to_node=A)
    assert ports_of(ONE_CABLE).passed(back) == ports_of(ONE_CABLE).passed(there)[::-1]


# What ports tell, the interfaces of a link from A to B: whether the ports say that it cannot be so.
CONTRADICTED: dict[str, tuple[Told, Link, bool]] = {
    "a cable between those ports": (TWO_CABLES, over("en5", "en3"), False),
    "the ports have cables, but not that one": (TWO_CABLES, over("en5", "en4"), True),
    "a third node's bridge is between": (BY_WAY_OF_C, over("en5", "en3"), True),
    "a third node's bridge is between two bridges": (BY_WAY_OF_C, over("bridge0", "bridge0"), True),
    "bridges with two cables between": (TWO_CABLES, over("bridge0", "bridge0"), False),
    "a bridge of a node that tells of no ports": (ONE_CABLE[:1], over("bridge0", "bridge0"), False),
    "Ethernet between nodes without a cable": (BY_WAY_OF_C, over("en0", "en0", ETH), False),
    "the ports see nobody": (((A, (port("a4", "en5"),)), (B, (port("b2", "en3"),))), over("en5", "en3"), False),
    "the ports have no UUIDs": (((A, (port("", "en5", ""),)), (B, (port("", "en3", ""),))), over("en5", "en3"), False),
    "only one node tells of ports": (ONE_CABLE[:1], over("en5", "en3"), False),
    "a hub at the port, with another Mac behind it alone": (
        ((A, (port("a4", "en5", "c1", behind=("Hub",)),)), (B, (port("b2", "en3"),)), (C, (port("c1", "en1"),))),
        over("en5", "en3"),
        True,
    ),
    "and with one whose UUID it does not tell": (
        ((A, (port("a4", "en5", "c1", "", behind=("Hub",)),)), (B, (port("b2", "en3"),)), (C, (port("c1", "en1"),))),
        over("en5", "en3"),
        False,
    ),
}


@pytest.mark.parametrize(("told", "one", "expected"), CONTRADICTED.values(), ids=CONTRADICTED.keys())
def test_ports_contradict_a_link(told: Told, one: Link, expected: bool) -> None:
    ports = ports_of(told)
    assert ports.contradict(one, *ports.passed(one)) is expected


HUB = port("a4", "en5", "b2", "c1", behind=("Hub",))
ENDS: dict[str, tuple[CableEnd, ThunderboltPort | None, bool]] = {
    "by its UUID, whatever its interface is called": (CableEnd(A, "en9", "a4"), HUB, True),
    "by its interface where it has no UUID": (CableEnd(A, "en5"), HUB, True),
    "a UUID that nobody tells any more": (CableEnd(A, "en5", "a9"), None, False),
    "a port with one cable": (CableEnd(B, "en3", "b2"), B2, False),
    "a bridge": (CableEnd(A, "bridge0"), None, True),
    "an interface of a node that tells of no ports": (CableEnd(NodeId("linux"), "thunderbolt0"), None, False),
}


@pytest.mark.parametrize(("end", "found", "takes_several"), ENDS.values(), ids=ENDS.keys())
def test_the_end_of_a_cable(end: CableEnd, found: ThunderboltPort | None, takes_several: bool) -> None:
    ports = ports_of(((A, (HUB,)), (B, (B2,))))
    assert (ports.at(end), ports.takes_several(end)) == (found, takes_several)


def test_nobody_tells_anything() -> None:
    assert ports_of(()) is NOTHING_TOLD == Ports()
