"""Facts from a config, tensors, and the engine's word on what layers keep."""

from typing import Any

import pytest

from runner.test_loaded_weights import PLAIN
from thunderline.runner.model_facts import (
    KV_ESTIMATED,
    KV_UNKNOWN,
    Facts,
    Kept,
    LayerFacts,
    facts,
    kv_bytes_per_token,
    tensor_divisors,
    with_kept,
)

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


def found(**changes: Any) -> Facts:
    return facts({**CONFIG, **changes}, PLAIN, "digest")


def test_figures() -> None:
    plain = found()
    assert (plain.architecture, plain.layer_count, plain.hidden_size) == ("llama", 2, 32)
    assert (plain.head_count, plain.key_value_head_count, plain.element_bytes) == (4, 2, 2)
    assert (plain.vocabulary_size, plain.context_length_tokens, plain.digest) == (100, 256, "digest")
    assert plain.kv_bytes_per_token == 2 * 2 * 2 * 8 * 2
    assert plain.layers == (LayerFacts(220, 64, read_bytes=220),) * 2
    assert plain.weight_bytes == plain.load_peak_bytes == 220 * 2 + 2000 + 2000 + 20
    assert plain.unknowns == (KV_ESTIMATED,)


def test_figures_of_a_language_model_one_level_down() -> None:
    outer = {"model_type": "with_pictures", "text_config": {**CONFIG, "model_type": "llama"}}
    inner = facts(outer, PLAIN, "digest")
    assert (inner.architecture, inner.layer_count, inner.kv_bytes_per_token) == ("with_pictures", 2, 128)
    assert inner.head_bytes == 2000


def test_the_engines_word_replaces_the_estimate() -> None:
    told = with_kept(found(), [Kept(48, 512), Kept(0, 0, 30, 20)])
    assert told.kv_bytes_per_token == 96
    assert told.layers == (LayerFacts(220, 96, 512, 0, 220), LayerFacts(220, 0, 0, 80, 220))
    assert told.unknowns == ()


def test_without_the_engines_word_the_estimate_says_that_it_is_one() -> None:
    assert with_kept(found(), []).unknowns == (KV_ESTIMATED,)
    assert found(num_attention_heads=None, num_key_value_heads=None).unknowns == (KV_UNKNOWN,)


@pytest.mark.parametrize("count", [1, 3])
def test_caches_that_are_not_the_layers_are_spread_evenly_and_never_too_small(count: int) -> None:
    told = with_kept(found(), [Kept(5, 64, 7)] * count)
    assert told.kv_bytes_per_token == 10 * count
    assert sum(one.kv_bytes_per_token for one in told.layers) >= told.kv_bytes_per_token
    assert sum(one.state_bytes for one in told.layers) >= 14 * count
    assert {one.window_tokens for one in told.layers} == {0}
    assert f"{count} caches for 2 layers" in told.unknowns[0]


KV: dict[str, tuple[dict[str, object], int, int]] = {
    "grouped heads": ({"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}, 30, 2 * 30 * 3 * 64 * 4),
    "all heads": ({"num_attention_heads": 4, "hidden_size": 32}, 2, 2 * 2 * 4 * 8 * 4),
    "other names": ({"n_head": 4, "n_embd": 32}, 2, 2 * 2 * 4 * 8 * 4),
    "latent attention": ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, 2, 2 * 576 * 4),
    "unknown": ({}, 2, 0),
    "nonsense": ({"num_attention_heads": -4, "hidden_size": None, "head_dim": True}, 2, 0),
}


@pytest.mark.parametrize("case", KV)
def test_kv_of_a_token(case: str) -> None:
    config, layers, expected = KV[case]
    assert kv_bytes_per_token(config, 4, layers) == expected


@pytest.mark.parametrize(
    ("config", "divisors"),
    [
        pytest.param(
            {"num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536},
            (("num_attention_heads", 9), ("num_key_value_heads", 3), ("intermediate_size", 1536)),
            id="heads and widths",
        ),
        pytest.param(
            {"num_attention_heads": 8, "intermediate_size": 1536, "quantization": {"group_size": 64, "bits": 4}},
            (("num_attention_heads", 8), ("intermediate_size / 64", 24)),
            id="whole groups of packed weights",
        ),
        pytest.param(
            {"num_attention_heads": 8, "linear_num_key_heads": 4, "moe_intermediate_size": 32},
            (("num_attention_heads", 8), ("linear_num_key_heads", 4), ("moe_intermediate_size", 32)),
            id="heads of states, and experts",
        ),
        pytest.param({}, (), id="nothing is named"),
    ],
)
def test_what_the_ranks_of_a_tensor_split_divide(config: dict[str, Any], divisors: tuple[tuple[str, int], ...]) -> None:
    assert tensor_divisors(config, config) == divisors


@pytest.mark.parametrize(
    ("config", "words"),
    [
        pytest.param({}, "", id="none"),
        pytest.param({"quantization": {"group_size": 64, "bits": 4}}, "4 bits, groups of 64, affine", id="mlx"),
        pytest.param({"quantization_config": {"quant_method": "fp8"}}, "fp8", id="fp8"),
        pytest.param({"quantization": "four"}, "", id="nonsense"),
    ],
)
def test_quantization_in_words(config: dict[str, Any], words: str) -> None:
    assert found(**config).quantization == words


def test_a_config_that_lies_about_its_layers_costs_nothing() -> None:
    many = found(num_hidden_layers=2**40)
    assert many.layer_count == 2**31 - 1
    assert len(many.layers) == 2
