"""A cluster changes its authority, and at no moment do two of its nodes refuse each other."""

from collections.abc import Iterator

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.authorities import Holder, Ring, Turn, begun, hastened, turned
from thunderline.cluster.errors import InvalidRequest

ONE, ONE_NEW = Ring(("a",), "a"), Ring(("b",), "b")
BOTH_OLD, BOTH_NEW = Ring(("a", "b"), "a"), Ring(("a", "b"), "b")


def holder(node: str, trusts: str, signed_by: str) -> Holder:
    return Holder(NodeId(node), frozenset(trusts), signed_by)


TURNS = {
    "one authority, and all is as it was": (ONE, [holder("m", "a", "a")], Turn.REST, ONE, ()),
    "nobody but the scheduler node": (ONE, [], Turn.REST, ONE, ()),
    "a second one that a node does not trust yet": (
        BOTH_OLD,
        [holder("m", "a", "a"), holder("n", "ab", "a")],
        Turn.WAIT,
        BOTH_OLD,
        ("m",),
    ),
    "all trust the second one": (BOTH_OLD, [holder("m", "ab", "a"), holder("n", "ab", "a")], Turn.SIGN, BOTH_NEW, ()),
    "it signs, and a node has an old certificate": (
        BOTH_NEW,
        [holder("n", "ab", "a"), holder("m", "ab", "b")],
        Turn.WAIT,
        BOTH_NEW,
        ("n",),
    ),
    "all have new ones": (BOTH_NEW, [holder("m", "ab", "b")], Turn.DROP, ONE_NEW, ()),
    "the first one is gone": (ONE_NEW, [holder("m", "ab", "b")], Turn.REST, ONE_NEW, ()),
    "a node came back from a backup": (ONE_NEW, [holder("m", "a", "a")], Turn.WAIT, ONE_NEW, ("m",)),
}


@pytest.mark.parametrize(("ring", "holders", "turn", "after", "late"), TURNS.values(), ids=TURNS.keys())
def test_turns(ring: Ring, holders: list[Holder], turn: Turn, after: Ring, late: tuple[str, ...]) -> None:
    assert turned(ring, holders) == (turn, after, late)
    assert turned(ring, holders[::-1]) == (turn, after, late)


def test_a_rotation_begins_once() -> None:
    assert begun(ONE, "b") == BOTH_OLD
    for under_way in (BOTH_OLD, BOTH_NEW):
        with pytest.raises(InvalidRequest, match="under way"):
            begun(under_way, "c")


@pytest.mark.parametrize("ring", [BOTH_OLD, BOTH_NEW])
def test_in_haste_only_the_new_one_counts(ring: Ring) -> None:
    assert hastened(ring, "c") == Ring(("c",), "c")
    for lost in ring.trusted:
        with pytest.raises(InvalidRequest, match="lost too"):
            hastened(ring, lost)


World = tuple[Ring, tuple[Holder, ...]]


def next_worlds(world: World) -> Iterator[World]:
    """The scheduler node turns, or any one node renews its certificate."""
    ring, holders = world
    yield turned(ring, holders)[1], holders
    for place, one in enumerate(holders):
        renewed = Holder(one.node, frozenset(ring.trusted), ring.signing)
        yield ring, (*holders[:place], renewed, *holders[place + 1 :])


def reachable(start: World) -> set[World]:
    found, left = {start}, [start]
    while left:
        for world in next_worlds(left.pop()):
            if world not in found:
                found.add(world)
                left.append(world)
    return found


START: World = (begun(ONE, "b"), tuple(holder(node, "a", "a") for node in "smn"))


def test_in_every_order_all_nodes_take_each_other() -> None:
    worlds = reachable(START)
    # Else this would prove nothing.
    assert len(worlds) > 20
    for _, holders in worlds:
        assert all(one.signed_by in other.trusts for one in holders for other in holders)


def test_from_everywhere_it_comes_to_its_end() -> None:
    end = (Ring(("b",), "b"), tuple(holder(node, "b", "b") for node in "smn"))
    assert all(end in reachable(world) for world in reachable(START))
