"""A tiny copy of a model's config: the same architecture and pattern of layers, a few thousand weights. Pure.

What an architecture does in a batch does not depend on its width, so the audit runs on this. Only keys that the config
has are changed; what is not known here stays, and a config that cannot be built so is said to be unaudited.
"""

from collections.abc import Mapping
from typing import Any

# Enough for every pattern that repeats within eight layers (Jamba's attention is one in eight).
LAYER_COUNT_MAX = 8
VOCABULARY_SIZE = 128
HIDDEN, HEADS, KV_HEADS, HEAD_WIDTH, INNER = 64, 4, 2, 16, 96

_LAYER_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_transformer_layers")
# Sizes that fit each other.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "padded_vocab_size"), VOCABULARY_SIZE),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "hidden_dim", "model_dim", "lru_width"), HIDDEN),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "linear_num_value_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "n_kv_heads", "num_kv_heads", "linear_num_key_heads"), KV_HEADS),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim", "linear_key_head_dim"), HEAD_WIDTH),
    **dict.fromkeys(("linear_value_head_dim", "index_head_dim", "kv_lora_rank", "attention_head_dim"), HEAD_WIDTH),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), HEAD_WIDTH // 2),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "n_inner", "intermediate_size_mlp"), INNER),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("shared_expert_intermediate_size", "hidden_size_per_layer_input"), 32),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("sliding_window", "attention_window_size"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len"), 512),
    "q_lora_rank": 24,
    "index_n_heads": 2,
    "index_topk": 64,
    "state_size": 16,
    "ssm_state_size": 16,
    "mamba_d_state": 16,
    "mamba_num_heads": 4,
    "mamba_n_heads": 4,
    "mamba_head_dim": 16,
    "mamba_d_head": 16,
    "mamba_d_ssm": 64,
    "n_groups": 2,
    "mamba_n_groups": 1,
    "time_step_rank": 4,
    "mamba_dt_rank": 4,
}
# Weights' formats are not the architecture's business.
_DROPPED = ("quantization", "quantization_config", "dtype", "torch_dtype")


def tiny(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of the same keys, small; nested configs (`text_config`) too."""
    layers = next((int(config[key]) for key in _LAYER_COUNTS if isinstance(config.get(key), int)), 0)
    return {key: _small(key, value, config, layers) for key, value in config.items() if key not in _DROPPED}


def _small(key: str, value: Any, config: Mapping[str, Any], layers: int) -> Any:
    if key in _LAYER_COUNTS and isinstance(value, int):
        return min(value, LAYER_COUNT_MAX)
    if isinstance(value, Mapping):
        return tiny(value)
    if isinstance(value, list | str) and layers > LAYER_COUNT_MAX and len(value) == layers:
        # One entry a layer.
        return value[:LAYER_COUNT_MAX]
    if key in _SIZES and isinstance(value, int) and not isinstance(value, bool):
        if key in ("num_key_value_heads", "n_kv_heads") and value == config.get("num_attention_heads"):
            return HEADS
        return _SIZES[key]
    if isinstance(value, list) and value and key in ("long_factor", "short_factor"):
        return value[: HEAD_WIDTH // 2]
    return value
