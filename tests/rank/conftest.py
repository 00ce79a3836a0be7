"""A tiny random llama, made once: tokens differ, and a step takes a millisecond."""

from thunderline.rank import blas

BLAS = blas.load()

import json  # noqa: E402  (the BLAS has to come before mlx)
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import mlx.core as mx  # noqa: E402
import pytest  # noqa: E402
from mlx.utils import tree_flatten, tree_map  # noqa: E402
from mlx_lm.models import llama  # noqa: E402

VOCABULARY_SIZE = 512
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY_SIZE,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _write(folder: Path) -> Path:
    mx.random.seed(0)
    model = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    # Large weights spread the logits: the most likely token then does not hang on the order of a sum.
    weights = tree_map(lambda x: x if x.ndim == 1 else mx.random.normal(x.shape) * 0.15, model.parameters())
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(weights)), metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Any:
    """The model, loaded as a rank loads it."""
    from thunderline.rank.load import load

    model, _ = load(tiny_folder, lambda done, total: None)
    return model
