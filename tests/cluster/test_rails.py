"""Which rails follow from what the ports of all nodes tell: a table of cases, and what holds of every one."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import RdmaPortState, SeenMac, ThunderboltPort
from thunderline.cluster.rails import (
    Cause,
    Obstacle,
    PluggedCable,
    PortAt,
    Rail,
    RailEnd,
    obstacles,
    plugged_cables,
    rails_over,
)

A, B, C, D = (NodeId(name) for name in "abcd")
HUB, DOCK = "Hub 4", "Dock 9"


def sees(*uuids: str, behind: Sequence[str] = ()) -> tuple[SeenMac, ...]:
    return tuple(SeenMac(uuid, "MacBook Pro", "Mac16,5", tuple(behind)) for uuid in uuids)


def port(
    uuid: str,
    macs: tuple[SeenMac, ...] = (),
    number: int = 1,
    speed_gbps: int = 80,
    devices: tuple[str, ...] = (),
    rdma: bool = True,
    state: RdmaPortState = RdmaPortState.ACTIVE,
) -> ThunderboltPort:
    """Receptacle N has enN here; with which other the tests begin does not matter."""
    return ThunderboltPort(
        bus=f"thunderboltusb4_bus_{number - 1}",
        uuid=uuid,
        receptacle=str(number),
        interface=f"en{number}",
        rdma_device=f"rdma_en{number}" if rdma else "",
        rdma_port=state,
        is_connected=bool(macs),
        speed_gbps=speed_gbps if macs else 0,
        macs=macs,
        devices=devices,
    )


def end(node: NodeId, uuid: str, number: int = 1, state: RdmaPortState = RdmaPortState.ACTIVE) -> RailEnd:
    return RailEnd(node, f"rdma_en{number}", f"en{number}", uuid, str(number), state)


def rail(one: RailEnd, other: RailEnd, speed_gbps: int = 80, behind: tuple[str, ...] = (), **more: bool) -> Rail:
    return Rail(one, other, speed_gbps, behind, **more)


Told = Mapping[NodeId, Sequence[ThunderboltPort]]


def rails(told: Told) -> tuple[Rail, ...]:
    return rails_over(plugged_cables(told))


DIRECT: Told = {A: [port("a1", sees("b1"))], B: [port("b1", sees("a1"))]}
AB = rail(end(A, "a1"), end(B, "b1"))
A_SAYS = replace(AB, is_one_sided=True)
FREE_B = port("b1")

# What the ports of each node tell: the rails.
CASES: dict[str, tuple[Told, list[Rail]]] = {
    "nobody tells anything": ({}, []),
    "ports that are free": ({A: [port("a1")], B: [port("b1")]}, []),
    "a direct cable": (DIRECT, [AB]),
    "only one end sees the other": ({A: [port("a1", sees("b1"))], B: [FREE_B]}, [A_SAYS]),
    "only the other end does": ({A: [port("a1")], B: [port("b1", sees("a1"))]}, [A_SAYS]),
    "the end that sees has no UUID itself": (
        {A: [port("", sees("b1"))], B: [FREE_B]},
        [rail(end(A, ""), end(B, "b1"), is_one_sided=True)],
    ),
    "and is seen as a port that nobody knows": (
        {A: [port("", sees("b1"))], B: [port("b1", sees("a1"))]},
        [rail(end(A, ""), end(B, "b1"), is_one_sided=True)],
    ),
    "a Mac that is seen without its UUID": ({A: [port("a1", sees(""))], B: [FREE_B]}, []),
    "neither end has a UUID": ({A: [port("", sees(""))], B: [port("", sees(""))]}, []),
    "a Mac that is no node": ({A: [port("a1", sees("x1"))], B: [FREE_B]}, []),
    "the node at the other end tells of no ports": ({A: [port("a1", sees("b1"))]}, []),
    "a cable from a node to itself": ({A: [port("a1", sees("a2")), port("a2", sees("a1"), 2)]}, []),
    "crossed cables: by the cable, not by index or name": (
        {
            A: [port("a1", sees("b2")), port("a2", sees("b1"), 2)],
            B: [port("b1", sees("a2")), port("b2", sees("a1"), 2)],
        },
        [rail(end(A, "a1"), end(B, "b2", 2)), rail(end(A, "a2", 2), end(B, "b1"))],
    ),
    "two cables, of which one end of each tells": (
        {A: [port("a1", sees("b2")), port("a2", (), 2)], B: [port("b1", sees("a2")), port("b2", (), 2)]},
        [
            rail(end(A, "a1"), end(B, "b2", 2), is_one_sided=True),
            rail(end(A, "a2", 2), end(B, "b1"), is_one_sided=True),
        ],
    ),
    "a ring of three": (
        {
            A: [port("a1", sees("b1")), port("a2", sees("c2"), 2)],
            B: [port("b1", sees("a1")), port("b2", sees("c1"), 2)],
            C: [port("c1", sees("b2")), port("c2", sees("a2"), 2)],
        },
        [AB, rail(end(A, "a2", 2), end(C, "c2", 2)), rail(end(B, "b2", 2), end(C, "c1"))],
    ),
    "receptacle 10 comes after receptacle 2": (
        {
            A: [port("a1", sees("b1"), 10), port("a2", sees("b2"), 2)],
            B: [port("b1", sees("a1")), port("b2", sees("a2"), 2)],
        },
        [rail(end(A, "a2", 2), end(B, "b2", 2)), rail(end(A, "a1", 10), end(B, "b1"))],
    ),
    "through a hub": (
        {A: [port("a1", sees("b1", behind=[HUB]))], B: [port("b1", sees("a1", behind=[HUB]))]},
        [replace(AB, behind=(HUB,))],
    ),
    "through two hubs, from one end to the other": (
        {A: [port("a1", sees("b1", behind=[HUB, DOCK]))], B: [port("b1", sees("a1", behind=[DOCK, HUB]))]},
        [replace(AB, behind=(HUB, DOCK))],
    ),
    "through two hubs, of which the second end tells": (
        {A: [port("a1")], B: [port("b1", sees("a1", behind=[DOCK, HUB]))]},
        [replace(A_SAYS, behind=(HUB, DOCK))],
    ),
    "a dock that does not show from behind": (
        {A: [port("a1", sees("b1", behind=[DOCK]), devices=(DOCK,))], B: [port("b1", sees("a1"))]},
        [replace(AB, behind=(DOCK,))],
    ),
    "a port that sees two Macs behind a hub": (
        {
            A: [port("a1", sees("b1", "c1", behind=[HUB]))],
            B: [port("b1", sees("a1", behind=[HUB]))],
            C: [port("c1", sees("a1", behind=[HUB]))],
        },
        [replace(AB, behind=(HUB,)), rail(end(A, "a1"), end(C, "c1"), behind=(HUB,))],
    ),
    "and tells of none, while both see it": (
        {
            A: [port("a1", devices=(HUB,))],
            B: [port("b1", sees("a1"))],
            C: [port("c1", sees("a1"))],
        },
        [
            replace(A_SAYS, is_hub_unknown=True),
            rail(end(A, "a1"), end(C, "c1"), is_one_sided=True, is_hub_unknown=True),
        ],
    ),
    "a dock at one end, which neither end places between": (
        {A: [port("a1", sees("b1"), devices=(DOCK,))], B: [port("b1", sees("a1"))]},
        [replace(AB, is_hub_unknown=True)],
    ),
    "a dock at the end that tells of no Mac": (
        {A: [port("a1", devices=(DOCK,))], B: [port("b1", sees("a1"))]},
        [replace(A_SAYS, is_hub_unknown=True)],
    ),
    "a bridge and the port next to Ethernet are told with their ends": (
        {
            A: [replace(port("a1", sees("b1")), bridge="bridge0")],
            B: [replace(port("b1", sees("a1")), is_next_to_ethernet=True)],
        },
        [rail(replace(end(A, "a1"), bridge="bridge0"), replace(end(B, "b1"), is_next_to_ethernet=True))],
    ),
    "one of two Macs behind a hub sees the other's host, which shows the first alone": (
        {
            A: [port("a1", sees("b1", behind=[HUB]))],
            B: [port("b1", sees("a1", behind=[HUB]))],
            C: [port("c1", sees("a1", behind=[HUB]))],
        },
        [replace(AB, behind=(HUB,)), rail(end(A, "a1"), end(C, "c1"), behind=(HUB,), is_one_sided=True)],
    ),
    "one end has no RDMA device": ({A: [port("a1", sees("b1"), rdma=False)], B: DIRECT[B]}, []),
    "a device that is DOWN": (
        {A: [port("a1", sees("b1"), state=RdmaPortState.DOWN)], B: DIRECT[B]},
        [rail(end(A, "a1", state=RdmaPortState.DOWN), end(B, "b1"))],
    ),
    "the slower end tells the speed": (
        {A: [port("a1", sees("b1"), speed_gbps=120)], B: [port("b1", sees("a1"), speed_gbps=80)]},
        [AB],
    ),
    "one end tells no speed": ({A: [port("a1", sees("b1"), speed_gbps=0)], B: DIRECT[B]}, [AB]),
    "neither end tells a speed": (
        {A: [port("a1", sees("b1"), speed_gbps=0)], B: [port("b1", sees("a1"), speed_gbps=0)]},
        [replace(AB, speed_gbps=0)],
    ),
    "two nodes claim one UUID": ({**DIRECT, C: [port("b1", sees("a1"))]}, []),
    "two nodes claim the UUID that sees": ({**DIRECT, C: [port("a1", sees("b1"))]}, []),
    "two ports of one node claim one UUID": ({A: DIRECT[A], B: [*DIRECT[B], port("b1", sees("a1"), 2)]}, []),
    "a copied card takes nothing from others": (
        {
            A: [port("a1", sees("b1")), port("a2", sees("d1"), 2)],
            B: DIRECT[B],
            C: [port("d1", sees("a2"))],
            D: [port("d1", sees("a2"))],
        },
        [AB],
    ),
    "a port is told twice": ({A: [*DIRECT[A], *DIRECT[A]], B: DIRECT[B]}, [AB]),
    # The cable was moved from b1 to c1, and B has not looked since.
    "an end that sees another Mac now": (
        {A: [port("a1", sees("c1"))], B: DIRECT[B], C: [port("c1", sees("a1"))]},
        [rail(end(A, "a1"), end(C, "c1"))],
    ),
    "an end that sees another Mac, which has not looked yet": (
        {A: [port("a1", sees("c1"))], B: DIRECT[B], C: [port("c1")]},
        [rail(end(A, "a1"), end(C, "c1"), is_one_sided=True)],
    ),
    "an end that sees a Mac behind a hub now": (
        {A: [port("a1", sees("c1", behind=[HUB]))], B: DIRECT[B], C: [port("c1")]},
        [rail(end(A, "a1"), end(C, "c1"), behind=(HUB,), is_one_sided=True)],
    ),
    "two claim a direct cable to a port that tells nothing": (
        {A: [port("a1", sees("b1"))], B: [FREE_B], C: [port("c1", sees("b1"))]},
        [],
    ),
    "two claim one to a port that tells of one of them": (
        {A: DIRECT[A], B: DIRECT[B], C: [port("c1", sees("b1"))]},
        [AB],
    ),
}


@pytest.mark.parametrize(("told", "expected"), CASES.values(), ids=CASES.keys())
def test_rails(told: Told, expected: list[Rail]) -> None:
    assert list(rails(told)) == expected


def test_a_cable_that_rdma_cannot_use_is_known() -> None:
    told = {A: [port("a1", sees("b1"), rdma=False, speed_gbps=40)], B: DIRECT[B]}
    assert rails(told) == ()
    ends = PortAt(A, told[A][0]), PortAt(B, told[B][0])
    assert plugged_cables(told) == (PluggedCable(*ends, speed_gbps=40),)


ONE, OTHER = AB.ends
# What is so of the first end and of the other -> what keeps RDMA from the rail.
OBSTACLES: dict[str, tuple[RailEnd, RailEnd, list[tuple[Cause, NodeId]]]] = {
    "nothing": (ONE, OTHER, []),
    "one end is DOWN": (ONE, replace(OTHER, state=RdmaPortState.DOWN), [(Cause.DOWN, B)]),
    "of one end nobody tells": (replace(ONE, state=RdmaPortState.UNKNOWN), OTHER, [(Cause.UNKNOWN, A)]),
    "a bridge holds one that says ACTIVE": (ONE, replace(OTHER, bridge="bridge0"), [(Cause.BRIDGED, B)]),
    "one next to Ethernet says ACTIVE": (replace(ONE, is_next_to_ethernet=True), OTHER, [(Cause.WRONG_PORT, A)]),
    "all at once": (
        replace(ONE, is_next_to_ethernet=True, bridge="bridge0", state=RdmaPortState.DOWN),
        replace(OTHER, bridge="bridge1", state=RdmaPortState.UNKNOWN),
        [(Cause.WRONG_PORT, A), (Cause.BRIDGED, A), (Cause.DOWN, A), (Cause.BRIDGED, B), (Cause.UNKNOWN, B)],
    ),
}


@pytest.mark.parametrize(("one", "other", "expected"), OBSTACLES.values(), ids=OBSTACLES.keys())
def test_what_keeps_rdma_from_a_rail(one: RailEnd, other: RailEnd, expected: list[tuple[Cause, NodeId]]) -> None:
    ends = {A: one, B: other}
    assert obstacles(rail(one, other)) == tuple(Obstacle(cause, ends[node]) for cause, node in expected)


# Worlds: nodes with ports, and cables between ports of two nodes, each by its hubs.


@dataclass(frozen=True)
class Wire:
    """A cable between two ports, by node and receptacle."""

    one: tuple[int, int]
    other: tuple[int, int]
    behind: tuple[str, ...]
    speeds_gbps: tuple[int, int]


NODES = [A, B, C, D]


@st.composite
def wires(draw: st.DrawFn) -> list[Wire]:
    """No port has two."""
    free = [(node, number) for node in range(4) for number in range(1, 4)]
    chance = draw(st.randoms(use_true_random=False))
    chance.shuffle(free)
    found = []
    for one, other in zip(free[::2], free[1::2], strict=False):
        if one[0] != other[0] and draw(st.booleans()):
            behind = tuple(draw(st.lists(st.sampled_from([HUB, DOCK]), max_size=2)))
            speeds = draw(st.tuples(st.sampled_from([0, 40, 80]), st.sampled_from([0, 40, 80])))
            found.append(Wire(one, other, behind, speeds))
    return found


def uuid_of(place: tuple[int, int]) -> str:
    return f"uuid-{place[0]}-{place[1]}"


def told_of(cables: Sequence[Wire], blind: Sequence[int] = ()) -> dict[NodeId, list[ThunderboltPort]]:
    """What each node's ports tell; those of `blind` nodes see no Mac."""
    macs: dict[tuple[int, int], tuple[tuple[SeenMac, ...], int]] = {}
    for one in cables:
        macs[one.one] = sees(uuid_of(one.other), behind=one.behind), one.speeds_gbps[0]
        macs[one.other] = sees(uuid_of(one.one), behind=one.behind[::-1]), one.speeds_gbps[1]
    found: dict[NodeId, list[ThunderboltPort]] = {node: [] for node in NODES}
    for index, node in enumerate(NODES):
        for number in range(1, 4):
            seen, speed_gbps = macs.get((index, number), ((), 0))
            made = port(uuid_of((index, number)), seen, number, speed_gbps)
            found[node].append(replace(made, macs=()) if index in blind else made)
    return found


def renamed(one: Rail, names: Mapping[NodeId, NodeId]) -> Rail:
    ends = [replace(end, node=names[end.node]) for end in (one.one, one.other)]
    if ends[0].node < ends[1].node:
        return replace(one, one=ends[0], other=ends[1])
    return replace(one, one=ends[1], other=ends[0], behind=one.behind[::-1])


@given(wires())
def test_every_cable_is_one_rail_with_both_its_ends(cables: list[Wire]) -> None:
    found = rails(told_of(cables))
    joined = {frozenset((one.one.port_uuid, one.other.port_uuid)) for one in found}
    assert joined == {frozenset((uuid_of(one.one), uuid_of(one.other))) for one in cables}
    assert len(found) == len(cables)
    assert all(one.one.node < one.other.node and not one.is_one_sided for one in found)


@given(wires(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_ports_and_macs_does_not_matter(cables: list[Wire], chance: random.Random) -> None:
    told = told_of(cables)
    mixed = {node: chance.sample(told[node], len(told[node])) for node in chance.sample(NODES, len(NODES))}
    assert rails(mixed) == rails(told)


@given(wires(), st.permutations(NODES))
def test_nodes_that_trade_places_have_the_same_rails(cables: list[Wire], order: list[NodeId]) -> None:
    names = dict(zip(NODES, order, strict=True))
    told = told_of(cables)
    traded = rails({names[node]: ports for node, ports in told.items()})
    assert set(traded) == {renamed(one, names) for one in rails(told)}


@given(wires(), st.integers(0, 3))
def test_without_what_one_node_sees_the_same_rails_are_one_sided(cables: list[Wire], blind: int) -> None:
    expected = {replace(one, is_one_sided=NODES[blind] in one.nodes) for one in rails(told_of(cables))}
    assert set(rails(told_of(cables, [blind]))) == expected


PLACES = st.tuples(st.integers(0, 3), st.integers(1, 3))
STALE = st.lists(st.tuples(PLACES, PLACES), max_size=6)


@given(wires(), STALE)
def test_a_port_without_a_hub_has_at_most_one_rail(
    cables: list[Wire], stale: list[tuple[tuple[int, int], ...]]
) -> None:
    """Whatever others say of it, who may have looked before cables were moved."""
    told = told_of([replace(one, behind=()) for one in cables])
    for (node, number), seen in stale:
        ports = told[NODES[node]]
        ports[number - 1] = replace(ports[number - 1], macs=sees(uuid_of(seen)), is_connected=True)
    found = rails(told)
    ends = [(end.node, end.port_uuid) for one in found for end in (one.one, one.other)]
    assert len(ends) == len(set(ends))
    assert rails({node: ports[::-1] for node, ports in told.items()}) == found
