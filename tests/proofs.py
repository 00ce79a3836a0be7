"""What `make prove` measures, and with which sources: a proof is measured again when one of them has changed."""

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What `make prove` runs at full counts; each test of a part writes tests/evidence/NAME.json.
PROOFS = {
    "greedy": ["tests/e2e/test_greedy.py"],
    "kills": ["tests/faults/test_kills.py"],
    "answers_go_on": [
        "tests/faults/test_answers_go_on.py",
        "tests/faults/test_dead_runners.py",
        "tests/faults/test_two_deployments.py",
    ],
    "hangs": ["tests/faults/test_hangs.py", "tests/prove/test_no_hangs.py"],
    "exit_causes": [
        "tests/runner/test_causes_of_real_ranks.py",
        "tests/faults/test_told_causes.py",
        "tests/faults/test_undeploy.py",
    ],
    "crash_loop": ["tests/faults/test_crash_loop.py"],
    "stores": ["tests/faults/test_stores.py", "tests/faults/test_full_disk.py"],
    "harness": ["tests/faults/test_harness.py"],
    "hostile": ["tests/e2e/test_hostile.py"],
    "seeds": ["tests/faults/test_seeds.py"],
    "crowd": ["tests/faults/test_crowd.py"],
    "containment": ["tests/faults/test_broken_step.py"],
    "serve": ["tests/e2e/test_bench.py"],
    "serve_16": ["tests/e2e/test_bench.py"],
    "serve_seeded": ["tests/e2e/test_bench.py"],
    "serve_waits": ["tests/e2e/test_bench.py"],
    "simulation": ["tests/simulation"],
    "architectures": ["tests/audit/test_every_architecture.py"],
}
SOURCES = ("services", "clients", "protos")
SUFFIXES = (".py", ".pyi", ".proto")


def digest(name: str, root: Path = ROOT) -> str:
    """Of every source and of the part's own tests: their names and what they hold, not when they were written."""
    found = {path for folder in SOURCES for path in (root / folder).rglob("*") if path.suffix in SUFFIXES}
    for test in PROOFS[name]:
        found |= set((root / test).rglob("*.py")) if (root / test).is_dir() else {root / test}
    total = hashlib.sha256()
    for path in sorted(found):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def is_current(name: str, root: Path = ROOT) -> bool:
    """Whether its evidence was measured with the sources as they are."""
    try:
        tree = json.loads((root / "tests/evidence" / f"{name}.json").read_text())
        return bool(tree["sources"] == digest(name, root))
    except (OSError, ValueError, KeyError, TypeError):
        return False
