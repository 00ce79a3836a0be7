"""The best ring through a set, against every ring there is; longer ones, and how long they take."""

from collections.abc import Mapping
from itertools import pairwise, permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.scheduler.placing.dialling import Cost, Quality
from thunderline.scheduler.placing.rings import Joined, best_ring, bottleneck, bottlenecks, rings_by_ends

Costs = Mapping[tuple[int, int], Cost]


def cost(tier: int, rtt_us: int) -> Cost:
    return Cost(Quality(False, tier, False), rtt_us)


def costs_of(ring: list[int], costs: Costs) -> list[Cost]:
    """The worst first."""
    return sorted((costs[pair] for pair in pairwise([*ring, ring[0]])), reverse=True)


def every_ring(count: int, costs: Costs) -> list[list[int]]:
    rings = [[0, *rest] for rest in permutations(range(1, count))]
    return [one for one in rings if all(pair in costs for pair in pairwise([*one, one[0]]))]


@st.composite
def networks(draw: st.DrawFn) -> tuple[int, Costs]:
    count = draw(st.integers(2, 6))
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    kinds = st.one_of(st.none(), st.builds(cost, st.integers(0, 2), st.integers(1, 4)))
    drawn = {pair: draw(kinds) for pair in pairs}
    return count, {pair: one for pair, one in drawn.items() if one is not None}


@given(networks())
def test_the_best_ring_has_the_best_worst_link_then_the_best_second_worst(network: tuple[int, Costs]) -> None:
    count, costs = network
    joined = Joined(count, costs)
    rings = every_ring(count, costs)
    found = best_ring(range(count), joined)
    table = bottlenecks(joined)
    assert table[-1] == bottleneck(range(count), joined)
    if not rings:
        assert found is None and table[-1] is None and rings_by_ends(range(count), joined) == []
        return
    assert found is not None and sorted(found) == list(range(count))
    assert costs_of(found, costs) == min(costs_of(one, costs) for one in rings)
    assert table[-1] is not None
    assert joined.qualities[table[-1]] == max(one.quality for one in costs_of(found, costs))


@given(networks())
def test_for_each_pair_of_ends_there_is_the_best_ring_that_has_them(network: tuple[int, Costs]) -> None:
    count, costs = network
    rings = [one[i:] + one[:i] for one in every_ring(count, costs) for i in range(count)]
    found = rings_by_ends(range(count), Joined(count, costs))
    assert {(one[0], one[-1]) for one in found} == {(one[0], one[-1]) for one in rings}
    for one in found:
        rivals = [rival for rival in rings if (rival[0], rival[-1]) == (one[0], one[-1])]
        assert costs_of(one, costs) == min(costs_of(rival, costs) for rival in rivals)


@given(networks())
def test_every_subset_has_the_bottleneck_of_its_own_ring(network: tuple[int, Costs]) -> None:
    count, costs = network
    joined = Joined(count, costs)
    table = bottlenecks(joined)
    for members in range(1, 1 << count):
        chosen = [i for i in range(count) if members >> i & 1]
        if len(chosen) > 1:
            assert table[members] == bottleneck(chosen, joined)


def around(count: int, tier: int = 0) -> dict[tuple[int, int], Cost]:
    """Each joined to the next only, both ways."""
    ways = [(i, (i + 1) % count) for i in range(count)]
    return {pair: cost(tier, 500) for i, j in ways for pair in ((i, j), (j, i))}


LONG: dict[str, tuple[int, dict[tuple[int, int], Cost]]] = {
    "twelve in a circle of cables": (12, around(12)),
    "twelve that can be dialled one way round": (12, {(i, (i + 1) % 12): cost(0, 500) for i in range(12)}),
    "sixteen in a circle of cables, with a LAN on all": (
        16,
        {(i, j): cost(2, 800) for i in range(16) for j in range(16) if i != j} | around(16),
    ),
    "a grid of four by four": (
        16,
        {(i, j): cost(0, 500) for i in range(16) for j in range(16) if abs(i // 4 - j // 4) + abs(i % 4 - j % 4) == 1},
    ),
}


@pytest.mark.parametrize(("count", "costs"), LONG.values(), ids=LONG.keys())
def test_a_long_ring_is_found(count: int, costs: Costs) -> None:
    joined = Joined(count, costs)
    found = best_ring(range(count), joined)
    assert found is not None and sorted(found) == list(range(count))
    # Over cables only, where they go all the way round.
    assert costs_of(found, costs)[0].quality.tier == 0
    assert bottleneck(range(count), joined) == 0


def test_where_there_is_none_none_is_found() -> None:
    broken = around(12)
    del broken[3, 4], broken[4, 3], broken[0, 11], broken[11, 0]
    assert best_ring(range(12), Joined(12, broken)) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_long_ring_comes_near_the_best_worst_link(seed: int) -> None:
    """No ring is better than the worst of the nodes' best links; on a mesh the one that is found is hardly worse."""
    random = Random(seed)
    pairs = [(i, j) for i in range(24) for j in range(24) if i != j]
    costs = {pair: cost(1, random.randrange(300, 3000)) for pair in pairs}
    found = best_ring(range(24), Joined(24, costs))
    assert found is not None
    ways_out = [min(costs[i, j].rtt_us for j in range(24) if i != j) for i in range(24)]
    ways_in = [min(costs[j, i].rtt_us for j in range(24) if i != j) for i in range(24)]
    best_us = max(*ways_out, *ways_in)
    assert costs_of(found, costs)[0].rtt_us <= 1.5 * best_us
