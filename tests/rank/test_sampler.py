import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from thunderline.rank.sampler import (
    CANDIDATE_COUNT,
    Params,
    Sampler,
    Shaping,
    gather_logprobs,
    gumbel,
    most_likely,
    powers,
)

VOCABULARY = 512
Floats = npt.NDArray[np.floating[Any]]


def logits(rows: int, seed: int = 0, size: int = VOCABULARY) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(0, 3, (rows, size)).astype(np.float32))


def sample(values: mx.array, params: Sequence[Params], positions: Sequence[int]) -> list[int]:
    found: Any = Sampler(params).sample(values, positions).tolist()
    return list(found)


MIXED = [
    Params(),
    Params(0.8, seed=5),
    Params(0.8, top_p=0.9, seed=6),
    Params(0.7, top_k=20, min_p=0.05, seed=2**63 + 3),
    Params(1.3, seed=5 + 2**32),
    Params(),
    Params(1.0, top_p=0.5, seed=9),
    Params(2.0, seed=2**64 - 1),
]


def test_a_greedy_row_is_the_argmax() -> None:
    values = logits(4)
    assert sample(values, [Params()] * 4, [0, 1, 2, 3]) == mx.argmax(values, axis=-1).tolist()


@pytest.mark.parametrize("trial", range(10), ids=lambda trial: f"shuffle {trial}")
def test_a_row_gets_the_same_token_in_any_company(trial: int) -> None:
    values, positions = logits(len(MIXED), trial), [3, 1, 4, 1, 5, 9, 2, 6]
    alone = [sample(values[i : i + 1], [p], [positions[i]])[0] for i, p in enumerate(MIXED)]
    order = random.Random(trial).sample(range(len(MIXED)), k=random.Random(trial).randint(2, len(MIXED)))
    together = sample(values[mx.array(order)], [MIXED[i] for i in order], [positions[i] for i in order])
    assert together == [alone[i] for i in order]


def test_position_low_and_high_half_of_the_seed_all_matter() -> None:
    values = mx.zeros((1, VOCABULARY))
    tokens = {
        sample(values, [Params(1.0, seed=seed)], [position])[0]
        for seed, position in ((7, 0), (7, 1), (8, 0), (7 + 2**32, 0), (7 << 32, 0))
    }
    assert len(tokens) == 5


@pytest.mark.parametrize(
    "params",
    [
        pytest.param(Params(1.0), id="temperature 1"),
        pytest.param(Params(0.5), id="temperature 0.5 sharpens"),
        pytest.param(Params(1.0, top_k=3), id="top_k 3"),
        pytest.param(Params(1.0, top_p=0.8), id="top_p 0.8"),
        pytest.param(Params(1.0, min_p=0.2), id="min_p 0.2"),
    ],
)
def test_tokens_come_as_often_as_their_probability_says(params: Params) -> None:
    values = np.array([2.0, 1.5, 1.0, 0.0, -1.0, -3.0], dtype=np.float32)
    expected = _allowed_shares(values / params.temperature, params)
    count = 4000
    drawn = sample(
        mx.broadcast_to(mx.array(values)[None], (count, 6)),
        [replace(params, seed=seed) for seed in range(count)],
        [0] * count,
    )
    seen = np.bincount(drawn, minlength=6)
    assert not seen[expected == 0].any()
    allowed = expected > 0
    chi_square = ((seen - count * expected)[allowed] ** 2 / (count * expected[allowed])).sum()
    # 99.9% of a true sampler's runs lie below, with 5 degrees of freedom.
    assert chi_square < 20.5


def _allowed_shares(scaled: Floats, params: Params) -> Floats:
    """By the definition, token by token; `scaled` is sorted."""
    shares = np.exp(scaled) / np.exp(scaled).sum()
    before = 0.0
    kept = np.zeros_like(shares)
    for i, share in enumerate(shares):
        if (not params.top_p or before < params.top_p) and (not params.top_k or i < params.top_k):
            kept[i] = share if share >= params.min_p * shares[0] else 0.0
        before += share
    return np.asarray(kept / kept.sum())


def test_a_vocabulary_larger_than_the_candidates_keeps_their_exact_mass() -> None:
    # One token has 0.6, the other 4,095 share 0.4: top_p 0.55 leaves only the first.
    size = 4 * CANDIDATE_COUNT
    values = np.full((200, size), math.log(0.4 / (size - 1)), dtype=np.float32)
    values[:, 77] = math.log(0.6)
    params = [Params(1.0, top_p=0.55, seed=seed) for seed in range(200)]
    assert set(sample(mx.array(values), params, [0] * 200)) == {77}


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(20_000, id="searched by blocks"),
        pytest.param(20_001, id="blocks do not divide it"),
        pytest.param(3_000, id="fewer blocks than candidates"),
        pytest.param(100, id="fewer tokens than candidates"),
    ],
)
def test_the_candidates_are_the_most_likely_tokens(size: int) -> None:
    values = logits(3, size=size)
    ids, found = most_likely(values)
    for row in range(3):
        mine = np.array(values[row])
        assert np.array(found[row]).tolist() == np.sort(mine)[::-1][:CANDIDATE_COUNT].tolist()
        assert mine[np.array(ids[row])].tolist() == np.array(found[row]).tolist()
        assert len(set(np.array(ids[row]).tolist())) == ids.shape[-1]


def test_powers_are_those_of_e() -> None:
    values = -np.linspace(0, 40, 5000, dtype=np.float32)[None]
    found = np.array(powers(mx.array(values), mx.zeros((1, 1))), dtype=np.float64)
    wanted = np.exp(values.astype(np.float64))
    assert np.abs(found / wanted - 1)[values > -8].max() < 3e-5
    assert np.abs(found - wanted).max() < 3e-5


def test_top_k_of_one_is_greedy() -> None:
    values = logits(50)
    params = [Params(1.5, top_k=1, seed=seed) for seed in range(50)]
    assert sample(values, params, [0] * 50) == mx.argmax(values, axis=-1).tolist()


def test_noise_has_the_moments_of_a_standard_gumbel() -> None:
    column = mx.array([[1]], dtype=mx.uint32)
    noise = np.array(gumbel(column, column, column, mx.arange(200_000, dtype=mx.uint32)[None]))
    assert noise.mean() == pytest.approx(0.5772, abs=0.01)
    assert noise.std() == pytest.approx(math.pi / math.sqrt(6), abs=0.01)


def test_noise_is_finite_everywhere() -> None:
    # One infinite value in a vocabulary wins over every logit.
    column = mx.array([[1]], dtype=mx.uint32)
    positions = mx.arange(300, dtype=mx.uint32)[:, None]
    noise = gumbel(column, column, positions, mx.arange(49_152, dtype=mx.uint32)[None])
    assert mx.isfinite(noise).all().item()


def shaped(params: Params, generated: Sequence[int], newest: int, is_generated: bool = True) -> Floats:
    """What becomes of logits 2, -2, 2, -2, ... of six tokens."""
    values = mx.array([[2.0, -2.0, 2.0, -2.0, 2.0, -2.0]])
    found = Shaping([params], [generated], 6).apply(values, mx.array([newest], dtype=mx.uint32), [is_generated])
    return np.asarray(np.array(found)[0])


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param(Params(), [2, -2, 2, -2, 2, -2], id="nothing asked, nothing changed"),
        pytest.param(Params(presence_penalty=0.5), [1.5, -2.5, 2, -2, 2, -2], id="presence counts once"),
        pytest.param(Params(frequency_penalty=0.5), [1.0, -2.5, 2, -2, 2, -2], id="frequency counts each time"),
        pytest.param(Params(repetition_penalty=2.0), [1, -4, 2, -2, 2, -2], id="repetition pushes towards minus"),
        pytest.param(Params(logit_bias={2: 5.0, 3: -5.0}), [2, -2, 7, -7, 2, -2], id="bias is added"),
        pytest.param(Params(presence_penalty=-1.0), [3, -1, 2, -2, 2, -2], id="a negative penalty invites"),
    ],
)
def test_penalties_over_the_generated_tokens_0_0_1(params: Params, expected: list[float]) -> None:
    assert shaped(params, [0, 0], newest=1) == pytest.approx(expected)


def test_the_last_token_of_a_prompt_is_not_penalized() -> None:
    assert shaped(Params(presence_penalty=1.0), [], 4, is_generated=False) == pytest.approx([2, -2, 2, -2, 2, -2])


def test_counts_go_on_from_step_to_step() -> None:
    shaping = Shaping([Params(), Params(frequency_penalty=1.0)], [[], [3]], 6)
    zeros = mx.zeros((2, 6))
    for newest in ([1, 3], [1, 5]):
        found = np.array(shaping.apply(zeros, mx.array(newest, dtype=mx.uint32), [True, True]))
    assert found.tolist() == [[0] * 6, [0, 0, 0, -2, 0, -1]]


def test_logprobs_are_those_of_the_model_for_each_row_that_asked() -> None:
    values = logits(6)
    chosen = mx.array([7, 8, 9, 10, 11, 12], dtype=mx.uint32)
    wanted = {0: 0, 2: 1, 3: 20, 5: 5}
    found = gather_logprobs(values, chosen, wanted)
    assert found.keys() == wanted.keys()
    for row, count in wanted.items():
        true = np.array(values[row], dtype=np.float64)
        true -= np.log(np.exp(true).sum())
        own, ids, tops = found[row].to_host()
        best = np.argsort(-true)[:count]
        assert own == pytest.approx(true[7 + row], abs=1e-4)
        assert list(ids) == best.tolist()
        assert np.array(tops) == pytest.approx(true[best], abs=1e-4)


def test_nobody_asked_for_logprobs() -> None:
    assert gather_logprobs(logits(2), mx.array([1, 2], dtype=mx.uint32), {}) == {}


def test_a_temperature_that_no_float_can_be_divided_by_is_none() -> None:
    logits = mx.array([[-5.0, 3.0, 4.0, -1.0]] * 4)
    params = [Params(1e-40, seed=1), Params(1e-40, top_p=0.9, seed=1), Params(1e-6, top_k=2, seed=1), Params()]
    assert Sampler(params).sample(logits, [0, 1, 2, 3]).tolist() == [2, 2, 2, 2]
