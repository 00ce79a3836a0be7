"""A part of a model, for one rank of a pipeline: any mlx-lm decoder whose layers turn a hidden state into the next.

Layers of other ranks become pass-throughs. They hand the state over at the part's two ends and keep positions right:
masks and rotations are made from caches, so each pass-through feeds its own with one narrow key a token. What the rank
does not compute has no weights: those layers, the embedding behind the first part, the head before the last one.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache, CacheList, _BaseCache, make_prompt_cache

# A hidden state [B, L, hidden] to the next rank, or what the rank before made of it: same shape and type.
Hop = Callable[[mx.array], mx.array]
# Moves a cache by the length of a hidden state.
Advance = Callable[[Any, mx.array], None]


class CannotSplit(Exception):
    """The model is no chain of layers that each take a hidden state and give one."""


def advance(cache: Any, hidden: mx.array) -> None:
    """Moves a cache by L positions without keys of its layer: the engine may then merge, filter and trim it as ever.

    Raises CannotSplit for a kind of cache that is not known.
    """
    batch, length = hidden.shape[:2]
    if isinstance(cache, CacheList):
        for one in cache.caches:
            advance(one, hidden)
    elif isinstance(cache, ArraysCache):
        cache.cache = [mx.zeros((batch, 1), hidden.dtype) if one is None else one for one in cache.cache]
        cache.advance(length)
    elif hasattr(cache, "update_and_fetch"):
        narrow = mx.zeros((batch, 1, length, 1), hidden.dtype)
        cache.update_and_fetch(narrow, narrow)
    else:
        raise CannotSplit(f"how its {type(cache).__name__} counts positions is not known")


class InPlaceOf(nn.Module):  # type: ignore[misc]
    """Stands where a layer stood, and says of itself what the layer says."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        # Past nn.Module, which would list the layer's weights among the model's.
        object.__setattr__(self, "layer", layer)

    def __getattr__(self, name: str) -> Any:
        """Models ask their layers what they are (`is_linear`, `use_sliding`, `self_attn.window`)."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "layer"), name)


def caches_among(arguments: Iterable[Any]) -> list[Any]:
    """Those that a layer is called with, also several at once."""
    found = [one for value in arguments for one in (value if isinstance(value, list | tuple) else (value,))]
    return [one for one in found if isinstance(one, _BaseCache)]


class _PassThrough(InPlaceOf):
    """In the place of a layer that another rank computes."""

    def __init__(self, layer: Any, move: Advance, hop: Hop | None) -> None:
        super().__init__(layer)
        object.__setattr__(self, "_move", move)
        object.__setattr__(self, "_hop", hop)

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        # By whatever name, the state comes first.
        hidden, *others = (*args, *kwargs.values())
        if not isinstance(hidden, mx.array) or hidden.ndim != 3:
            raise CannotSplit("its layers give more than a hidden state")
        moved: list[mx.array] = []
        for cache in caches_among(others):
            self._move(cache, hidden)
            moved += _arrays(cache)
        # What is received does not hang on what came here; nor does anybody ask for what was moved, whose graph would
        # grow by some nodes a token.
        given: mx.array = mx.depends(hidden if self._hop is None else self._hop(hidden), [hidden, *moved])
        return given


class _NoEmbedding(nn.Module):  # type: ignore[misc]
    """What it gives is thrown away by the pass-through that receives; as a head it has one column of nothing."""

    def __init__(self, width: int, kind: mx.Dtype) -> None:
        super().__init__()
        self.weight = mx.zeros((1, width), kind)

    def __call__(self, ids: mx.array) -> mx.array:
        return mx.zeros((*ids.shape, self.weight.shape[1]), self.weight.dtype)

    def as_linear(self, hidden: mx.array) -> mx.array:
        return hidden @ self.weight.T


class _NoHead(nn.Module):  # type: ignore[misc]
    def __call__(self, hidden: mx.array) -> mx.array:
        return _no_logits(hidden)


def _no_logits(hidden: mx.array) -> mx.array:
    """Of one column, which nobody reads: whoever waits for them waits for the layers."""
    column: mx.array = mx.depends(mx.zeros((*hidden.shape[:-1], 1), hidden.dtype), [hidden])
    return column


def take_part(
    model: Any, begin: int, end: int, receive: Hop | None = None, send: Hop | None = None, move: Advance = advance
) -> Any:
    """The same model, now of the layers [begin, end) only. `receive` is needed unless they are the first ones, `send`
    unless they are the last; each is called once in a forward pass.

    A `send` over a network has to be evaluated at once: while a prompt is processed only caches are asked for, and what
    was sent is in none of them. Raises CannotSplit.
    """
    layers = layers_of(model)
    count = len(layers)
    if not 0 <= begin < end <= count:
        raise ValueError(f"layers {begin} to {end} of {count}")
    _drop_ends(model, layers, is_first=begin == 0, is_last=end == count)
    others = [place for place in range(count) if not begin <= place < end]
    dropped = [layers[place] for place in others]
    for place in others:
        hop = receive if place == begin - 1 else send if place == end else None
        layers[place] = _PassThrough(layers[place], move, hop)
    # Some models give all their layers the same rotation.
    kept = {id(module) for _, module in model.named_modules()}
    for layer in dropped:
        _drop_weights(layer, kept)
    return model


def layers_of(model: Any) -> list[Any]:
    """The very list that a forward pass walks: `model.layers` may be a property that shows a copy of it.

    Raises CannotSplit.
    """
    shown = list(getattr(model, "layers", ()))
    for _, module in model.named_modules():
        for value in module.values():
            if isinstance(value, list) and len(value) == len(shown) > 0 and all(map(_same, value, shown)):
                return value
    raise CannotSplit("its layers are not one list")


def _same(one: Any, other: Any) -> bool:
    return one is other


def _drop_ends(model: Any, layers: Sequence[Any], is_first: bool, is_last: bool) -> None:
    """The embedding and the head, where this part has no use for them."""
    inside = {id(module) for layer in layers for _, module in layer.named_modules()}
    outside = [module for _, module in model.named_modules() if id(module) not in inside]
    places = [(module, name, one) for module in outside for name, one in module.items() if isinstance(one, nn.Module)]
    tables = [(*place, _table(place[2])) for place in places]
    embeddings = [(module, name, one, table) for module, name, one, table in tables if table is not None]
    rows = {table[0] for *_, table in embeddings}
    heads = [(module, name) for module, name, one in places if _is_linear(one) and one.weight.shape[0] in rows]
    if not is_last:
        for module, name in heads:
            module[name] = _NoHead()
    for module, name, one, (_, width, kind) in embeddings:
        is_head = is_last and not heads
        if is_first and not is_last:
            _override(one, as_linear=lambda self, hidden: _no_logits(hidden))
        elif not is_first and is_head:
            nothing = _NoEmbedding(width, kind)
            _override(one, __call__=lambda self, ids, nothing=nothing: nothing(ids))
        elif not is_first:
            module[name] = _NoEmbedding(width, kind)


def _table(module: Any) -> tuple[int, int, mx.Dtype] | None:
    """Rows, width and type of an embedding; None for anything else."""
    if isinstance(module, nn.Embedding):
        return (*module.weight.shape, module.weight.dtype)
    if isinstance(module, nn.QuantizedEmbedding):
        return module.num_embeddings, module.dims, module.scales.dtype
    return None


def _is_linear(module: Any) -> bool:
    return isinstance(module, nn.Linear | nn.QuantizedLinear)


def _override(module: Any, **methods: Any) -> None:
    """Python looks up `__call__` in the class: this one gets a class of its own, and keeps its weights' names."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), methods)


def _drop_weights(layer: Any, kept: set[int]) -> None:
    """Lazy arrays that nobody evaluates cost nothing; those that are there are freed. `kept` are modules in use."""
    for _, module in layer.named_modules():
        if id(module) not in kept:
            for name, value in list(module.items()):
                if isinstance(value, mx.array):
                    module[name] = mx.zeros((0,), value.dtype)


def _arrays(cache: Any) -> list[mx.array]:
    if isinstance(cache, CacheList):
        return [array for one in cache.caches for array in _arrays(one)]
    return [value for _, value in tree_flatten(vars(cache)) if isinstance(value, mx.array)]


class Joined:
    """All parts of a model, one after the other in one process: what a pipeline computes, without a network between.

    To be used as a model: it has caches for each part.
    """

    def __init__(self, build: Callable[[], Any], cuts: Sequence[int], move: Advance = advance) -> None:
        """`build` gives a whole model each time. `cuts`: the first layer of each part but the first.

        Raises CannotSplit.
        """
        self._handed: mx.array | None = None
        first = build()
        bounds = [0, *cuts, len(layers_of(first))]
        self._parts = [
            take_part(first if begin == 0 else build(), begin, end, self._take, self._hand, move)
            for begin, end in itertools.pairwise(bounds)
        ]

    def _hand(self, hidden: mx.array) -> mx.array:
        self._handed = hidden
        return hidden

    def _take(self, hidden: mx.array) -> mx.array:
        handed, self._handed = self._handed, None
        if handed is None:
            raise CannotSplit("it goes through its layers more than once")
        if (handed.shape, handed.dtype) != (hidden.shape, hidden.dtype):
            # Over a network the receiver has to know beforehand what comes.
            raise CannotSplit(f"a hidden state of {handed.shape}, {handed.dtype} is no {hidden.shape}, {hidden.dtype}")
        return handed

    @property
    def layers(self) -> list[Any]:
        return [layer for part in self._parts for layer in layers_of(part)]

    def make_cache(self) -> list[Any]:
        return [cache for part in self._parts for cache in make_prompt_cache(part)]

    def __call__(self, ids: mx.array, cache: Sequence[Any]) -> mx.array:
        each = len(cache) // len(self._parts)
        logits = [
            part(ids, cache=list(cache[place * each : (place + 1) * each])) for place, part in enumerate(self._parts)
        ]
        last: mx.array = logits[-1]
        return last
