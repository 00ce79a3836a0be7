"""The audit finds out by itself what an architecture may do in a batch; the engine then answers as alone."""

import json
from functools import cache
from typing import Any

import pytest

from rank.test_engine import alone, prompt, story
from thunderline.rank import architecture
from thunderline.rank.architecture import ALONE, BATCH, BATCHINGS, ONE_PROMPT, Batching, build, judge
from thunderline.rank.prefill import BUDGET_ALONE_S, RATE_START_TOKENS_PER_S
from thunderline.rank.sampler import Params
from thunderline.rank.tiny import HEADS, INNER, KV_HEADS, WINDOW, tiny

# Configs as they are published, less what says nothing about the shape.
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "vocab_size": 128256,
    "rope_theta": 500000.0,
    "max_position_embeddings": 131072,
    "quantization": {"group_size": 64, "bits": 4},
}
JAMBA = {
    "model_type": "jamba",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "attn_layer_offset": 4,
    "attn_layer_period": 8,
    "expert_layer_offset": 1,
    "expert_layer_period": 2,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    "mamba_expand": 2,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 262144,
    "vocab_size": 65536,
}
MAMBA = {
    "model_type": "mamba",
    "vocab_size": 50280,
    "hidden_size": 768,
    "intermediate_size": 1536,
    "state_size": 16,
    "num_hidden_layers": 24,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "time_step_rank": 48,
}
GEMMA3 = {
    "model_type": "gemma3_text",
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "intermediate_size": 6912,
    "num_attention_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "vocab_size": 262144,
    "num_key_value_heads": 1,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "max_position_embeddings": 32768,
}


@cache
def judged(config: str) -> tuple[Batching, str]:
    """As JSON."""
    return judge(json.loads(config))


@pytest.mark.parametrize(
    ("config", "verdict"),
    [
        pytest.param(LLAMA, BATCH, id="llama may be batched"),
        pytest.param(GEMMA3, BATCH, id="sliding windows may be batched"),
        pytest.param(JAMBA, ONE_PROMPT, id="jamba takes one prompt at a time"),
        pytest.param(MAMBA, ONE_PROMPT, id="mamba takes one prompt at a time"),
        pytest.param(
            {**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            ALONE,
            id="llama with positions by length alone",
        ),
    ],
)
def test_verdict(config: dict[str, Any], verdict: architecture.Batching) -> None:
    found, reason = judged(json.dumps(config))
    assert found is verdict, reason
    assert bool(reason) is (verdict is not BATCH)
    assert "tiny copy cannot be made" not in reason


def test_a_config_that_cannot_be_made_small_is_not_batched_blindly() -> None:
    found, reason = judge({**LLAMA, "hidden_size": "many"})
    assert found is ALONE
    assert "tiny copy cannot be made" in reason


@pytest.mark.parametrize("config", [JAMBA, MAMBA], ids=["jamba", "mamba"])
def test_uneven_prompts_in_a_batch_are_answered_as_alone(config: dict[str, Any]) -> None:
    model = architecture.random_weights(build(tiny(config)))
    prompts = [tuple(one % 100 + 3 for one in prompt(seed, length)) for seed, length in enumerate((4, 11, 17, 9, 26))]
    params = [Params(), Params(0.8, seed=4), Params(), Params(0.9, top_p=0.9, seed=5), Params()]
    wanted = [alone(model, one, p) for one, p in zip(prompts, params, strict=True)]
    allowed, _ = judged(json.dumps(config))
    together = story(model, batch_size_max=allowed.batch_size_max, prompt_count_max=allowed.prompt_count_max)
    keys = [together.insert(one, p) for one, p in zip(prompts, params, strict=True)]
    together.run()
    assert [together.tokens[key] for key in keys] == wanted


def test_the_audit_can_fail() -> None:
    """Jamba in a full batch: the difference that the audit is there for."""
    model = architecture.random_weights(build(tiny(JAMBA)))
    one_by_one = architecture._answers(model, ALONE)
    assert architecture._answers(model, BATCH) != one_by_one


def test_every_name_has_its_batching() -> None:
    assert set(BATCHINGS) == {"batch", "one_prompt_at_a_time", "one_sequence_at_a_time"}


ROPE_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SLIDING = {"sliding_window": 4096, "layer_types": ["sliding_attention", "full_attention"] * 16}
LONG_ROPE = {
    "type": "longrope",
    "long_factor": [1.5] * 48,
    "short_factor": [1.0] * 48,
    "original_max_position_embeddings": 4096,
}
PHI3 = {**LLAMA, "model_type": "phi3", "head_dim": 128, "rope_scaling": LONG_ROPE, "partial_rotary_factor": 0.75}
QWEN3_MOE = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({**LLAMA, "rope_scaling": ROPE_LLAMA3}, id="scaled positions"),
        pytest.param({**LLAMA, **SLIDING}, id="windows in every other layer"),
        pytest.param(PHI3, id="factors for each rotated pair"),
        pytest.param(QWEN3_MOE, id="a router that chooses eight of 128 experts"),
        pytest.param({**QWEN3_MOE, "quantization_config": {"bits": 4, "mode": "mxfp4"}}, id="quantized experts"),
    ],
)
def test_what_a_config_may_have_is_audited_not_given_up(config: dict[str, Any]) -> None:
    assert judge(config) == (BATCH, "")


@pytest.mark.parametrize(
    ("given", "small"),
    [
        pytest.param({"sliding_window": 4096}, {"sliding_window": WINDOW}, id="a window becomes shorter than prompts"),
        pytest.param({"sliding_window": 3}, {"sliding_window": 3}, id="a shorter window stays"),
        pytest.param({"sliding_window": None}, {"sliding_window": None}, id="no window stays none"),
        pytest.param({"index_topk": 2048}, {"index_topk": WINDOW}, id="sparse attention leaves something out"),
        pytest.param(
            {"num_experts": 128, "num_experts_per_tok": 8},
            {"num_experts": 4, "num_experts_per_tok": 2},
            id="a router still chooses",
        ),
        pytest.param({"num_experts_per_tok": 1}, {"num_experts_per_tok": 1}, id="of one expert stays one"),
        pytest.param({"num_experts": 0}, {"num_experts": 0}, id="a dense model stays dense"),
        pytest.param(
            {"num_attention_heads": 32, "num_key_value_heads": 8},
            {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS},
            id="grouped queries stay grouped",
        ),
        pytest.param(
            {"num_attention_heads": 32, "num_key_value_heads": 32},
            {"num_attention_heads": HEADS, "num_key_value_heads": HEADS},
            id="heads with keys of their own keep them",
        ),
        pytest.param({"num_key_value_heads": 1}, {"num_key_value_heads": 1}, id="one head of keys stays one"),
        pytest.param(
            {"rope_scaling": ROPE_LLAMA3},
            {"rope_scaling": {**ROPE_LLAMA3, "original_max_position_embeddings": 2 * WINDOW}},
            id="scaled positions stay scaled, from within a prompt on",
        ),
        pytest.param({"dtype": "bfloat16", "quantization": {"bits": 4}}, {}, id="the format of weights goes"),
        pytest.param(
            {"num_hidden_layers": 12, "model_type": "muse_glimmer"},
            {"num_hidden_layers": 8, "model_type": "muse_glimmer"},
            id="a name of as many letters as layers is no pattern",
        ),
        pytest.param(
            {"num_hidden_layers": 18, "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-"},
            {"num_hidden_layers": 8, "hybrid_override_pattern": "M-M-M-M*"},
            id="a layer of each kind stays, however late it comes",
        ),
        pytest.param(
            {"num_hidden_layers": 10, "intermediate_size": [512] * 10},
            {"num_hidden_layers": 8, "intermediate_size": [INNER] * 8},
            id="sizes layer by layer",
        ),
    ],
)
def test_a_tiny_config_keeps_what_decides(given: dict[str, Any], small: dict[str, Any]) -> None:
    assert tiny(given) == small


def test_a_window_that_the_config_is_silent_about_is_short_too() -> None:
    silent = {key: value for key, value in GEMMA3.items() if key != "sliding_window"}
    assert tiny(architecture.complete(silent))["sliding_window"] == WINDOW


def test_windows_and_chunks_are_shorter_than_prompts() -> None:
    lengths = sorted(architecture.PROMPT_LENGTHS)
    assert lengths[0] < WINDOW < lengths[1]
    # One is processed in two steps, the first of which takes RATE_START x BUDGET_ALONE tokens in three equal shares.
    assert lengths[-1] > RATE_START_TOKENS_PER_S * BUDGET_ALONE_S / 3


def test_a_tiny_config_keeps_the_pattern_of_its_layers() -> None:
    config = {"num_hidden_layers": 40, "layer_types": ["a", "a", "b", "a"] * 10, "text_config": dict(LLAMA)}
    small = tiny(config)
    assert small["layer_types"] == ["a", "a", "b", "a"] * 2
    assert small["text_config"]["num_hidden_layers"] == small["num_hidden_layers"] == 8
    assert "quantization" not in small["text_config"]
