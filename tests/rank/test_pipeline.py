"""A part of a model computes its layers and holds nothing else; all parts together are the model."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache, make_prompt_cache

from rank.test_architecture import GEMMA3, LLAMA
from thunderline.rank.architecture import random_weights
from thunderline.rank.pipeline import CannotSplit, Joined, advance, layers_of, take_part
from thunderline.rank.splits import fresh
from thunderline.rank.tiny import HEAD_WIDTH, HIDDEN, KV_HEADS, VOCABULARY_SIZE, tiny

TIED = {**LLAMA, "tie_word_embeddings": True}
UNTIED = {**LLAMA, "tie_word_embeddings": False}
# Its class cuts a list of its own for a pipeline of its own.
WITH_ITS_OWN_PIPELINE = {**LLAMA, "model_type": "qwen2", "tie_word_embeddings": False}
PROMPT = mx.array([[3, 5, 7, 11, 13, 17, 19, 23, 29, 31]])
STEP_COUNT = 50
# Packing needs rows of whole groups.
GROUP = 32
TABLE_BYTES = VOCABULARY_SIZE * HIDDEN * 4


def build(config: dict[str, Any], is_packed: bool = False) -> Any:
    model = random_weights(fresh(tiny(config), 1))
    if is_packed:
        nn.quantize(model, GROUP, 4)
    return model


def size(modules: Any) -> int:
    return sum(array.nbytes for _, array in tree_flatten(modules.parameters()))


def same(hidden: mx.array) -> mx.array:
    return hidden


def logits(model: Any) -> mx.array:
    """Of a prompt in two chunks, and of some tokens after it."""
    cache = make_prompt_cache(model)
    found = [model(chunk, cache=cache) for chunk in (PROMPT[:, :6], PROMPT[:, 6:], PROMPT[:, :1], PROMPT[:, 1:2])]
    return mx.concatenate(found, axis=1)


CONFIGS = {
    "a tied head": (TIED, False),
    "a head of its own": (UNTIED, False),
    "packed weights and a tied head": (TIED, True),
    "packed weights and a head of its own": (UNTIED, True),
    "windows": (GEMMA3, False),
    "a class with a pipeline of its own": (WITH_ITS_OWN_PIPELINE, False),
}


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize("cuts", [(4,), (1, 6), (1, 2, 3, 4, 5, 6, 7)], ids=["two parts", "three", "one layer each"])
def test_all_parts_together_are_the_model(case: str, cuts: tuple[int, ...]) -> None:
    whole = build(*CONFIGS[case])
    joined = Joined(lambda: build(*CONFIGS[case]), cuts)
    assert mx.array_equal(logits(joined), logits(whole))


def first(tied: bool, layers: int, norm: int, head: int) -> int:
    return layers + TABLE_BYTES + norm


def middle(tied: bool, layers: int, norm: int, head: int) -> int:
    return layers + norm + HIDDEN * 4


def last(tied: bool, layers: int, norm: int, head: int) -> int:
    return layers + norm + (TABLE_BYTES if tied else head + HIDDEN * 4)


@pytest.mark.parametrize(
    ("begin", "end", "wanted"),
    [
        pytest.param(0, 3, first, id="the first part has the embedding"),
        pytest.param(3, 5, middle, id="a part in the middle has neither end"),
        pytest.param(5, 8, last, id="the last part has the head"),
    ],
)
@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])
def test_a_part_holds_what_it_computes_with(
    config: dict[str, Any], begin: int, end: int, wanted: Callable[..., int]
) -> None:
    model = build(config)
    layers, norm = size(layers_of(model)[0]) * (end - begin), HIDDEN * 4
    part = take_part(model, begin, end, same, same)
    assert size(part) == wanted(config is TIED, layers, norm, TABLE_BYTES)


def test_weights_of_other_parts_are_freed() -> None:
    model = build(UNTIED)
    held = layers_of(model)[7].self_attn
    take_part(model, 0, 3, same, same)
    assert held.q_proj.weight.size == 0


def test_a_rotation_that_all_layers_share_stays() -> None:
    model = build(UNTIED)
    shared = nn.Module()
    shared.table = mx.ones((4,))
    for layer in layers_of(model):
        layer.self_attn.rope_table = shared
    take_part(model, 0, 3, same, same)
    assert shared.table.size == 4


def test_each_end_hands_over_once() -> None:
    calls: list[str] = []

    def said(word: str) -> Callable[[mx.array], mx.array]:
        def hop(hidden: mx.array) -> mx.array:
            calls.append(word)
            return hidden

        return hop

    part = take_part(build(UNTIED), 3, 5, said("receive"), said("send"))
    assert part(PROMPT, cache=make_prompt_cache(part)).shape == (1, PROMPT.shape[1], 1), "no logits"
    assert calls == ["receive", "send"]


def test_a_pass_through_says_of_itself_what_its_layer_says() -> None:
    model = build(UNTIED)
    layers_of(model)[0].use_sliding = True
    passing = layers_of(take_part(model, 3, 5, same, same))[0]
    assert passing.use_sliding
    assert passing.self_attn.n_heads == 4
    with pytest.raises(AttributeError):
        _ = passing.is_linear


def test_a_part_counts_positions_for_the_layers_of_others_in_one_narrow_key_each() -> None:
    part = take_part(build(UNTIED), 3, 5, same, same)
    cache = make_prompt_cache(part)
    mx.eval(part(PROMPT, cache=cache))
    assert [one.offset for one in cache] == [PROMPT.shape[1]] * 8
    narrow, own = cache[0], cache[3]
    assert (narrow.keys.shape[1], narrow.keys.shape[3]) == (1, 1)
    assert own.nbytes == KV_HEADS * HEAD_WIDTH * narrow.nbytes


def test_what_was_moved_is_computed_with_each_step() -> None:
    """Otherwise some nodes a token are left behind until somebody asks for them, and then there are thousands."""
    part = take_part(build(UNTIED), 3, 5, same, same)
    cache = make_prompt_cache(part)
    mx.eval(part(PROMPT, cache=cache))
    for _ in range(STEP_COUNT):
        mx.eval(part(PROMPT[:, :1], cache=cache))
    mx.synchronize()
    before = mx.get_active_memory()
    mx.eval([one.state for one in cache])
    # The arrays are there: evaluating them makes none and frees none.
    assert mx.get_active_memory() == before


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        pytest.param(lambda model: setattr(model.model, "layers", tuple(model.layers)), "not one list", id="no list"),
        pytest.param(lambda model: model.model.layers.clear(), "not one list", id="no layers"),
    ],
)
def test_a_model_without_a_list_of_layers_cannot_be_split(break_it: Callable[[Any], None], why: str) -> None:
    model = build(UNTIED)
    break_it(model)
    with pytest.raises(CannotSplit, match=why):
        take_part(model, 0, 3)


def test_a_cache_that_counts_in_a_way_of_its_own_cannot_be_moved() -> None:
    class Strange:
        pass

    with pytest.raises(CannotSplit, match="Strange"):
        advance(Strange(), mx.zeros((1, 4, 8)))


def test_layers_that_give_more_than_a_hidden_state_cannot_be_split() -> None:
    part = take_part(build(UNTIED), 0, 3, same, same)
    with pytest.raises(CannotSplit, match="more than a hidden state"):
        layers_of(part)[3]((PROMPT, PROMPT), None, cache=KVCache())


@pytest.mark.parametrize(("begin", "end"), [(-1, 3), (3, 3), (5, 9)])
def test_a_part_has_layers_that_are_there(begin: int, end: int) -> None:
    with pytest.raises(ValueError, match="of 8"):
        take_part(build(UNTIED), begin, end, same, same)
