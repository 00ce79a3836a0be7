"""How an architecture can be divided is found by trying; what differs, and what only seems right, is refused."""

import json
import os
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from rank.test_architecture import GEMMA3, JAMBA, LLAMA, MAMBA, QWEN3_MOE
from thunderline.rank import tensor_split
from thunderline.rank.architecture import ALONE, BATCH, ONE_PROMPT, SEEDS, Batching, complete
from thunderline.rank.audit import audit
from thunderline.rank.pipeline import Advance, advance
from thunderline.rank.splits import Answers, difference, pipeline
from thunderline.rank.tiny import tiny

CONFIGS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "audit/configs.json").read_text())


def small(config: dict[str, Any]) -> dict[str, Any]:
    return tiny(complete(config))


@pytest.mark.parametrize(
    ("config", "batching"),
    [
        pytest.param(LLAMA, BATCH, id="dense"),
        pytest.param(QWEN3_MOE, BATCH, id="experts"),
        pytest.param(GEMMA3, BATCH, id="windows"),
        pytest.param(JAMBA, ONE_PROMPT, id="states and attention"),
        pytest.param(MAMBA, ONE_PROMPT, id="states alone"),
        pytest.param(LLAMA, ALONE, id="one sequence at a time"),
    ],
)
def test_parts_that_answer_as_the_whole_are_accepted(config: dict[str, Any], batching: Batching) -> None:
    found = pipeline(small(config), batching, SEEDS[0])
    assert (found.is_possible, found.reason) == (True, "")


def test_layers_that_give_more_than_a_hidden_state_are_refused() -> None:
    found = pipeline(small(CONFIGS["gemma3n"]), BATCH, SEEDS[0])
    assert not found.is_possible
    assert found.reason


def test_one_layer_is_not_divided() -> None:
    found = pipeline({**small(LLAMA), "num_hidden_layers": 1}, BATCH, SEEDS[0])
    assert (found.is_possible, found.reason) == (False, "it has one layer")


def nothing(cache: Any, hidden: mx.array) -> None:
    """Positions are not kept at all."""


def too_little(cache: Any, hidden: mx.array) -> None:
    """One position of each chunk is lost."""
    advance(cache, hidden[:, : max(1, hidden.shape[1] - 1)])


@pytest.mark.parametrize(
    ("name", "move"),
    [
        *((name, nothing) for name in ("llama", "gemma3_text", "gpt2", "mamba2", "qwen3_next")),
        # A state has no position: its cache counts padding, anew in each chunk.
        *((name, too_little) for name in ("llama", "gemma3_text", "gpt2")),
    ],
)
def test_positions_that_are_not_kept_are_noticed(name: str, move: Advance) -> None:
    config = small(CONFIGS[name])
    assert pipeline(config, BATCH, SEEDS[0]).is_possible
    assert not pipeline(config, BATCH, SEEDS[0], move).is_possible


def answers(tokens: list[int], values: list[float]) -> Answers:
    return Answers([tokens], [mx.array([values])])


INFINITE = float("inf")
DIFFERENCES = {
    "equal": (answers([1], [0.5, -1.0]), answers([1], [0.5, -1.0]), ""),
    "rounding": (answers([1], [0.5, -1.0]), answers([1], [0.50001, -1.0]), ""),
    "a token that is never chosen in both": (answers([1], [0.5, -INFINITE]), answers([1], [0.5, -INFINITE]), ""),
    "another token": (answers([1], [0.5, -1.0]), answers([2], [0.5, -1.0]), "other tokens"),
    "another value": (answers([1], [0.5, -1.0]), answers([1], [0.5, -1.5]), "differ by 0.5"),
    "no number": (answers([1], [0.5, float("nan")]), answers([1], [0.5, -1.0]), "differ by inf"),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_what_counts_as_a_difference(case: str) -> None:
    found, wanted, words = DIFFERENCES[case]
    text = difference(found, wanted, 5e-5)
    assert words in text
    assert bool(text) is bool(words)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        pytest.param(LLAMA, "", id="heads that two ranks can share"),
        pytest.param({**LLAMA, "num_key_value_heads": 1}, "on 2 ranks", id="one head of keys for two ranks"),
        pytest.param(GEMMA3, "no `shard`", id="mlx-lm does not divide its layers"),
    ],
)
def test_two_ranks_on_loopback_tell_whether_layers_can_be_divided(config: dict[str, Any], why: str) -> None:
    found = tensor_split.tensor(config, small(config), BATCH.name, SEEDS)
    assert why in found.reason
    assert bool(found.reason) is bool(why)


if os.environ.get("PROVE"):

    def test_what_each_rank_has_whole_is_told_of_the_real_sizes() -> None:
        """Compressed latent attention: each head reads all of it."""
        config = CONFIGS["deepseek_v3"]
        found = tensor_split.tensor(config, small(config), BATCH.name, SEEDS)
        assert (found.reason, found.kv) == ("", 1.0)
        assert 0.01 < found.weights < 0.5

    def test_sizes_that_two_ranks_cannot_divide_are_told_by_the_tiny_copy() -> None:
        config = {**LLAMA, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}
        found = tensor_split.tensor(config, small(LLAMA), BATCH.name, SEEDS)
        assert (found.reason, found.kv) == ("", 0.0)
        assert 0 < found.weights < 0.05


def test_two_audits_beside_each_other_have_ports_of_their_own() -> None:
    with tensor_split.held_ports() as mine, tensor_split.held_ports() as others:
        assert len({*mine, *others}) == 2 * tensor_split.RANK_COUNT


def test_an_audit_has_both_halves(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GEMMA3))
    found = audit(tmp_path)
    assert (found["supported"], found["batching"]) == (True, "batch")
    assert found["splits"]["pipeline"] and not found["splits"]["tensor"]
    assert found["splits"]["engine"].startswith("mlx-lm ")
