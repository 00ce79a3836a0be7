"""What each layer of a model keeps of a sequence, told by the engine itself: no config says whether latent attention is
kept compressed, or which windows are heeded.

The model is built with its real sizes and one token goes through it, but nothing is computed: MLX's arrays have shapes
and types before they have values. That holds only while an architecture's code asks for no value on the way, which a
tiny copy tells first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache, CacheList, make_prompt_cache

from thunderline.rank.architecture import build
from thunderline.rank.pipeline import CannotSplit, InPlaceOf, caches_among, layers_of

# Small constants may be there; a tiny copy's first layer takes several times as much.
LAZY_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one sequence in one layer. Elements are numbers of the type that the model computes with.

    `window_tokens`: the layer keeps so many tokens' KV at most; 0: of all. `state_bytes` are of a type of their own.
    """

    kv_elements_per_token: int = 0
    window_tokens: int = 0
    state_elements: int = 0
    state_bytes: int = 0

    def __add__(self, other: "Kept") -> "Kept":
        windows = [one.window_tokens for one in (self, other) if one.kv_elements_per_token]
        return Kept(
            self.kv_elements_per_token + other.kv_elements_per_token,
            max(windows, default=0) if 0 not in windows else 0,
            self.state_elements + other.state_elements,
            self.state_bytes + other.state_bytes,
        )


class _Noting(InPlaceOf):
    """A layer that notes with which caches it is called."""

    def __init__(self, layer: Any, noted: list[Any]) -> None:
        super().__init__(layer)
        object.__setattr__(self, "_noted", noted)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._noted += caches_among((*args, *kwargs.values()))
        return self.layer(*args, **kwargs)


def kept(config: Mapping[str, Any], small: Mapping[str, Any]) -> list[dict[str, int]]:
    """Of each layer, as dictionaries; of each cache where layers cannot be told apart. Empty when nothing is told."""
    return [asdict(one) for one in of_layers(build(config))] if is_lazy(build(small)) else []


def is_lazy(model: Any) -> bool:
    """Whether a token goes through a tiny model without a computation."""
    mx.synchronize()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    return bool(_after_one_token(model)) and mx.get_peak_memory() - before < LAZY_BYTES_MAX


def of_layers(model: Any) -> list[Kept]:
    """What a lazy model keeps, which is of no use afterwards."""
    try:
        layers = layers_of(model)
    except CannotSplit:
        return [_of(cache) for cache in _after_one_token(model)]
    noted: list[list[Any]] = [[] for _ in layers]
    layers[:] = [_Noting(layer, mine) for layer, mine in zip(layers, noted, strict=True)]
    left = {id(cache): cache for cache in _after_one_token(model)}
    # A cache that several layers use is the first one's; what none uses comes before them all.
    found = [_sum([_of(left.pop(id(one))) for one in mine if id(one) in left]) for mine in noted]
    return [_sum([found[0], *map(_of, left.values())]), *found[1:]]


def _after_one_token(model: Any) -> list[Any]:
    # Half precision tells what follows the model's type from what has its own, which is float32.
    model.set_dtype(mx.bfloat16)
    caches = list(make_prompt_cache(model))
    model(mx.array([[1]]), cache=caches)
    return caches


def _of(cache: Any) -> Kept:
    if isinstance(cache, CacheList):
        return _sum([_of(one) for one in cache.caches])
    if isinstance(cache, ArraysCache):
        held = [value for _, value in tree_flatten(cache.cache) if isinstance(value, mx.array)]
        follows = [array for array in held if array.dtype == mx.bfloat16]
        own = [array for array in held if array.dtype != mx.bfloat16]
        return Kept(state_elements=sum(one.size for one in follows), state_bytes=sum(one.nbytes for one in own))
    arrays = [one for one in (getattr(cache, "keys", None), getattr(cache, "values", None)) if one is not None]
    if not arrays:
        # Of a layer that takes the keys of another.
        return Kept()
    # [1, heads, room for tokens, width]
    elements = sum(one.shape[1] * one.shape[3] for one in arrays)
    return Kept(elements, int(getattr(cache, "max_size", 0) or getattr(cache, "chunk_size", 0)))


def _sum(several: Sequence[Kept]) -> Kept:
    return sum(several, Kept())
