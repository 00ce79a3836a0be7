"""Where a model runs, on one node."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.cluster import NodeId
from thunderline.scheduler.placement import (
    KV_TOKENS_MAX,
    KV_TOKENS_MIN,
    NotPlaced,
    Placed,
    fixed_bytes,
    kv_tokens_least,
    kv_tokens_useful,
    place,
)
from thunderline.scheduler.values import Audit, Spec, Verdict

GIB = 2**30
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def audit(usable_gib: float = 16, weight_gib: float = 4, kv_bytes: int = 65_536, context: int = 32_768) -> Audit:
    """64 KiB of KV a token: 8,192 tokens take half a GiB. Activations of 4 GiB of weights take 0.4 GiB."""
    return Audit(
        Verdict.USABLE,
        weight_bytes=int(weight_gib * GIB),
        kv_bytes_per_token=kv_bytes,
        context_length_tokens=context,
        usable_memory_bytes=int(usable_gib * GIB),
    )


def spec(kv_budget_tokens: int = 0) -> Spec:
    return Spec("m", "org/m", kv_budget_tokens)


PLACED = {
    "the first node by id that fits": (spec(), {B: audit(), A: audit()}, {}, A),
    "the next one where the first is too small": (spec(), {A: audit(usable_gib=4), B: audit()}, {}, B),
    "the next one where the first is promised to others": (spec(), {A: audit(), B: audit()}, {A: 12 * GIB}, B),
    "what others hold elsewhere does not count": (spec(), {A: audit()}, {B: 16 * GIB}, A),
    "a node without the files is passed over": (spec(), {A: Audit(Verdict.FETCHABLE), B: audit()}, {}, B),
}


@pytest.mark.parametrize(("wanted", "audits", "reserved", "node"), PLACED.values(), ids=PLACED.keys())
def test_a_model_is_placed_on(
    wanted: Spec, audits: Mapping[NodeId, Audit], reserved: Mapping[NodeId, int], node: NodeId
) -> None:
    found = place(wanted, audits, reserved)
    assert isinstance(found, Placed)
    assert found.node == node


# The weights of `audit()` with their activations, and the least KV.
FIXED, LEAST = fixed_bytes(audit()), KV_TOKENS_MIN * 65_536
BUDGETS = {
    "as many tokens as fit, where only one model does": (spec(), audit(usable_gib=5), (5 * GIB - FIXED) // 65_536),
    "less than one context, where no more fits": (
        spec(),
        audit(usable_gib=5, context=131_072),
        (5 * GIB - FIXED) // 65_536,
    ),
    "what a second model of the size leaves": (spec(), audit(), (16 * GIB - FIXED - FIXED - LEAST) // 65_536),
    "the least, where two models just fit": (
        spec(),
        replace(audit(), usable_memory_bytes=2 * (FIXED + LEAST)),
        KV_TOKENS_MIN,
    ),
    "all, where a second model would just not fit": (
        spec(),
        replace(audit(), usable_memory_bytes=2 * (FIXED + LEAST) - 65_536),
        (FIXED + 2 * LEAST) // 65_536 - 1,
    ),
    "eight full contexts, although more would fit": (spec(), audit(usable_gib=64, context=16_384), 131_072),
    "eight full contexts of a short one": (spec(), audit(usable_gib=64, context=512), 4_096),
    "eight times the least, where the context is not known": (spec(), audit(usable_gib=64, context=0), 65_536),
    "never more than one engine can use": (spec(), audit(usable_gib=64, context=131_072), KV_TOKENS_MAX),
    "what the operator asked for, although a second model then has none": (spec(140_000), audit(), 140_000),
    "what the operator asked for, where it fits": (spec(10_000), audit(), 10_000),
    "what the operator asked for, although more would fit": (spec(1_000), audit(usable_gib=64), 1_000),
    "the least, where the cost of a token is unknown": (spec(), audit(kv_bytes=0), KV_TOKENS_MIN),
    "what was asked for, where the cost of a token is unknown": (spec(9_000), audit(kv_bytes=0), 9_000),
    "a short context, where the cost of a token is unknown": (spec(), audit(kv_bytes=0, context=2_048), 2_048),
}


@pytest.mark.parametrize(("wanted", "found", "tokens"), BUDGETS.values(), ids=BUDGETS.keys())
def test_the_kv_budget_is(wanted: Spec, found: Audit, tokens: int) -> None:
    placed = place(wanted, {A: found}, {})
    assert isinstance(placed, Placed)
    assert placed.kv_budget_tokens == tokens


NEIGHBOURS = {
    "one after the other until only the least is left": (audit(usable_gib=32), [262_144, 37_683, 8_192]),
    "two of a machine that holds two": (audit(usable_gib=11), [27_852, 8_192]),
    "many small ones, each with its eight contexts": (
        audit(usable_gib=16, weight_gib=1, kv_bytes=16_384, context=8_192),
        [65_536] * 7,
    ),
}


@pytest.mark.parametrize(("found", "budgets"), NEIGHBOURS.values(), ids=NEIGHBOURS.keys())
def test_models_of_one_size_are_placed(found: Audit, budgets: list[int]) -> None:
    held, given_out = 0, []
    while isinstance(placed := place(spec(), {A: found}, {A: held}), Placed):
        held += placed.memory_bytes
        given_out.append(placed.kv_budget_tokens)
    assert given_out == budgets


REFUSED = {
    "one byte less than the least never fits": (
        spec(),
        replace(audit(), usable_memory_bytes=fixed_bytes(audit()) + KV_TOKENS_MIN * 65_536 - 1),
        0,
        True,
    ),
    "what others hold now may be free later": (spec(), audit(), 12 * GIB, False),
    "more KV than the machine has never fits": (spec(1_000_000), audit(), 0, True),
    "weights without any room for KV never fit": (spec(), audit(usable_gib=4.4), 0, True),
    "unknown KV cost and no room for the weights never fits": (spec(), audit(usable_gib=4, kv_bytes=0), 0, True),
    "files that can never be used": (spec(), Audit(Verdict.UNUSABLE, ("no config.json",)), 0, True),
    "files that can still be fetched": (spec(), Audit(Verdict.FETCHABLE), 0, False),
}


@pytest.mark.parametrize(("wanted", "found", "reserved", "permanent"), REFUSED.values(), ids=REFUSED.keys())
def test_a_model_is_not_placed(wanted: Spec, found: Audit, reserved: int, permanent: bool) -> None:
    placed = place(wanted, {A: found}, {A: reserved})
    assert isinstance(placed, NotPlaced)
    assert placed.permanent is permanent
    assert len(placed.reasons) == 1 and placed.reasons[0].startswith("a: ")


def test_the_exact_least_fits() -> None:
    least = fixed_bytes(audit()) + KV_TOKENS_MIN * 65_536
    placed = place(spec(), {A: audit(usable_gib=least / GIB)}, {})
    assert isinstance(placed, Placed)
    assert (placed.kv_budget_tokens, placed.memory_bytes) == (KV_TOKENS_MIN, least)


def test_a_short_context_needs_no_more_kv_than_itself() -> None:
    small = audit(usable_gib=(fixed_bytes(audit()) + 2_048 * 65_536) / GIB, context=2_048)
    placed = place(spec(), {A: small}, {})
    assert isinstance(placed, Placed)
    assert placed.kv_budget_tokens == 2_048


def test_one_node_that_might_do_later_keeps_it_from_being_impossible() -> None:
    placed = place(spec(), {A: audit(usable_gib=1), B: audit()}, {B: 16 * GIB})
    assert isinstance(placed, NotPlaced)
    assert not placed.permanent


def test_no_node_at_all_is_not_impossible() -> None:
    assert place(spec(), {}, {}) == NotPlaced((), permanent=False)


def test_every_rejected_node_carries_its_reason_with_figures() -> None:
    placed = place(spec(), {A: audit(usable_gib=1), B: Audit(Verdict.UNUSABLE, ("no config.json",)), C: audit()}, {})
    assert isinstance(placed, Placed)
    assert placed.reasons == (
        f"c: weights 4.00 GiB and {placed.kv_budget_tokens} tokens of KV fit into 16.00 GiB of memory",
        "a: needs 4.90 GiB, has 1.00 GiB free of 1.00 GiB",
        "b: no config.json",
    )


AUDITS = st.builds(
    Audit,
    verdict=st.sampled_from(Verdict),
    weight_bytes=st.integers(0, 8 * GIB),
    kv_bytes_per_token=st.integers(0, 300_000),
    context_length_tokens=st.integers(0, 131_072),
    usable_memory_bytes=st.integers(0, 16 * GIB),
)
NODES = st.sampled_from([A, B, C])


@given(
    st.dictionaries(NODES, AUDITS),
    st.dictionaries(NODES, st.integers(0, 16 * GIB)),
    st.integers(0, 300_000),
    st.randoms(use_true_random=False),
)
def test_laws(audits: dict[NodeId, Audit], reserved: dict[NodeId, int], tokens: int, order: Random) -> None:
    shuffled = list(audits.items())
    order.shuffle(shuffled)
    placed = place(spec(tokens), audits, reserved)
    assert place(spec(tokens), dict(shuffled), reserved) == placed, "the order of the nodes does not matter"
    if isinstance(placed, Placed):
        chosen = audits[placed.node]
        assert chosen.verdict is Verdict.USABLE
        assert placed.memory_bytes + reserved.get(placed.node, 0) <= chosen.usable_memory_bytes or (
            chosen.kv_bytes_per_token == 0
        ), "memory is never promised twice"
        assert not tokens or placed.kv_budget_tokens == tokens
        assert tokens or placed.kv_budget_tokens <= max(kv_tokens_useful(chosen), KV_TOKENS_MIN)
        held = reserved.get(placed.node, 0)
        least = fixed_bytes(chosen) + kv_tokens_least(spec(), chosen) * chosen.kv_bytes_per_token
        if not tokens and held + 2 * least <= chosen.usable_memory_bytes:
            second = place(spec(), {placed.node: chosen}, {placed.node: held + placed.memory_bytes})
            assert isinstance(second, Placed), "where there is room for two, the first leaves the second some"
    else:
        empty = place(spec(tokens), audits, {})
        assert not placed.permanent or isinstance(empty, NotPlaced), "impossible means: not even with nothing promised"
