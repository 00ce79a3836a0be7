"""Members of the roster as placing takes them, and since when each is ALIVE."""

import math

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import MachineFacts, RdmaState
from thunderline.rpc.machine_facts import to_proto
from thunderline.scheduler.members import Members, member
from thunderline.scheduler.placing.settled import SETTLE_S
from thunderline.scheduler.placing.values import Backend, Node
from thunderline.scheduler.values import Member
from thunderline.v1 import cluster_pb2, discovery_pb2

A, B = NodeId("a"), NodeId("b")
ALIVE, SUSPECT, DEAD, LEFT = (
    discovery_pb2.MEMBER_STATE_ALIVE,
    discovery_pb2.MEMBER_STATE_SUSPECT,
    discovery_pb2.MEMBER_STATE_DEAD,
    discovery_pb2.MEMBER_STATE_LEFT,
)


def interface(name: str, *addresses: str) -> cluster_pb2.NetworkInterface:
    return cluster_pb2.NetworkInterface(name=name, addresses=addresses)


def test_a_card_tells_what_placing_asks() -> None:
    facts = MachineFacts(rdma=RdmaState.ENABLED, mlx_backends=("ring", "jaccl", "mpi"), working_set_bytes=77)
    card = cluster_pb2.NodeCard(
        node_id="a",
        hostname="alder",
        chip="Apple M3 Ultra",
        addresses=["10.0.0.1", "fd00::1"],
        interfaces=[interface("en0", "10.0.0.1"), interface("en2", "fe80::1%en2"), interface("en3")],
        machine=to_proto(facts),
    )
    assert member(discovery_pb2.Member(card=card, state=ALIVE)) == Member(
        Node(
            A,
            "alder",
            backends=frozenset({Backend.RING, Backend.JACCL}),
            rdma=RdmaState.ENABLED,
            without_ipv4=frozenset({"en2", "en3"}),
            memory_bytes_per_s=819_000_000_000,
            addresses=("10.0.0.1", "fd00::1"),
        ),
        working_set_bytes=77,
    )


def test_what_a_card_does_not_tell_is_not_known() -> None:
    bare = member(discovery_pb2.Member(card=cluster_pb2.NodeCard(node_id="a"), state=ALIVE))
    assert bare == Member(Node(A))
    assert bare.card.backends is None


def roster(**states: discovery_pb2.MemberState.ValueType) -> discovery_pb2.Roster:
    cards = {node: cluster_pb2.NodeCard(node_id=node) for node in states}
    members = [discovery_pb2.Member(card=cards[node], state=state) for node, state in states.items()]
    return discovery_pb2.Roster(members=members)


# Rosters by the time at which they come; the time of the look; whether b is ALIVE then, and for how long.
AGES: dict[str, tuple[dict[float, discovery_pb2.Roster], float, tuple[bool, float] | None]] = {
    "from the moment it was heard": ({100.0: roster(a=ALIVE, b=ALIVE)}, 103.6, (True, 3.5)),
    "from the first roster that had it": ({50.0: roster(a=ALIVE), 100.0: roster(a=ALIVE, b=ALIVE)}, 102.0, (True, 2.0)),
    "a roster that says the same changes nothing": (
        {100.0: roster(b=ALIVE), 104.0: roster(b=ALIVE)},
        105.0,
        (True, 5.0),
    ),
    "one that was SUSPECT for a moment has not gone": (
        {100.0: roster(b=ALIVE), 102.0: roster(b=SUSPECT), 103.0: roster(b=ALIVE)},
        104.0,
        (True, 4.0),
    ),
    "one that was DEAD begins anew": (
        {100.0: roster(b=ALIVE), 102.0: roster(b=DEAD), 103.0: roster(b=ALIVE)},
        104.0,
        (True, 1.0),
    ),
    "SUSPECT is not ALIVE": ({100.0: roster(b=ALIVE), 102.0: roster(b=SUSPECT)}, 103.0, (False, 3.0)),
    "nor is DEAD": ({100.0: roster(b=DEAD)}, 103.0, (False, 0.0)),
    "SUSPECT after a start begins with ALIVE": ({100.0: roster(b=SUSPECT), 101.0: roster(b=ALIVE)}, 103.0, (True, 2.0)),
    "who has LEFT is none": ({100.0: roster(b=ALIVE), 102.0: roster(b=LEFT)}, 103.0, None),
    "long enough": ({100.0: roster(b=ALIVE)}, 100.0 + SETTLE_S, (True, math.inf)),
}


@pytest.mark.parametrize(("rosters", "now_s", "expected"), AGES.values(), ids=AGES.keys())
def test_it_is_alive(
    rosters: dict[float, discovery_pb2.Roster], now_s: float, expected: tuple[bool, float] | None
) -> None:
    members = Members()
    for at_s, told in rosters.items():
        members.hear(told, at_s)
    found = {one.card.id: (one.card.is_alive, one.card.alive_for_s) for one in members.look(now_s)}
    assert found.get(B) == expected


def test_a_node_whose_topology_has_not_told_all_counts_as_young_for_a_while() -> None:
    members = Members()
    members.hear(roster(a=ALIVE, b=ALIVE), 0.0)

    def ages(now_s: float, *incomplete: NodeId) -> list[float]:
        return [one.card.alive_for_s for one in members.look(now_s, incomplete)]

    assert ages(100.0) == [math.inf, math.inf]
    assert ages(101.0, B) == [math.inf, 0.0]
    assert ages(105.0, B) == [math.inf, 4.0]
    assert ages(106.0) == [math.inf, math.inf], "it has told all"
    assert ages(107.0, B) == [math.inf, 0.0]
    assert ages(107.0 + SETTLE_S, B) == [math.inf, math.inf], "nobody waits for ever"


def test_nodes_of_one_name_are_told_apart() -> None:
    told = roster(aaaaaaaaa=ALIVE, bbbbbbbbb=ALIVE, c=ALIVE)
    for one, name in zip(told.members, ("vm", "vm", "studio"), strict=True):
        one.card.hostname = name
    members = Members()
    members.hear(told, 0.0)
    assert [one.card.word for one in members.look(0.0)] == ["vm aaaaaaaa", "vm bbbbbbbb", "studio"]
    told.members[1].state = LEFT
    members.hear(told, 0.0)
    assert [one.card.word for one in members.look(0.0)] == ["vm", "studio"]


def test_within_half_a_second_a_look_says_the_same() -> None:
    """Otherwise every pass of the reconciler would plan anew."""
    members = Members()
    members.hear(roster(a=ALIVE, b=ALIVE), 100.0)
    assert members.look(103.0) == members.look(103.4) != members.look(103.5)
    assert members.look(111.0) == members.look(1e9)
