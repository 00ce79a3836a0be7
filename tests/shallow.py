"""A copy of the demo model with its first layers alone: what it says is no good, and comes three times as fast.

`python tests/shallow.py FOLDER OUT`. Everything else about it is the demo's: tokenizer, template, width, vocabulary.
"""

from thunderline.rank import blas

BLAS = blas.load()

import json  # noqa: E402  (the BLAS has to come before mlx)
import shutil  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import mlx.core as mx  # noqa: E402

LAYER_COUNT = 8


def is_kept(name: str) -> bool:
    words = name.split(".")
    return words[1] != "layers" or int(words[2]) < LAYER_COUNT


def main(folder: Path, out: Path) -> None:
    out.mkdir(parents=True)
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, out / name)
    read = mx.load(str(folder / "model.safetensors"))
    assert isinstance(read, dict)
    weights = {name: weight for name, weight in read.items() if is_kept(name)}
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    index = {
        "metadata": {"total_size": sum(weight.nbytes for weight in weights.values())},
        "weight_map": dict.fromkeys(sorted(weights), "model.safetensors"),
    }
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    config = json.loads((folder / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "num_hidden_layers": LAYER_COUNT}, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
