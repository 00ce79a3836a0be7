"""What is known of a model without loading it. Pure: config, tensors and the engine's word in, facts out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from thunderline.cluster.context import context_length_tokens
from thunderline.runner.loaded_weights import LAYER_COUNT_MAX, Loaded, Tensor, loaded, whole

UNKNOWN_COUNT_MAX = 16
# Everything that is divided among the ranks of a tensor split, by the names that model families use for it.
_HEAD_COUNTS = ("num_attention_heads", "n_heads", "n_head", "num_heads")
_KV_HEAD_COUNTS = ("num_key_value_heads", "n_kv_heads", "num_kv_heads", "kv_n_heads")
_OTHER_COUNTS = ("linear_num_key_heads", "linear_num_value_heads", "swa_num_attention_heads", "swa_num_key_value_heads")
# Of these each rank gets columns, in whole groups where they are packed.
_WIDTHS = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size_mlp")
_LAYER_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_transformer_layers")
_HIDDEN_SIZES = ("hidden_size", "n_embd", "d_model", "dim", "model_dim", "hidden_dim")
KV_UNKNOWN = "what a token's KV takes is not known: neither config.json nor the engine has told it"
KV_ESTIMATED = "what a token's KV takes is estimated from config.json: the engine has not told it"


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """See LayerFacts in cluster.proto."""

    weight_bytes: int = 0
    kv_bytes_per_token: int = 0
    window_tokens: int = 0
    state_bytes: int = 0
    read_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """See ModelFacts in cluster.proto."""

    architecture: str
    layer_count: int
    weight_bytes: int
    kv_bytes_per_token: int
    context_length_tokens: int
    vocabulary_size: int
    digest: str
    layers: tuple[LayerFacts, ...] = ()
    embedding_bytes: int = 0
    head_bytes: int = 0
    is_tied: bool = False
    other_bytes: int = 0
    load_peak_bytes: int = 0
    hidden_size: int = 0
    head_count: int = 0
    key_value_head_count: int = 0
    element_bytes: int = 2
    quantization: str = ""
    # By name; ranks of a tensor split divide each of them evenly.
    tensor_divisors: tuple[tuple[str, int], ...] = ()
    unknowns: tuple[str, ...] = ()


def language_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """Models with pictures keep the language model's figures one level down, a few others those of a layer's parts."""
    flat = dict(config)
    for key in ("text_config", "attn_config", "ffn_config"):
        inner = flat.get(key)
        flat |= inner if isinstance(inner, Mapping) else {}
    return flat


def facts(config: Mapping[str, Any], tensors: Sequence[Tensor], digest: str) -> Facts:
    """What config.json and the heads of the weight files say."""
    values = language_model(config)
    named = whole(values, *_LAYER_COUNTS)
    # A count without end is none.
    weights = loaded(tensors, values, named if named <= LAYER_COUNT_MAX else 0)
    count = named or len(weights.layer_bytes)
    kv = kv_bytes_per_token(values, weights.element_bytes, count)
    even = kv // count if count else 0
    unknowns = (KV_ESTIMATED if kv else KV_UNKNOWN, *weights.doubts)
    return Facts(
        architecture=str(config.get("model_type", "")),
        layer_count=count,
        weight_bytes=weights.total_bytes,
        kv_bytes_per_token=kv,
        context_length_tokens=context_length_tokens(config),
        vocabulary_size=whole(values, "vocab_size"),
        digest=digest,
        layers=tuple(
            LayerFacts(size, even, read_bytes=read)
            for size, read in zip(weights.layer_bytes, weights.layer_read_bytes, strict=True)
        ),
        embedding_bytes=weights.embedding_bytes,
        head_bytes=weights.head_bytes,
        is_tied=weights.is_tied,
        other_bytes=weights.other_bytes,
        load_peak_bytes=weights.total_bytes + weights.passing_bytes,
        hidden_size=whole(values, *_HIDDEN_SIZES),
        head_count=whole(values, *_HEAD_COUNTS),
        key_value_head_count=_kv_heads(values),
        element_bytes=weights.element_bytes,
        quantization=quantization(config, weights, tensors),
        tensor_divisors=tensor_divisors(values, config),
        unknowns=unknowns[:UNKNOWN_COUNT_MAX],
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """What a layer keeps of a sequence, as the engine tells it; see rank/kept.py."""

    kv_elements_per_token: int = 0
    window_tokens: int = 0
    state_elements: int = 0
    state_bytes: int = 0


def with_kept(found: Facts, kept: Sequence[Kept]) -> Facts:
    """The facts, with the engine's word on what each layer keeps; without one they stay an estimate."""
    if not kept:
        return found
    size = found.element_bytes
    total = size * sum(one.kv_elements_per_token for one in kept)
    unknowns = tuple(one for one in found.unknowns if one not in (KV_ESTIMATED, KV_UNKNOWN))
    if len(kept) == len(found.layers):
        layers = tuple(_with(layer, one, size) for layer, one in zip(found.layers, kept, strict=True))
    else:
        # Layers that use the KV of others, or have several caches: which is whose is not told.
        count = len(found.layers) or 1
        states = sum(one.state_elements * size + one.state_bytes for one in kept)
        layers = tuple(replace(one, kv_bytes_per_token=-(-total // count)) for one in found.layers)
        layers = tuple(replace(one, state_bytes=-(-states // count)) for one in layers)
        text = f"{len(kept)} caches for {len(layers)} layers: what they take is spread evenly, as if without windows"
        unknowns = (text, *unknowns)[:UNKNOWN_COUNT_MAX]
    return replace(found, kv_bytes_per_token=total, layers=layers, unknowns=unknowns)


def _with(layer: LayerFacts, kept: Kept, size: int) -> LayerFacts:
    return replace(
        layer,
        kv_bytes_per_token=kept.kv_elements_per_token * size,
        window_tokens=kept.window_tokens,
        state_bytes=kept.state_elements * size + kept.state_bytes,
    )


def kv_bytes_per_token(config: Mapping[str, Any], element_size_bytes: int, layer_count: int) -> int:
    """An estimate over all layers, of keys and values for each of the heads; 0 when the config does not say."""
    if rank := whole(config, "kv_lora_rank"):
        # Latent attention keeps one compressed vector and the rotary part, where it is built so.
        return layer_count * (rank + whole(config, "qk_rope_head_dim")) * element_size_bytes
    heads = whole(config, *_HEAD_COUNTS)
    width = whole(config, "head_dim") or (whole(config, *_HIDDEN_SIZES) // heads if heads else 0)
    return 2 * layer_count * _kv_heads(config) * width * element_size_bytes


def _kv_heads(config: Mapping[str, Any]) -> int:
    return whole(config, *_KV_HEAD_COUNTS) or whole(config, *_HEAD_COUNTS)


def tensor_divisors(values: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Counts that the ranks of a tensor split have to divide: heads, and widths in whole groups of packed weights."""
    names = [next((key for key in keys if whole(values, key)), "") for keys in (_HEAD_COUNTS, _KV_HEAD_COUNTS)]
    found = [(name, whole(values, name)) for name in (*names, *_OTHER_COUNTS) if name and whole(values, name)]
    packed = config.get("quantization")
    group = whole(packed, "group_size") if isinstance(packed, Mapping) else 0
    for name in _WIDTHS:
        width = whole(values, name)
        if width and group:
            found.append((f"{name} / {group}", width // group))
        elif width:
            found.append((name, width))
    return tuple(found)


def quantization(config: Mapping[str, Any], weights: Loaded, tensors: Sequence[Tensor]) -> str:
    """In words."""
    for key in ("quantization", "quantization_config"):
        packed = config.get(key)
        if isinstance(packed, Mapping):
            bits, group = whole(packed, "bits"), whole(packed, "group_size")
            mode = str(packed.get("mode") or packed.get("quant_method") or "affine")[:32]
            return ", ".join([f"{bits} bits"] * bool(bits) + [f"groups of {group}"] * bool(group) + [mode])
    return "fp8" if any(tensor.dtype.startswith("F8") for tensor in tensors) else ""
