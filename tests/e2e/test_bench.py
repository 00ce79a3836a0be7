"""`thunderline bench serve`, as a user runs it; `make prove` runs all of it in four parts, which go on after a stop."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

import proofs
import reached
from installation import BIN, DEMO, installed

PROVING = os.environ.get("PROVE", "")
# 34, 22, 13 and 26 minutes of a machine that does nothing else.
FLAGS = {
    "serve": ["--streams", "8,4,1", "--seeded", "", "--no-waits"],
    "serve_16": ["--streams", "16", "--seeded", "", "--no-waits", "--no-hop"],
    "serve_seeded": ["--streams", "", "--seeded", "8", "--no-waits", "--no-hop"],
    "serve_waits": ["--streams", "", "--seeded", "", "--no-hop"],
}
EVIDENCE = Path(__file__).parents[1] / "evidence"
ROUNDS = 9
BENCH_DEADLINE_S = 3 * 3600


@pytest.mark.timeout(BENCH_DEADLINE_S)
def test_every_cell_is_measured(
    request: pytest.FixtureRequest, tmp_path: Path, evidence: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    if PROVING in FLAGS:
        # Made, and ended: nothing else runs beside a measurement.
        with installed(tmp_path / "home", "--demo") as made:
            model = made.home / "models" / DEMO
        out, flags, rounds = EVIDENCE / f"{PROVING}.json", FLAGS[PROVING], ROUNDS
        sources = proofs.digest(PROVING)
        if not out.exists() or json.loads(out.read_text()).get("sources") != sources:
            out.write_text(json.dumps({"sources": sources, "cells": {}}))
    else:
        model = request.getfixturevalue("demo_folder")
        out, flags, rounds = tmp_path / "bench.json", ["--streams", "", "--seeded", "", "--no-waits"], 1
    command = [str(BIN / "thunderline"), "bench", "serve", str(model), "--out", str(out), "--rounds", str(rounds)]
    with capfd.disabled():
        # Who waits for half an hour wants to see that it goes on.
        subprocess.run([*command, *flags], check=True, timeout=BENCH_DEADLINE_S)
    found = json.loads(out.read_text())
    assert found["cells"]
    for name, cell in found["cells"].items():
        assert len(cell["runs"]) == rounds, name
    evidence.update({**found, **figures(found["cells"])})
    if PROVING in FLAGS:
        # What was measured stays in the file, also when it does not reach what is asked.
        out.write_text(json.dumps({"sources": sources, **evidence}, indent=1) + "\n")
        assert reached.missed(PROVING, evidence) == []


def figures(cells: dict[str, Any]) -> dict[str, float]:
    """Medians by flat names, for the README."""
    found: dict[str, float] = {}
    for name, cell in cells.items():
        for figure, value in cell["summary"].items():
            if isinstance(value, dict) and "median" in value:
                found[_key(name, figure)] = value["median"]
            elif isinstance(value, dict) and figure.split()[0] == "ours":
                for one in ("tokens_per_s", "cpu_ms_per_token_outside", "gap_max_s", "gap_worst_s", "steps_over_1_s"):
                    if one in value:
                        found[_key(name, figure, one)] = value[one]
    return found


def _key(*words: str) -> str:
    return re.sub(r"\W+", "_", " ".join(words))
