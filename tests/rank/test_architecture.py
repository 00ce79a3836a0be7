"""The audit finds out by itself what an architecture may do in a batch; the engine then answers as alone."""

from typing import Any

import pytest

from rank.test_engine import alone, prompt, story
from thunderline.rank import architecture
from thunderline.rank.architecture import ALONE, BATCH, BATCHINGS, ONE_PROMPT, build, judge
from thunderline.rank.sampler import Params
from thunderline.rank.tiny import tiny

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


@pytest.mark.parametrize(
    ("config", "verdict"),
    [
        pytest.param(LLAMA, BATCH, id="llama may be batched"),
        pytest.param(GEMMA3, BATCH, id="sliding windows may be batched"),
        pytest.param(JAMBA, ONE_PROMPT, id="jamba takes one prompt at a time"),
        pytest.param(MAMBA, ONE_PROMPT, id="mamba takes one prompt at a time"),
    ],
)
def test_verdict(config: dict[str, Any], verdict: architecture.Batching) -> None:
    found, reason = judge(config)
    assert found is verdict, reason
    assert bool(reason) is (verdict is not BATCH)
    assert "tiny copy cannot be made" not in reason


def test_a_config_that_cannot_be_made_small_is_not_batched_blindly() -> None:
    found, reason = judge({**LLAMA, "hidden_size": "many"})
    assert found is ONE_PROMPT
    assert "tiny copy cannot be made" in reason


@pytest.mark.parametrize("config", [JAMBA, MAMBA], ids=["jamba", "mamba"])
def test_uneven_prompts_in_a_batch_are_answered_as_alone(config: dict[str, Any]) -> None:
    model = architecture._random_weights(build(tiny(config)))
    prompts = [tuple(one % 100 + 3 for one in prompt(seed, length)) for seed, length in enumerate((4, 11, 17, 9, 26))]
    params = [Params(), Params(0.8, seed=4), Params(), Params(0.9, top_p=0.9, seed=5), Params()]
    wanted = [alone(model, one, p) for one, p in zip(prompts, params, strict=True)]
    allowed, _ = judge(config)
    together = story(model, batch_size_max=allowed.batch_size_max, prompt_count_max=allowed.prompt_count_max)
    keys = [together.insert(one, p) for one, p in zip(prompts, params, strict=True)]
    together.run()
    assert [together.tokens[key] for key in keys] == wanted


def test_the_audit_can_fail() -> None:
    """Jamba in a full batch: the difference that the audit is there for."""
    model = architecture._random_weights(build(tiny(JAMBA)))
    one_by_one = architecture._answers(model, ALONE)
    assert architecture._answers(model, BATCH) != one_by_one


def test_every_name_has_its_batching() -> None:
    assert set(BATCHINGS) == {"batch", "one_prompt_at_a_time", "one_sequence_at_a_time"}


def test_a_tiny_config_keeps_the_pattern_of_its_layers() -> None:
    config = {"num_hidden_layers": 40, "layer_types": ["a", "a", "b", "a"] * 10, "text_config": dict(LLAMA)}
    small = tiny(config)
    assert small["layer_types"] == ["a", "a", "b", "a"] * 2
    assert small["text_config"]["num_hidden_layers"] == small["num_hidden_layers"] == 8
    assert "quantization" not in small["text_config"]
