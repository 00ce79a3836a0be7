"""What the files of a model say, without loading it. Pure: contents in, facts and problems out."""

import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thunderline.cluster.context import context_length_tokens

HEADER_BYTES_MAX = 100 * 1024 * 1024
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# Formats in which an engine may compute, as safetensors names them.
FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


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


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A safetensors file: its size, and its first bytes (the 8-byte length and the header)."""

    name: str
    size_bytes: int
    head: bytes


def header_length(first_eight: bytes) -> int:
    """Length of a safetensors header, in bytes. Raises ValueError.

    Format: https://github.com/huggingface/safetensors#format
    """
    if len(first_eight) < 8:
        raise ValueError("is shorter than 8 bytes")
    length = int(struct.unpack("<Q", first_eight)[0])
    if length > HEADER_BYTES_MAX:
        raise ValueError(f"has a header of {length} bytes, so it is no safetensors file")
    return length


def weights(files: Sequence[WeightFile]) -> tuple[int, list[str]]:
    """Bytes of all tensors, and what is wrong with the files."""
    total, problems = 0, []
    for file in files:
        try:
            length = header_length(file.head[:8])
            header = json.loads(file.head[8 : 8 + length])
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            problems.append(f"{file.name} is no safetensors file: {error}")
            continue
        if file.size_bytes != expected:
            problems.append(f"{file.name} has {file.size_bytes} bytes instead of {expected}: fetch or copy it again")
        total += max(ends, default=0)
    return total, problems


def missing_shards(index: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Problems with model.safetensors.index.json: shards that it names and that are not there."""
    wanted = index.get("weight_map")
    if not isinstance(wanted, Mapping):
        return ["model.safetensors.index.json has no weight_map"]
    return [f"{name} is missing" for name in sorted({str(shard) for shard in wanted.values()} - set(names))]


def element_bytes(heads: Sequence[bytes]) -> int:
    """Size of one KV element: the engine computes in the float format that most of the weights have; 2 if none has.

    Packed weights are integers, and their scales say it.
    """
    held: dict[str, int] = {}
    for head in heads:
        try:
            header = json.loads(head[8:])
            for name, entry in header.items():
                if name != "__metadata__" and entry["dtype"] in FLOAT_BYTES:
                    start, end = entry["data_offsets"]
                    held[entry["dtype"]] = held.get(entry["dtype"], 0) + end - start
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return FLOAT_BYTES[max(held, key=lambda dtype: held[dtype])] if held else 2


def facts(config: Mapping[str, Any], weight_bytes: int, heads: Sequence[bytes]) -> Facts:
    """What config.json and the heads of the weight files say."""
    text = config.get("text_config")
    # Models with pictures keep the language model's figures one level down.
    values = {**config, **text} if isinstance(text, Mapping) else config
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for head in heads:
        digest.update(head)
    return Facts(
        architecture=str(config.get("model_type", "")),
        layer_count=_whole(values, "num_hidden_layers", "n_layers", "n_layer"),
        weight_bytes=weight_bytes,
        kv_bytes_per_token=kv_bytes_per_token(values, element_bytes(heads)),
        context_length_tokens=context_length_tokens(config),
        vocabulary_size=_whole(values, "vocab_size"),
        digest=digest.hexdigest(),
    )


def kv_bytes_per_token(config: Mapping[str, Any], element_size_bytes: int) -> int:
    """Keys and values of one token over all layers; 0 when the config does not say."""
    layers = _whole(config, "num_hidden_layers", "n_layers", "n_layer")
    if rank := _whole(config, "kv_lora_rank"):
        # Latent attention keeps one compressed vector and the rotary part.
        return layers * (rank + _whole(config, "qk_rope_head_dim")) * element_size_bytes
    heads = _whole(config, "num_attention_heads", "n_head")
    kv_heads = _whole(config, "num_key_value_heads") or heads
    width = _whole(config, "head_dim") or (_whole(config, "hidden_size", "n_embd") // heads if heads else 0)
    return 2 * layers * kv_heads * width * element_size_bytes


def end_token_ids(
    config: Mapping[str, Any], generation: Mapping[str, Any], end_token: str | None, ids: Mapping[str, int]
) -> tuple[int, ...]:
    """Tokens that end an answer: what config.json, generation_config.json and the tokenizer name, together."""
    found: set[int] = set()
    for source in (config, generation):
        value = source.get("eos_token_id")
        found.update(one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int))
    if end_token is not None and end_token in ids:
        found.add(ids[end_token])
    return tuple(sorted(found))


def _whole(values: Mapping[str, Any], *keys: str) -> int:
    found = (values[key] for key in keys if isinstance(values.get(key), int) and values[key] >= 0)
    # What does not fit the wire's 32 bits is no figure of a model.
    return min(int(next(found, 0)), 2**31 - 1)
