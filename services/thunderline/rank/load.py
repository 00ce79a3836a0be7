"""Reads a model's weights, piece by piece, with progress."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import load_model

# Evaluated together: large enough to be quick, small enough to show progress.
PIECE_BYTES = 64 * 1024 * 1024
HALF = (mx.float16, mx.bfloat16)


class LoadFailed(Exception):
    """The model cannot be loaded, however often it is tried; the message is for the operator."""


def load(folder: Path, progress: Callable[[int, int], None]) -> tuple[Any, dict[str, Any]]:
    """The model, every weight in memory, and its config. `progress` gets bytes done and in all.

    Raises LoadFailed, and OSError for what may be better at the next try.
    """
    try:
        model, config = load_model(folder, lazy=True)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RuntimeError) as error:
        # What mlx-lm raises for files that are missing, broken or of an architecture that it does not know.
        raise LoadFailed(f"{folder}: {error}") from error
    if sys.platform == "linux" and mx.default_device() == mx.Device(mx.cpu):
        _widen(model)
    try:
        read(model, progress)
    except RuntimeError as error:
        # Their headers were right. For want of memory MLX says no more than that it cannot read.
        raise OSError(f"{folder}: {error} The disk fails, or there is no memory for the weights") from error
    return model, config


def read(model: Any, progress: Callable[[int, int], None]) -> None:
    """Every weight of a model that is lazy so far. Raises RuntimeError."""
    arrays = [array for _, array in tree_flatten(model.parameters())]
    total = sum(array.nbytes for array in arrays)
    done, piece, piece_bytes = 0, [], 0
    for array in arrays:
        piece.append(array)
        piece_bytes += array.nbytes
        if piece_bytes >= PIECE_BYTES:
            mx.eval(piece)
            done += piece_bytes
            progress(done, total)
            piece, piece_bytes = [], 0
    mx.eval(piece)
    progress(total, total)


def _widen(model: Any) -> None:
    """On a CPU 16-bit arithmetic takes three times as long as 32-bit. Quantized layers keep their own types."""
    quantized = any(name.endswith(".scales") for name, _ in tree_flatten(model.parameters()))
    if not quantized:
        model.update(tree_map(lambda x: x.astype(mx.float32) if x.dtype in HALF else x, model.parameters()))
