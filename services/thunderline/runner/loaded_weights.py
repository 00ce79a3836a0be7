"""What a model's weights become in memory, from the headers of its files. Pure.

mlx-lm drops on the way what it does not compute with (rotary tables, a tied head, extra prediction layers, towers for
pictures and sound), and unpacks formats that MLX has not. Tensors are known by the names that model families share; no
architecture is.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

# Formats in which an engine may compute, as safetensors names them.
FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
# MLX has none of these: with a scale for each block they become bfloat16, by mlx-lm's code for the architecture.
FP8 = ("F8_E4M3", "F8_E5M2")
FP8_SCALE = "_scale_inv"

# Ways of packing whose bytes MLX keeps as they are, or as FP8.
AS_THEY_ARE = ("mxfp4", "mxfp8", "fp8")

_TABLE = re.compile(r"(^|\.)rotary_emb\.|inv_freq$|masked_bias$|\.(attn|attention)\.bias$|(activation|input)_scale$")
_TOWER = re.compile(r"^(vision|visual|audio|multi_modal|mm_|image)|_(vision|audio)$")
_PREDICTION = re.compile(r"^(mtp|nextn)(_|$)")
# Routed ones; those that all tokens share are read by each.
_EXPERT = re.compile(r"\.(experts|switch_\w+)\.")
_EXPERT_COUNTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
_CHOSEN_COUNTS = ("num_experts_per_tok", "moe_topk", "moe_top_k", "num_experts_per_token", "top_k_experts")
LAYER_COUNT_MAX = 1024
# A rank reads so many bytes at once, or one tensor.
PIECE_BYTES = 64 * 1024 * 1024
# To unpack FP8 takes its own byte a weight, two as bfloat16 and four while it is scaled, beside what is made of it;
# and 35 tensors at once were the most that was seen on the way.
UNPACKING_SHARE, UNPACKING_COUNT = 2.5, 36
_HEADS = ("lm_head", "embed_out", "output", "output_layer", "head")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An entry of a safetensors header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Bytes in memory. `doubts` are sentences for the operator."""

    layer_bytes: tuple[int, ...] = ()
    # Of these, what one token reads: of a layer's experts only those that it is sent to.
    layer_read_bytes: tuple[int, ...] = ()
    embedding_bytes: int = 0
    head_bytes: int = 0
    other_bytes: int = 0
    is_tied: bool = False
    # Of a number that the model computes with.
    element_bytes: int = 2
    # Beside what is loaded already, while one more tensor is made of those in the files.
    passing_bytes: int = 0
    doubts: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        return sum(self.layer_bytes) + self.embedding_bytes + self.head_bytes + self.other_bytes


def loaded(tensors: Sequence[Tensor], config: Mapping[str, Any], layer_count: int) -> Loaded:
    """`config` is the language model's, flat; `layer_count` is 0 when it has none."""
    present = {tensor.name: tensor for tensor in tensors}
    text = [tensor for tensor in tensors if not _is_aside(tensor)]
    bytes_of = {tensor.name: _loaded_bytes(tensor, present) for tensor in text}
    prefix = _layers_prefix(bytes_of)
    count = layer_count or 1 + max((_layer(name, prefix) for name in bytes_of), default=-1)
    count = min(count, LAYER_COUNT_MAX)
    layers, read = [0] * count, [0] * count
    share = _chosen_share(config)
    embedding: dict[str, int] = {}
    head: dict[str, int] = {}
    other: dict[str, int] = {}
    for name, size in bytes_of.items():
        layer = _layer(name, prefix)
        if layer >= 0:
            # More of them predict further tokens; nobody does that here.
            if layer < count:
                layers[layer] += size
                read[layer] += math.ceil(size * share) if _EXPERT.search(name) else size
            continue
        (head if _is_head(name) else embedding if _is_embedding(name) else other)[name] = size
    is_tied, doubts = _tied(config, embedding, head)
    stays = [tensor for tensor in text if bytes_of[tensor.name] and _layer(tensor.name, prefix) < count]
    return Loaded(
        layer_bytes=tuple(layers),
        layer_read_bytes=tuple(read),
        embedding_bytes=sum(embedding.values()),
        head_bytes=0 if is_tied else sum(head.values()),
        other_bytes=sum(other.values()),
        is_tied=is_tied,
        element_bytes=element_bytes(stays),
        passing_bytes=_passing_bytes(stays, bytes_of),
        doubts=(*doubts, *_format_doubts(stays, config, present), *_layer_doubts(layers)),
    )


def element_bytes(tensors: Sequence[Tensor]) -> int:
    """The engine computes in the float format that most of the weights have; 2 if none has.

    Packed weights are integers, and their scales say it.
    """
    held: dict[str, int] = {}
    for tensor in tensors:
        if tensor.dtype in FLOAT_BYTES:
            held[tensor.dtype] = held.get(tensor.dtype, 0) + tensor.size_bytes
    return FLOAT_BYTES[max(held, key=lambda dtype: held[dtype])] if held else 2


def _is_aside(tensor: Tensor) -> bool:
    """Whether it is no weight of the language model."""
    if _TABLE.search(tensor.name) and not _is_a_bias_of_a_layer(tensor):
        return True
    return any(_TOWER.match(part) or _PREDICTION.match(part) for part in tensor.name.split("."))


def _is_a_bias_of_a_layer(tensor: Tensor) -> bool:
    # The causal mask that old files hold under such a name has four dimensions, or none.
    return tensor.name.endswith(".bias") and len(tensor.shape) == 1


def _loaded_bytes(tensor: Tensor, present: Mapping[str, Tensor]) -> int:
    """Of one tensor, 0 when it is used up in making another."""
    stem, _, last = tensor.name.rpartition(".")
    if tensor.name.endswith(FP8_SCALE):
        return 0
    if tensor.dtype in FP8 and f"{tensor.name}{FP8_SCALE}" in present:
        return math.prod(tensor.shape) * FLOAT_BYTES["BF16"]
    if f"{stem}.weight_packed" in present:
        # Scales alone: zero points of the same size are made of them.
        return {"weight_shape": 0, "weight_scale": 2 * tensor.size_bytes}.get(last, tensor.size_bytes)
    if f"{stem}.qweight" in present:
        return {"qzeros": 0, "scales": 2 * tensor.size_bytes}.get(last, tensor.size_bytes)
    return tensor.size_bytes


def _layers_prefix(bytes_of: Mapping[str, int]) -> str:
    """What stands before the number of a layer: of all numbered lists, the one that weighs most."""
    held: dict[str, int] = {}
    for name, size in bytes_of.items():
        if (found := re.match(r"(.*?\.)\d+\.", name)) is not None:
            held[found[1]] = held.get(found[1], 0) + size
    return max(held, key=lambda prefix: held[prefix], default="")


def _layer(name: str, prefix: str) -> int:
    """-1 for a tensor outside the layers."""
    number = name.removeprefix(prefix).partition(".")[0]
    return int(number) if prefix and name.startswith(prefix) and number.isdecimal() else -1


def _module(name: str) -> str:
    return name.split(".")[-2] if "." in name else name


def _is_head(name: str) -> bool:
    return _module(name) in _HEADS


def _is_embedding(name: str) -> bool:
    return any("emb" in part or part in ("wte", "wpe") for part in name.split("."))


def _chosen_share(config: Mapping[str, Any]) -> float:
    """Of its experts, how many a token is sent to; 1 where the config does not say."""
    several, chosen = whole(config, *_EXPERT_COUNTS), whole(config, *_CHOSEN_COUNTS)
    return min(1.0, chosen / several) if several and chosen else 1.0


def whole(values: Mapping[str, Any], *keys: str) -> int:
    """The first of the keys that has a whole number; 0 without one."""
    found = (values[key] for key in keys if type(values.get(key)) is int and values[key] >= 0)
    # What does not fit the wire's 32 bits is no figure of a model.
    return min(next(found, 0), 2**31 - 1)


def _tied(
    config: Mapping[str, Any], embedding: Mapping[str, int], head: Mapping[str, int]
) -> tuple[bool, tuple[str, ...]]:
    """Whether the embedding is the head too."""
    says = config.get("tie_word_embeddings")
    if not head:
        return bool(embedding), ()
    if isinstance(says, bool):
        return says, ()
    return False, ("config.json does not say whether the head is the embedding: the head is counted",)


def _passing_bytes(tensors: Sequence[Tensor], bytes_of: Mapping[str, int]) -> int:
    """While a tensor is made of others both are there: experts are stacked, FP8 is unpacked."""

    def joined(tensor: Tensor) -> str:
        return re.sub(r"\.experts\.\d+\.", ".experts.", tensor.name)

    groups = [list(several) for _, several in groupby(sorted(tensors, key=joined), joined)]
    made = [group for group in groups if len(group) > 1 or group[0].dtype in FP8]
    sizes = [sum(bytes_of[one.name] for one in group) for group in made]
    together = max([*sizes, min(sum(sizes), PIECE_BYTES)])
    unpacked = max((bytes_of[one.name] for group in made for one in group if one.dtype in FP8), default=0)
    return together + int(min(UNPACKING_SHARE * together, UNPACKING_COUNT * unpacked))


def _format_doubts(
    tensors: Sequence[Tensor], config: Mapping[str, Any], present: Mapping[str, Tensor]
) -> tuple[str, ...]:
    doubts = []
    if any(one.dtype in FP8 and f"{one.name}{FP8_SCALE}" not in present for one in tensors):
        doubts.append("some FP8 weights have no scales for blocks: what mlx-lm makes of them is not known")
    packed = config.get("quantization_config")
    method = packed.get("quant_method") if isinstance(packed, Mapping) and "quantization" not in config else None
    if method not in (None, *AS_THEY_ARE):
        doubts.append(f"the weights are packed by {method}: they may take a little more memory than is said here")
    return tuple(doubts)


def _layer_doubts(layers: Sequence[int]) -> tuple[str, ...]:
    empty = [str(place) for place, size in enumerate(layers) if not size]
    if not layers or len(empty) == len(layers):
        return ("the names in its files do not tell its layers apart",)
    return (f"the files have nothing of layer {', '.join(empty[:3])}",) if empty else ()
