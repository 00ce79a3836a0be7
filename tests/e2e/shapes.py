"""A model's files by their headers alone: nobody has room for its weights here, and nobody reads them for a plan."""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

LAYERS, HIDDEN, INNER, HEADS, KV_HEADS, HEAD_SIZE, VOCABULARY = 80, 8192, 28_672, 64, 8, 128, 128_256
GROUP = 64
ITEM_BYTES = {"U32": 4, "BF16": 2}
# A Llama of 70B in 4 bits.
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_SIZE,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "quantization": {"group_size": GROUP, "bits": 4},
}
# Of one layer: rows and columns.
MATRICES = {
    "self_attn.q_proj": (HEADS * HEAD_SIZE, HIDDEN),
    "self_attn.k_proj": (KV_HEADS * HEAD_SIZE, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD_SIZE, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD_SIZE),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
NORMS = ("input_layernorm", "post_attention_layernorm")


def write(folder: Path, tokenizer: Path) -> None:
    """Its weights are a hole in a file. `tokenizer`: a folder whose tokenizer it gets."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for path in tokenizer.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    header: dict[str, Any] = {}
    end = 0
    for name, (kind, shape) in _entries().items():
        size = ITEM_BYTES[kind] * prod(shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def _entries() -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {"model.norm.weight": ("BF16", (HIDDEN,))}
    matrices = {"model.embed_tokens": (VOCABULARY, HIDDEN), "lm_head": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        before = f"model.layers.{layer}."
        found |= {f"{before}{norm}.weight": ("BF16", (HIDDEN,)) for norm in NORMS}
        matrices |= {f"{before}{name}": shape for name, shape in MATRICES.items()}
    for name, (rows, columns) in matrices.items():
        found[f"{name}.weight"] = ("U32", (rows, columns // 8))
        found |= {f"{name}.{part}": ("BF16", (rows, columns // GROUP)) for part in ("scales", "biases")}
    return found
