"""What a layer keeps of a sequence is told without a computation, and is what it really keeps."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from rank.test_architecture import GEMMA3, JAMBA, LLAMA, MAMBA
from thunderline.rank.architecture import complete
from thunderline.rank.kept import Kept, _of, kept
from thunderline.rank.tiny import tiny

CONFIGS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "audit/configs.json").read_text())
FULL = 2 * 8 * 128
GEMMA3_WIDTH = 2 * 1 * 256


def told(config: dict[str, Any]) -> list[Kept]:
    return [Kept(**one) for one in kept(complete(config), tiny(complete(config)))]


def test_grouped_heads() -> None:
    assert told(LLAMA) == [Kept(FULL)] * 32


def test_windows_in_five_of_six_layers() -> None:
    found = told(GEMMA3)
    assert found == [Kept(GEMMA3_WIDTH, 0 if place % 6 == 5 else 512) for place in range(26)]


def test_states_beside_attention() -> None:
    found = told(JAMBA)
    attention = [place for place, one in enumerate(found) if one.kv_elements_per_token]
    assert attention == [4, 12, 20, 28]
    assert all(one.state_elements or one.state_bytes for place, one in enumerate(found) if place not in attention)


def test_states_alone() -> None:
    found = told(MAMBA)
    # The last three inputs of the convolution; the state proper.
    assert {one.kv_elements_per_token for one in found} == {0}
    assert {one.state_elements + one.state_bytes // 4 for one in found} <= {1536 * 3 + 1536 * 16}


def test_caches_are_those_of_the_layers_that_use_them() -> None:
    """Some layers have none at all: what they keep is nothing, and the others stay where they are."""
    config = CONFIGS["nemotron_h"]
    found = told(config)
    attention = [place for place, kind in enumerate(config["hybrid_override_pattern"]) if kind == "*"]
    states = [place for place, kind in enumerate(config["hybrid_override_pattern"]) if kind == "M"]
    assert [place for place, one in enumerate(found) if one.kv_elements_per_token] == attention
    assert [place for place, one in enumerate(found) if one.state_elements + one.state_bytes] == states


def test_layers_that_use_the_keys_of_others_keep_none() -> None:
    config = CONFIGS["gemma3n"]["text_config"]
    found = told(CONFIGS["gemma3n"])
    own = config["num_hidden_layers"] - config["num_kv_shared_layers"]
    assert [bool(one.kv_elements_per_token) for one in found] == [place < own for place in range(len(found))]


def test_nothing_of_the_real_size_is_computed() -> None:
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    assert told({**LLAMA, "num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 28672})
    assert mx.get_peak_memory() - before < 2**20


def filled(cache: Any, length: int, heads: int, width: int) -> Any:
    cache.update_and_fetch(mx.zeros((1, heads, length, width)), mx.zeros((1, heads, length, width // 2)))
    return cache


def state() -> ArraysCache:
    cache = ArraysCache(2)
    cache[0] = mx.zeros((1, 3, 10), mx.bfloat16)
    cache[1] = mx.zeros((1, 5), mx.float32)
    return cache


CACHES = {
    "keys and values of different widths": (lambda: filled(KVCache(), 1, 2, 8), Kept(2 * 12)),
    "a window": (lambda: filled(RotatingKVCache(64), 1, 2, 8), Kept(2 * 12, 64)),
    "a state of two types": (state, Kept(0, 0, 30, 20)),
    "a state and keys": (lambda: CacheList(state(), filled(KVCache(), 1, 1, 8)), Kept(12, 0, 30, 20)),
    "a window and all": (
        lambda: CacheList(filled(RotatingKVCache(64), 1, 1, 8), filled(KVCache(), 1, 1, 8)),
        Kept(24),
    ),
    "never filled": (KVCache, Kept()),
}


@pytest.mark.parametrize("case", CACHES)
def test_a_cache(case: str) -> None:
    make, wanted = CACHES[case]
    assert _of(make()) == wanted
