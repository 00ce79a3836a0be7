"""What the files of a model hold, without loading it. Pure: contents in, tensors and problems out."""

import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thunderline.runner.loaded_weights import Tensor

HEADER_BYTES_MAX = 100 * 1024 * 1024
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# mlx-lm reads no others: some models bring their weights a second time, under another name.
WEIGHT_FILES = "model*.safetensors"


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


def tensors(files: Sequence[WeightFile]) -> tuple[list[Tensor], list[str]]:
    """All tensors, and what is wrong with the files. Of a name that two files have, the later one counts."""
    found: dict[str, Tensor] = {}
    problems = []
    for file in files:
        try:
            length = header_length(file.head[:8])
            header = json.loads(file.head[8 : 8 + length])
            mine = [_tensor(name, entry) for name, entry in header.items() if name != "__metadata__"]
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            problems.append(f"{file.name} is no safetensors file: {error}")
            continue
        if file.size_bytes != expected:
            problems.append(f"{file.name} has {file.size_bytes} bytes instead of {expected}: fetch or copy it again")
        found |= {tensor.name: tensor for tensor in mine}
    return list(found.values()), problems


def _tensor(name: str, entry: Mapping[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end:
        raise ValueError(f"{name} ends before it begins")
    return Tensor(name, str(entry["dtype"]), tuple(map(int, entry["shape"])), end - begin)


def missing_shards(index: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Problems with model.safetensors.index.json: shards that it names and that are not there."""
    wanted = index.get("weight_map")
    if not isinstance(wanted, Mapping):
        return ["model.safetensors.index.json has no weight_map"]
    return [f"{name} is missing" for name in sorted({str(shard) for shard in wanted.values()} - set(names))]


def digest(config: Mapping[str, Any], heads: Sequence[bytes] = ()) -> str:
    """SHA-256 in hex."""
    total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for head in heads:
        total.update(head)
    return total.hexdigest()


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
