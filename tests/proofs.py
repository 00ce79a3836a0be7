"""What `make prove` measures, and with which sources: a proof is measured again when one of them has changed."""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
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
    "containment": ["tests/faults/test_broken_step.py", "tests/faults/test_poison.py"],
    "hop": ["tests/prove/test_hop.py"],
    "serve": ["tests/e2e/test_bench.py"],
    "serve_16": ["tests/e2e/test_bench.py"],
    "serve_seeded": ["tests/e2e/test_bench.py"],
    "serve_waits": ["tests/e2e/test_bench.py"],
    "simulation": ["tests/simulation"],
    "lab_cold_starts": ["tests/lab/test_cold_starts.py"],
    "lab_crashes": ["tests/lab/test_crashes.py"],
    "lab_health": ["tests/lab/test_health.py"],
    "lab_paths": [
        "tests/lab/test_directions.py",
        "tests/lab/test_routes.py",
        "tests/lab/test_moving.py",
        "tests/lab/test_finding.py",
        "tests/lab/test_echo.py",
    ],
    "lab_plan": ["tests/lab/test_plan.py"],
    "lab_cost": ["tests/lab/test_cost.py"],
    "lab_macs": ["tests/lab/test_macos.py"],
    "lab_scanning": ["tests/lab/test_scanning_cost.py"],
    "architectures": ["tests/audit/test_every_architecture.py", "tests/rank/test_splits.py"],
    "planning": ["tests/prove/test_planning.py"],
    "model_facts": ["tests/audit/test_facts_of_every_architecture.py", "tests/audit/test_facts_of_published_files.py"],
}
# What tests read that is not Python.
DATA = dict.fromkeys(
    ("lab_macs", "lab_scanning"), ("tests/macos/stand_in", "tests/macos/machines", "tests/macos/situations")
)
SOURCES = ("services", "clients", "protos")
SUFFIXES = (".py", ".pyi", ".proto")
# Fixtures of all tests; those of a folder are in its own conftest.py.
FIXTURES = ("tests/conftest.py", "tests/living.py")
# Says what belongs to a proof: that changes nothing of what is measured.
NOT_MEASURING = "tests/proofs.py"
FILE_NAME = re.compile(r"\w+\.(py|json)")


def digest(name: str, root: Path = ROOT) -> str:
    """Of every source, of the part's own tests, and of all in tests/ that they use: names and what the files hold."""
    found = {path for folder in SOURCES for path in (root / folder).rglob("*") if path.suffix in SUFFIXES}
    tests = {path for test in PROOFS[name] for path in _files(root / test)}
    total = hashlib.sha256()
    data = {path for one in DATA.get(name, ()) for path in (root / one, *(root / one).rglob("*")) if path.is_file()}
    for path in sorted(found | tests | helpers(tests, root) | data):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _files(test: Path) -> Iterable[Path]:
    return test.rglob("*.py") if test.is_dir() else [test]


def helpers(tests: Iterable[Path], root: Path = ROOT) -> set[Path]:
    """What these import from tests/ or name as a file beside them, their fixtures, and so on from there."""
    found: set[Path] = set()
    left = [*tests, *(root / name for name in FIXTURES), *{path.parent / "conftest.py" for path in tests}]
    while left:
        path = left.pop()
        if path.is_file() and path not in found and path != root / NOT_MEASURING:
            found.add(path)
            if path.suffix == ".py":
                left += _used(path, root / "tests")
    return found


def _used(path: Path, folder: Path) -> Iterator[Path]:
    """Candidates: most of what a file imports is not from `folder`."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                modules = [one.name for one in names]
            case ast.ImportFrom(module=str(module), names=names):
                modules = [module, *(f"{module}.{one.name}" for one in names)]
            case ast.Constant(value=str(text)) if FILE_NAME.fullmatch(text):
                # Run or read by its path.
                yield from (path.parent / text, folder / text)
                continue
            case _:
                continue
        yield from (folder / f"{module.replace('.', '/')}.py" for module in modules)


def is_current(name: str, root: Path = ROOT) -> bool:
    """Whether its evidence was measured with the sources as they are."""
    try:
        tree = json.loads((root / "tests/evidence" / f"{name}.json").read_text())
        return bool(tree["sources"] == digest(name, root))
    except (OSError, ValueError, KeyError, TypeError):
        return False
