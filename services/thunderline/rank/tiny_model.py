"""A folder with a tiny random copy of a model, for benchmarks: `python -m thunderline.rank.tiny_model FOLDER OUT`."""

from thunderline.rank import blas

BLAS = blas.load()

import json  # noqa: E402  (the BLAS has to come before mlx)
import shutil  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from thunderline.rank.architecture import build, complete, random_weights  # noqa: E402
from thunderline.rank.tiny import tiny  # noqa: E402

# It would refuse longer prompts than its model does.
CONTEXT_TOKENS = 2048
# So wide that a step is arithmetic, ten milliseconds of it, and not the making of its graph.
INNER = 8192


def main() -> None:
    folder, out = (Path(word) for word in sys.argv[1:3])
    config = tiny(complete(json.loads((folder / "config.json").read_text())))
    config |= {key: INNER for key in ("intermediate_size", "ffn_hidden_size", "n_inner") if key in config}
    model = random_weights(build(config))
    out.mkdir(parents=True)
    for file in folder.glob("tokenizer*"):
        shutil.copy(file, out / file.name)
    mx.save_safetensors(
        str(out / "model.safetensors"), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"}
    )
    whole = {**config, "max_position_embeddings": CONTEXT_TOKENS}
    (out / "config.json").write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
