"""What a rank needs and how much KV it gets, as tables; splits against every split there is."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.placing.scenes import CANNOT, GIB, LINUX, cable, lan, model, node, placed, situation, vpn
from thunderline.scheduler.placing.capacity import Capacity
from thunderline.scheduler.placing.memory import (
    ACTIVATION_BYTES_MIN,
    KV_TOKENS_MAX,
    KV_TOKENS_MIN,
    Need,
    Needs,
    budget_tokens,
    with_activations,
)
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.splitting import split
from thunderline.scheduler.placing.values import Model, Policy, Verdict

# Four layers of 10 GiB, an embedding of 3, norm and head of 2; 1, 2, 3 and 4 bytes of KV.
LAYERED = Model((10 * GIB,) * 4, embedding_bytes=3 * GIB, head_bytes=2 * GIB, layer_kv_bytes=(1, 2, 3, 4))
TIED = Model((10 * GIB,) * 4, embedding_bytes=3 * GIB, is_tied=True, layer_kv_bytes=(1, 2, 3, 4))

PARTS: dict[str, tuple[Model, tuple[int, int], int, int]] = {
    "the whole of it": (LAYERED, (0, 4), 45, 10),
    "the first layers have the embedding": (LAYERED, (0, 2), 23, 3),
    "those in the middle have neither end": (LAYERED, (1, 3), 20, 5),
    "the last layers have norm and head": (LAYERED, (2, 4), 22, 7),
    "the whole of a tied one has its embedding once": (TIED, (0, 4), 43, 10),
    "the first layers of a tied one": (TIED, (0, 1), 13, 1),
    "the last layers of a tied one have the embedding too": (TIED, (3, 4), 13, 4),
}


@pytest.mark.parametrize(("of", "span", "weights_gib", "kv"), PARTS.values(), ids=PARTS.keys())
def test_a_part_needs(of: Model, span: tuple[int, int], weights_gib: int, kv: int) -> None:
    assert Needs(of, 0).part(*span) == Need(with_activations(weights_gib * GIB), kv)


def test_a_tensor_rank_has_its_part_of_the_layers_and_both_ends() -> None:
    assert Needs(LAYERED, 0).tensor(2) == Need(with_activations(25 * GIB), 5)
    assert Needs(LAYERED, 0).tensor(3).kv_bytes == 4
    whole = Model((10 * GIB,) * 4, tensor_whole_bytes=4 * GIB, layer_kv_bytes=(1, 2, 3, 4), tensor_kv_whole_bytes=10)
    assert Needs(whole, 0).tensor(2) == Need(with_activations(22 * GIB), 10)


def test_what_stands_outside_the_layers_is_on_every_rank() -> None:
    of = replace(LAYERED, other_bytes=GIB)
    assert [Needs(of, 0).part(*span).fixed_bytes for span in ((0, 4), (0, 2), (1, 3), (2, 4))] == [
        with_activations(gib * GIB) for gib in (46, 24, 21, 23)
    ]
    assert Needs(of, 0).tensor(2).fixed_bytes == with_activations(26 * GIB)
    assert Needs(of, 0).pipeline_bytes(3) >= Needs(LAYERED, 0).pipeline_bytes(3) + 3 * GIB
    assert Needs(of, 0).ends(with_activations(11 * GIB))[1] == 2


def test_activations_have_a_floor() -> None:
    assert with_activations(GIB) == GIB + ACTIVATION_BYTES_MIN
    assert with_activations(10 * GIB) == 11 * GIB


M64 = Model((GIB,), context_length_tokens=32_768)
# What each rank needs, what is free, what is asked for: the tokens.
BUDGETS: dict[str, tuple[list[Need], list[int], int, int | None]] = {
    "the rank with the least room decides": ([Need(0, 10), Need(0, 20)], [10**6, 10**6], 0, 50_000 - KV_TOKENS_MIN),
    "a rank whose layers keep no KV does not": ([Need(0, 10), Need(5, 0)], [10**6, 10], 0, 100_000 - KV_TOKENS_MIN),
    "but it has to fit": ([Need(0, 10), Need(50, 0)], [10**6, 10], 0, None),
    "the cost of a token is not known": ([Need(50, 0)], [50], 0, KV_TOKENS_MIN),
    "less than the least is none": ([Need(0, 10)], [KV_TOKENS_MIN * 10 - 1], 0, None),
    "the least is enough": ([Need(0, 10)], [KV_TOKENS_MIN * 10], 0, KV_TOKENS_MIN),
    "what is asked for": ([Need(0, 10)], [10**9], 1_000, 1_000),
    "more is asked for than there is": ([Need(0, 10)], [10**6], 200_000, None),
    "no more than helps": ([Need(0, 10)], [10**9], 0, KV_TOKENS_MAX),
    "a second such model gets its least": ([Need(10**6, 10)], [4 * 10**6], 0, 200_000 - KV_TOKENS_MIN),
    "where there is no room for two, the first has all": ([Need(10**6, 10)], [2 * 10**6], 0, 100_000),
}


@pytest.mark.parametrize(("needs", "free", "asked", "expected"), BUDGETS.values(), ids=BUDGETS.keys())
def test_the_budget_is(needs: list[Need], free: list[int], asked: int, expected: int | None) -> None:
    assert budget_tokens(M64, Policy(kv_budget_tokens=asked), needs, free) == expected


def every_split(layer_count: int, rank_count: int) -> list[list[tuple[int, int]]]:
    """By rank: the first layers are on the last one."""
    borders = combinations(range(1, layer_count), rank_count - 1)
    return [list(pairwise((0, *one, layer_count)))[::-1] for one in borders]


SIZES = st.lists(st.integers(1, 5).map(lambda one: one * GIB), min_size=1, max_size=7)
FREE = st.lists(st.integers(1, 20).map(lambda one: one * GIB), min_size=1, max_size=4)


@given(SIZES, FREE, st.integers(0, 4), st.integers(0, 3), st.booleans())
def test_a_split_is_found_whenever_there_is_one(
    sizes: Sequence[int], free: Sequence[int], embedding_gib: int, head_gib: int, is_tied: bool
) -> None:
    of = Model(
        tuple(sizes),
        embedding_bytes=embedding_gib * GIB,
        head_bytes=head_gib * GIB,
        is_tied=is_tied,
        layer_kv_bytes=(4096,) * len(sizes),
    )
    needs = Needs(of, 8192)
    fitting = [
        one
        for one in every_split(len(sizes), len(free))
        if all(needs.bytes(*span) <= free[rank] for rank, span in enumerate(one))
    ]
    found = split(needs, free)
    assert found is None if not fitting else found in fitting
    if len(free) > 1 and fitting:
        # What is asked before anybody knows an order is never too strict.
        assert Capacity(needs, free).layers(tuple(range(len(free)))) >= len(sizes)


@given(st.integers(1, 6), FREE, st.integers(0, 4), st.integers(0, 3))
def test_the_room_of_a_set_is_exact_for_layers_that_are_alike(
    layer_count: int, free: Sequence[int], embedding_gib: int, head_gib: int
) -> None:
    """Some order of the ranks fits, whenever it says so."""
    if len(free) < 2 or layer_count < len(free):
        return
    of = model(layer_count, 2.0, embedding_bytes=embedding_gib * GIB, head_bytes=head_gib * GIB)
    needs = Needs(of, 8192)
    orders = [
        [free[i] for i in (first, *(k for k in range(len(free)) if k not in (first, last)), last)]
        for first in range(len(free))
        for last in range(len(free))
        if first != last
    ]
    has_room = Capacity(needs, free).layers(tuple(range(len(free)))) >= layer_count
    assert has_room == any(split(needs, order) is not None for order in orders)


# Cables join a, c, b and d in a circle; a and b alone have room for an end of the model, and stand on opposite sides.
ENDS = model(8, 10.0, embedding_bytes=15 * GIB, head_bytes=15 * GIB, tensor=CANNOT, layer_kv_bytes=())
OPPOSITE = [node(name, 39 if name in "ab" else 23, backends=LINUX) for name in "abcd"]
CIRCLE = [one for pair in ("ac", "cb", "bd", "da") for one in cable(*pair)]


def test_a_slower_ring_is_taken_where_the_best_has_no_room_at_its_ends() -> None:
    found = placed(plan(situation(OPPOSITE, [*CIRCLE, *lan("abcd")]), ENDS))
    assert {found.nodes[0], found.nodes[-1]} == {"a", "b"} and not found.slow
    assert plan(situation(OPPOSITE, CIRCLE), ENDS).verdict is Verdict.WAITING


def test_such_a_ring_over_a_vpn_comes_after_a_larger_one_over_cables() -> None:
    """e stands beside a, and has room for an end."""
    members = [*OPPOSITE, node("e", 39, backends=LINUX)]
    links = [*CIRCLE, *cable("e", "a"), *cable("e", "c"), *vpn("abcde")]
    found = placed(plan(situation(members, links), ENDS))
    assert len(found.ranks) == 5 and not found.slow
    alone = placed(plan(situation(OPPOSITE, [*CIRCLE, *vpn("abcd")]), ENDS))
    assert len(alone.ranks) == 4 and alone.slow
