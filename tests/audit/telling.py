"""What MLX itself says of a model once it is loaded: `python telling.py FOLDER [CONFIG]`.

CONFIG is a file with a config: a tiny random model of it is written to FOLDER first, as mlx-lm writes one. Prints
{"weight_bytes", "layers": [bytes], "caches": [{"at_256", "at_512", "after_one"}]}: bytes of each cache after so many
tokens of a prompt, and after one more token by itself.
"""

import json
import sys
from pathlib import Path
from typing import Any

from thunderline.rank import blas

blas.load()

import mlx.core as mx  # noqa: E402  (the BLAS has to come before mlx)
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.models.cache import make_prompt_cache  # noqa: E402
from mlx_lm.utils import load_model  # noqa: E402

from thunderline.rank.architecture import build, complete, random_weights  # noqa: E402
from thunderline.rank.pipeline import CannotSplit, layers_of  # noqa: E402
from thunderline.rank.tiny import VOCABULARY_SIZE, tiny  # noqa: E402

CHUNK_TOKENS = 256
# Longer than the two chunks.
CONTEXT_TOKENS = 2048


def write(config: dict[str, Any], folder: Path) -> None:
    small = tiny(complete(config))
    for key in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len"):
        small |= {key: CONTEXT_TOKENS} if key in small else {}
    model = random_weights(build(small))
    (folder / "config.json").write_text(json.dumps(small))
    (folder / "tokenizer.json").touch()
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def size(model: Any) -> int:
    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))


def tell(folder: Path) -> dict[str, Any]:
    model, _ = load_model(folder)
    try:
        layers = [size(layer) for layer in layers_of(model)]
    except CannotSplit:
        layers = []
    caches = make_prompt_cache(model)
    prompt = mx.random.randint(3, VOCABULARY_SIZE, (1, CHUNK_TOKENS))
    held = []
    for tokens in (prompt, prompt, prompt[:, :1]):
        mx.eval(model(tokens, cache=caches), [cache.state for cache in caches])
        held.append([cache.nbytes for cache in caches])
    found = [dict(zip(("at_256", "at_512", "after_one"), one, strict=True)) for one in zip(*held, strict=True)]
    return {"weight_bytes": size(model), "layers": layers, "caches": found}


def main() -> None:
    folder, *configs = (Path(word) for word in sys.argv[1:])
    for config in configs:
        write(json.loads(config.read_text()), folder)
    print(json.dumps(tell(folder)), flush=True)


if __name__ == "__main__":
    main()
