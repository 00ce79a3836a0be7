"""How `links` shows cables of Macs and the rails over them."""

import pytest

from thunderline.cli.rails import RAIL_COLUMNS, cable_text, rail_row
from thunderline.v1 import cluster_pb2, topology_pb2

A, B = "aaaaaaaa-1111", "bbbbbbbb-2222"
NAMES = {A: "studio", B: "mini"}
ACTIVE, DOWN = cluster_pb2.RDMA_PORT_STATE_ACTIVE, cluster_pb2.RDMA_PORT_STATE_DOWN
UNKNOWN = cluster_pb2.RDMA_PORT_STATE_UNSPECIFIED

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
    "of which one end tells": (topology_pb2.LinkCable(local_receptacle="2", speed_gbps=40), "2→?, 40 Gb/s direct"),
}


@pytest.mark.parametrize(("cable", "said"), CABLES.values(), ids=CABLES.keys())
def test_a_cable_is_said_as(cable: topology_pb2.LinkCable, said: str) -> None:
    assert cable_text(cable) == said


def rail(
    one: "cluster_pb2.RdmaPortState.ValueType", other: "cluster_pb2.RdmaPortState.ValueType", one_sided: bool = False
) -> topology_pb2.Rail:
    return topology_pb2.Rail(
        one=topology_pb2.RailEnd(node_id=A, device="rdma_en4", receptacle="3", state=one),
        other=topology_pb2.RailEnd(node_id=B, device="rdma_en3", receptacle="2", state=other),
        speed_gbps=80,
        one_sided=one_sided,
    )


def test_a_row_is_a_rail() -> None:
    assert dict(zip(RAIL_COLUMNS, rail_row(rail(ACTIVE, ACTIVE), NAMES), strict=True)) == {
        "node": "studio",
        "peer": "mini",
        "devices": "rdma_en4 to rdma_en3",
        "cable": "3→2, 80 Gb/s direct",
        "state": "ACTIVE",
        "seen by": "both ends",
        "why not usable": "",
    }


# States of both ends, whether one alone sees the other: state, who sees it, why not.
RAILS: dict[str, tuple[topology_pb2.Rail, str, str, str]] = {
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
    "seen by one end": (rail(ACTIVE, ACTIVE, one_sided=True), "ACTIVE", "one end only", ""),
}


@pytest.mark.parametrize(("one", "state", "seen_by", "why"), RAILS.values(), ids=RAILS.keys())
def test_a_rail_says_why_it_cannot_be_used(one: topology_pb2.Rail, state: str, seen_by: str, why: str) -> None:
    assert rail_row(one, NAMES)[-3:] == (state, seen_by, why)
