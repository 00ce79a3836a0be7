"""A tiny copy of a model's config: the same architecture and kinds of layers, some ten thousand weights. Pure.

What an architecture does in a batch does not depend on its width, so the audit runs on this. It may depend on what is
shorter than a prompt: windows, chunks and top-k choices therefore become shorter than the audit's prompts. Only keys
that the config has are changed; what is not known here stays, and a config that cannot be built so is not batched.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# Enough for every pattern that repeats within eight layers (Jamba's attention is one in eight).
LAYER_COUNT_MAX = 8
VOCABULARY_SIZE = 128
HIDDEN, HEADS, KV_HEADS, HEAD_WIDTH, INNER = 64, 4, 2, 16, 96
# Shorter than most of the audit's prompts, so that each wraps.
WINDOW = 8

_LAYER_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_transformer_layers")
# Say what each layer is, where a config has no count of them.
_LAYER_KINDS = ("layer_types", "hybrid_override_pattern", "layers_block_type", "block_configs")
# Sizes that fit each other.
_SIZES: dict[str, int] = {
    **dict.fromkeys(
        ("vocab_size", "vocab_size_per_layer_input", "padded_vocab_size", "embedding_size"), VOCABULARY_SIZE
    ),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "hidden_dim", "model_dim", "lru_width"), HIDDEN),
    **dict.fromkeys(("block_dim", "dim_model_base"), HIDDEN),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "linear_num_value_heads"), HEADS),
    **dict.fromkeys(("num_query_heads", "swa_num_attention_heads"), HEADS),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim", "linear_key_head_dim", "kv_channels"), HEAD_WIDTH),
    **dict.fromkeys(("linear_value_head_dim", "index_head_dim", "kv_lora_rank", "attention_head_dim"), HEAD_WIDTH),
    **dict.fromkeys(("swa_head_dim", "swa_v_head_dim", "o_lora_rank"), HEAD_WIDTH),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), HEAD_WIDTH // 2),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "n_inner", "intermediate_size_mlp"), INNER),
    **dict.fromkeys(("block_ff_dim", "ff_intermediate_size", "dense_intermediate_size", "mlp_hidden_size"), INNER),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("shared_expert_intermediate_size", "hidden_size_per_layer_input"), 32),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "share_expert_dim"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len"), 512),
    "q_lora_rank": 24,
    "n_shared_head": 2,
    "mamba_num_heads": 4,
    "mamba_n_heads": 4,
    "mamba_head_dim": 16,
    "mamba_d_head": 16,
    "mamba_d_ssm": 64,
    "time_step_rank": 4,
    "mamba_dt_rank": 4,
}
# Counts and lengths that may be smaller already, and none at all.
_AT_MOST: dict[str, int] = {
    **dict.fromkeys(("num_key_value_heads", "n_kv_heads", "num_kv_heads", "linear_num_key_heads"), KV_HEADS),
    **dict.fromkeys(("kv_n_heads", "swa_num_key_value_heads", "num_attention_groups", "index_n_heads"), KV_HEADS),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_top_k", "num_experts_per_token", "top_k_experts"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("n_group", "num_expert_group", "o_groups", "mamba_n_groups", "n_groups"), 2),
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state"), 16),
    # Such layers use the keys of the others, which have to be there.
    **dict.fromkeys(("num_kv_shared_layers", "num_kv_reuse_layers"), 2),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size", "window_size"), WINDOW),
    **dict.fromkeys(("attention_chunk_size", "loop_window_size", "index_topk", "floor_scale"), WINDOW),
    **dict.fromkeys(("mamba_chunk_size", "original_max_position_embeddings"), 2 * WINDOW),
    **dict.fromkeys(("index_block_size", "sparse_block_size", "candidate_block_size", "compress_ratios"), 4),
    **dict.fromkeys(("index_topk_blocks", "sparse_topk_blocks", "candidate_topk_blocks"), 2),
}
# Weights' formats are not the architecture's business, nor is what is not text.
_DROPPED = ("quantization", "quantization_config", "dtype", "torch_dtype", "vision_config", "audio_config")


def tiny(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of the same keys, small; nested configs (`text_config`) too."""
    kept = _kept_layers(config)
    return {key: _small(key, value, config, kept) for key, value in config.items() if key not in _DROPPED}


def _kept_layers(config: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """How many layers there are, and which of them stay: the first ones, and one of each kind."""
    count = next((config[key] for key in _LAYER_COUNTS if _is_count(config.get(key))), 0)
    if not count:
        count = len(next((config[key] for key in _LAYER_KINDS if config.get(key)), ()))
    lists = [value for key, value in config.items() if _is_per_layer(key, value, count)]
    kinds = [repr([one[layer] for one in lists]) for layer in range(count)]
    first_of_kind = sorted({kind: layer for layer, kind in reversed(list(enumerate(kinds)))}.values())
    others = [layer for layer in range(count) if layer not in first_of_kind]
    return count, tuple(sorted([*first_of_kind, *others][:LAYER_COUNT_MAX]))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_per_layer(key: str, value: object, count: int) -> bool:
    # A model_type of twelve letters is no pattern of twelve layers.
    is_pattern = isinstance(value, list | tuple) or (isinstance(value, str) and key.endswith("pattern"))
    return is_pattern and len(value) == count > 0  # type: ignore[arg-type]


def _small(key: str, value: Any, config: Mapping[str, Any], kept: tuple[int, tuple[int, ...]]) -> Any:
    count, layers = kept
    if key in _LAYER_COUNTS and _is_count(value):
        return min(value, LAYER_COUNT_MAX)
    if isinstance(value, Mapping):
        return {
            name: _rope_factors(config, one) if name.endswith("_factor") else one for name, one in tiny(value).items()
        }
    if _is_per_layer(key, value, count):
        chosen = [value[layer] for layer in layers]
        if isinstance(value, str):
            return "".join(chosen)
        return [tiny(one) if isinstance(one, Mapping) else _size(key, one, config) for one in chosen]
    return _size(key, value, config)


def _size(key: str, value: Any, config: Mapping[str, Any]) -> Any:
    if not _is_count(value):
        return value
    if key in ("num_key_value_heads", "n_kv_heads") and value == config.get(
        "num_attention_heads", config.get("n_heads")
    ):
        return HEADS
    return min(value, _AT_MOST[key]) if key in _AT_MOST else _SIZES.get(key, value)


def _rope_factors(config: Mapping[str, Any], factors: Any) -> Any:
    """One factor for each pair of the rotated width."""
    if not isinstance(factors, Sequence) or isinstance(factors, str):
        return factors
    width = (
        HEAD_WIDTH // 2 if "qk_rope_head_dim" in config else HEAD_WIDTH * float(config.get("partial_rotary_factor", 1))
    )
    return list(factors[: int(width) // 2])
