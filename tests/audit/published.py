"""A model's files as it is published, and what MLX says once they are loaded: `python published.py KIND FOLDER`.

The files hold zeros. Prints {"weight_bytes", "layers": [bytes], "peak_bytes"}, the last as a rank reads them.
"""

import json
import math
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from thunderline.rank import blas

blas.load()

import mlx.core as mx  # noqa: E402  (the BLAS has to come before mlx)
from mlx import nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.utils import load_model  # noqa: E402

from thunderline.rank.architecture import build  # noqa: E402
from thunderline.rank.load import read  # noqa: E402
from thunderline.rank.pipeline import layers_of  # noqa: E402

ITEM_BYTES = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "U32": 4}
FP8_BLOCK = 128
LAYERS, HIDDEN, INNER, VOCABULARY = 4, 512, 1024, 2000
DENSE = {
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
}
EXPERTS = {
    **DENSE,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": INNER,
    "n_routed_experts": 16,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
}
TIED = {**DENSE, "model_type": "llama", "tie_word_embeddings": True}
PACKED = {**DENSE, "model_type": "llama", "tie_word_embeddings": False, "quantization": {"group_size": 64, "bits": 4}}
PREDICTION = {
    **EXPERTS,
    "model_type": "glm4_moe",
    "attention_bias": False,
    "use_qk_norm": False,
    "partial_rotary_factor": 0.5,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
LATENT = {
    **EXPERTS,
    "model_type": "deepseek_v3",
    "kv_lora_rank": 64,
    "q_lora_rank": 96,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "tie_word_embeddings": False,
}
# By name: type and shape.
Entries = dict[str, tuple[str, tuple[int, ...]]]


def as_published(config: dict[str, Any]) -> Entries:
    """In bfloat16 or packed, each expert by itself, latent attention's two halves in one."""
    model, found = build(config), Entries()
    if packed := config.get("quantization"):
        nn.quantize(model, **packed)
    for name, array in tree_flatten(model.parameters()):
        if (expert := re.fullmatch(r"(.*)\.switch_mlp\.(.*)", name)) is not None:
            for number in range(array.shape[0]):
                found[f"{expert[1]}.experts.{number}.{expert[2]}"] = ("BF16", tuple(array.shape[1:]))
        elif name.endswith("embed_q.weight"):
            rows = config["num_attention_heads"] * (config["qk_nope_head_dim"] + config["v_head_dim"])
            found[name.replace("embed_q", "kv_b_proj")] = ("BF16", (rows, config["kv_lora_rank"]))
        elif not name.endswith("unembed_out.weight"):
            found[name] = ("U32" if array.dtype == mx.uint32 else "BF16", tuple(array.shape))
    return found


def tied(entries: Entries) -> Entries:
    tables = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": ("F32", (32,)) for layer in range(LAYERS)}
    return {**entries, **tables, "lm_head.weight": ("BF16", (VOCABULARY, HIDDEN))}


def prediction(entries: Entries) -> Entries:
    last = f"model.layers.{LAYERS - 1}."
    extra = {name.replace(last, f"model.layers.{LAYERS}."): one for name, one in entries.items() if last in name}
    return {**entries, **extra, f"model.layers.{LAYERS}.eh_proj.weight": ("BF16", (HIDDEN, 2 * HIDDEN))}


def fp8(entries: Entries) -> Entries:
    def packed() -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
        for name, (kind, shape) in entries.items():
            if name.startswith("model.layers.") and len(shape) == 2 and ".gate." not in name:
                yield name, ("F8_E4M3", shape)
                yield f"{name}_scale_inv", ("F32", tuple(math.ceil(side / FP8_BLOCK) for side in shape))
            else:
                yield name, (kind, shape)

    return dict(packed())


KINDS: dict[str, tuple[dict[str, Any], Callable[[Entries], Entries]]] = {
    "tied": (TIED, tied),
    "packed": (PACKED, lambda entries: entries),
    "prediction": (PREDICTION, prediction),
    "experts": (PREDICTION, lambda entries: entries),
    "fp8": (LATENT, fp8),
}


def write(folder: Path, config: dict[str, Any], entries: Entries) -> None:
    """Format: https://github.com/huggingface/safetensors#format."""
    header, end = {}, 0
    for name, (kind, shape) in entries.items():
        begin, end = end, end + math.prod(shape) * ITEM_BYTES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + end)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").touch()


def size(model: Any) -> int:
    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))


def tell(folder: Path) -> dict[str, Any]:
    mx.reset_peak_memory()
    model, _ = load_model(folder, lazy=True)
    read(model, lambda done, total: None)
    layers = [size(layer) for layer in layers_of(model)]
    return {"weight_bytes": size(model), "layers": layers, "peak_bytes": mx.get_peak_memory()}


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    config, change = KINDS[kind]
    write(folder, config, change(as_published(config)))
    print(json.dumps(tell(folder)), flush=True)


if __name__ == "__main__":
    main()
