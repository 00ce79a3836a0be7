"""How `links` shows cables of Macs and the rails over them."""

from dataclasses import replace

import pytest

from thunderline.cli.rails import RAIL_COLUMNS, cable_text, rail_row
from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import RdmaPortState
from thunderline.cluster.rails import Rail, RailEnd
from thunderline.v1 import topology_pb2

A, B = NodeId("aaaaaaaa-1111"), NodeId("bbbbbbbb-2222")
NAMES: dict[str, str] = {A: "studio", B: "mini"}
ACTIVE, DOWN, UNKNOWN = RdmaPortState.ACTIVE, RdmaPortState.DOWN, RdmaPortState.UNKNOWN

CABLES: dict[str, tuple[topology_pb2.LinkCable, str]] = {
    "direct": (
        topology_pb2.LinkCable(local_receptacle="3", peer_receptacle="2", speed_gbps=80),
        "3→2, 80 Gb/s direct",
    ),
    "behind a hub": (
        topology_pb2.LinkCable(local_receptacle="2", peer_receptacle="1", speed_gbps=40, behind=["iVANKY"]),
        "2→1, 40 Gb/s behind iVANKY",
    ),
    "behind two": (
        topology_pb2.LinkCable(local_receptacle="2", peer_receptacle="1", behind=["Hub", "Dock 9"]),
        "2→1, behind Hub, Dock 9",
    ),
    "of which one end tells: a dock may not show from there": (
        topology_pb2.LinkCable(local_receptacle="2", speed_gbps=40, one_sided=True),
        "2→?, 40 Gb/s no hub seen",
    ),
    "with something else plugged in at one end": (
        topology_pb2.LinkCable(local_receptacle="2", peer_receptacle="1", hub_unknown=True),
        "2→1, no hub seen",
    ),
    "behind a hub of which one end tells": (
        topology_pb2.LinkCable(local_receptacle="2", peer_receptacle="1", behind=["Hub"], one_sided=True),
        "2→1, behind Hub",
    ),
}


@pytest.mark.parametrize(("cable", "said"), CABLES.values(), ids=CABLES.keys())
def test_a_cable_is_said_as(cable: topology_pb2.LinkCable, said: str) -> None:
    assert cable_text(cable) == said


ONE = RailEnd(A, "rdma_en4", "en4", "uuid-a", "3", ACTIVE)
OTHER = RailEnd(B, "rdma_en3", "en3", "uuid-b", "2", ACTIVE)
RAIL = Rail(ONE, OTHER, 80)


def rail(one: RdmaPortState, other: RdmaPortState) -> Rail:
    return replace(RAIL, one=replace(ONE, state=one), other=replace(OTHER, state=other))


def test_a_row_is_a_rail() -> None:
    assert dict(zip(RAIL_COLUMNS, rail_row(RAIL, NAMES), strict=True)) == {
        "node": "studio",
        "peer": "mini",
        "devices": "rdma_en4 to rdma_en3",
        "cable": "3→2, 80 Gb/s direct",
        "state": "ACTIVE",
        "seen by": "both ends",
        "why not usable": "",
    }


# States of both ends, whether one alone sees the other: state, who sees it, why not.
RAILS: dict[str, tuple[Rail, str, str, str]] = {
    "DOWN at one end": (
        rail(ACTIVE, DOWN),
        "ACTIVE, DOWN",
        "both ends",
        "DOWN: rdma_en3 of mini; RDMA is off at one end, or the cable is out: `thunderline doctor`",
    ),
    "DOWN at both": (
        rail(DOWN, DOWN),
        "DOWN",
        "both ends",
        "DOWN: rdma_en4 of studio and rdma_en3 of mini; RDMA is off at one end, or the cable is out: "
        "`thunderline doctor`",
    ),
    "not told at one": (
        rail(UNKNOWN, ACTIVE),
        "UNKNOWN, ACTIVE",
        "both ends",
        "nobody tells whether rdma_en4 of studio can be used",
    ),
    "seen by one end": (replace(RAIL, is_one_sided=True), "ACTIVE", "one end only", ""),
    "a bridge at one end, which says ACTIVE": (
        replace(RAIL, other=replace(OTHER, bridge="bridge0")),
        "ACTIVE",
        "both ends",
        "bridge0 holds the interface of rdma_en3 of mini: `thunderline doctor`",
    ),
    "next to Ethernet at one end, which says ACTIVE": (
        replace(RAIL, one=replace(ONE, is_next_to_ethernet=True)),
        "ACTIVE",
        "both ends",
        "rdma_en4 of studio is the port next to Ethernet, where RDMA does not work: another port of that Mac",
    ),
    "a bridge at one end, and not told at the other": (
        replace(RAIL, one=replace(ONE, bridge="bridge0"), other=replace(OTHER, state=UNKNOWN)),
        "ACTIVE, UNKNOWN",
        "both ends",
        "bridge0 holds the interface of rdma_en4 of studio: `thunderline doctor`; nobody tells whether rdma_en3 of "
        "mini can be used",
    ),
    "next to Ethernet, and so DOWN": (
        replace(RAIL, one=replace(ONE, is_next_to_ethernet=True, state=DOWN)),
        "DOWN, ACTIVE",
        "both ends",
        "rdma_en4 of studio is the port next to Ethernet, where RDMA does not work: another port of that Mac; DOWN: "
        "rdma_en4 of studio",
    ),
}


@pytest.mark.parametrize(("one", "state", "seen_by", "why"), RAILS.values(), ids=RAILS.keys())
def test_a_rail_says_why_it_cannot_be_used(one: Rail, state: str, seen_by: str, why: str) -> None:
    assert rail_row(one, NAMES)[-3:] == (state, seen_by, why)


def test_a_cable_that_one_end_alone_sees_is_not_called_direct() -> None:
    found = replace(RAIL, is_one_sided=True), replace(RAIL, is_hub_unknown=True)
    assert [rail_row(one, NAMES)[3] for one in found] == ["3→2, 80 Gb/s no hub seen"] * 2
