"""Files as models are published: what of them MLX has in memory, and at most while it reads them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from thunderline.runner.models import audit_folder

DEADLINE_S = 120
# Of counters and constants.
SMALL_BYTES = 64 * 1024
KINDS = {
    "tied": "a tied head and rotary tables that the files have all the same",
    "packed": "four bits a weight",
    "prediction": "a layer behind the last that predicts one token more",
    "experts": "each expert by itself",
    "fp8": "fp8 with scales for blocks, each expert by itself",
}


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
def test_facts(kind: str, tmp_path: Path, evidence: dict[str, Any]) -> None:
    script = Path(__file__).with_name("published.py")
    command = [sys.executable, str(script), kind, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr[-2000:]
    mlx = json.loads(done.stdout.splitlines()[-1])
    facts = audit_folder(tmp_path).facts
    assert facts is not None
    assert facts.weight_bytes == mlx["weight_bytes"]
    assert [layer.weight_bytes for layer in facts.layers] == mlx["layers"]
    evidence[f"peak_{kind}"] = {"said": facts.load_peak_bytes, "seen": mlx["peak_bytes"]}
    # Enough, and not so much that a model is refused for it.
    assert mlx["peak_bytes"] - SMALL_BYTES <= facts.load_peak_bytes <= 1.25 * mlx["peak_bytes"]
