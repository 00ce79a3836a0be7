"""What is known of a model without loading it is what MLX has once it is loaded, for tiny random models of every kind:
bytes of weights exactly, and what a sequence keeps.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audit.test_every_architecture import CONFIGS, NOT_BATCH, NOT_BUILT, REFUSED
from thunderline.process import settings
from thunderline.runner.model_facts import KV_ESTIMATED, Facts, LayerFacts
from thunderline.runner.models import Models, Verdict

DEADLINE_S = 120
CHUNK_TOKENS = 256
UNUSABLE = NOT_BUILT | {name for name, verdict in NOT_BATCH.items() if verdict == REFUSED}
# Asks for values on the way, so that a token cannot go through the real sizes.
NOT_LAZY = {"dbrx"}
# Dense and grouped, fused, experts with latent attention that is kept, windows, states beside attention.
SOME = ("llama", "gpt2", "deepseek_v2", "gemma3_text", "jamba")


def told_by_mlx(folder: Path, *configs: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("telling.py")), str(folder), *map(str, configs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def told_by_the_files(home: Path, name: str) -> Facts:
    audit = asyncio.run(Models(settings.read({}, home=home)).audit(name))
    assert audit.verdict is Verdict.USABLE, audit.problems
    assert audit.facts is not None
    return audit.facts


@pytest.mark.parametrize("name", [one for one in CONFIGS if one not in UNUSABLE] if os.environ.get("PROVE") else SOME)
def test_facts(name: str, tmp_path: Path, evidence: dict[str, Any]) -> None:
    folder = tmp_path / "home" / "models" / "tiny"
    folder.mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    mlx = told_by_mlx(folder, tmp_path / "config.json")
    compare(told_by_the_files(tmp_path / "home", "tiny"), mlx, is_lazy=name not in NOT_LAZY)
    evidence["equal"] = evidence.get("equal", 0) + 1


def compare(facts: Facts, mlx: dict[str, Any], is_lazy: bool = True) -> None:
    """What the files say with what MLX has."""
    assert facts.weight_bytes == mlx["weight_bytes"]
    if mlx["layers"]:
        assert [layer.weight_bytes for layer in facts.layers] == mlx["layers"]
    assert (KV_ESTIMATED not in facts.unknowns) is is_lazy
    if is_lazy:
        _compare_kept(facts, mlx["caches"])


def _compare_kept(facts: Facts, caches: list[dict[str, int]]) -> None:
    if len(caches) != len(facts.layers):
        # Layers that have none, or share one: which is whose does not show, but all together do.
        assert sum(cache["at_512"] - cache["at_256"] for cache in caches) == sum(map(_grown, facts.layers))
        assert sum(cache["at_512"] for cache in caches) == sum(map(_held, facts.layers))
        return
    for layer, cache in zip(facts.layers, caches, strict=True):
        assert cache["at_512"] - cache["at_256"] == _grown(layer)
        assert cache["at_512"] == _held(layer)
        if layer.window_tokens:
            assert cache["after_one"] == layer.kv_bytes_per_token * layer.window_tokens + layer.state_bytes


def _grown(layer: LayerFacts) -> int:
    """Bytes, from the first chunk to the second. A window keeps as many before a chunk as its first token can see."""
    return layer.kv_bytes_per_token * (layer.window_tokens - 1 if layer.window_tokens else CHUNK_TOKENS)


def _held(layer: LayerFacts) -> int:
    return layer.kv_bytes_per_token * CHUNK_TOKENS + _grown(layer) + layer.state_bytes
