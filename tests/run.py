"""Every check, part by part: `python tests/run.py test`, or `python tests/run.py prove [NAME ...]`.

Stops at nothing; the last lines say what failed. In CI (CI=true) a skipped test is a failure.
"""

import contextlib
import filecmp
import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import proofs

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PART_DEADLINE_S = 1200
# Proofs take as long as their counts ask; the benchmark's is the longest.
PROOF_DEADLINE_S = 4 * 3600
# Fixtures that run whole systems take a few seconds to end them.
TAKE_DOWN_S = 30
# What `make test` runs: a name, and the folders that pytest gets.
PARTS = {
    "unit": [],
    "simulation": ["tests/simulation"],
    "lab": ["tests/lab"],
    "system": ["tests/e2e", "tests/faults"],
}
# The longest files of whole systems, longest first: one that begins last is waited for alone.
LONGEST = (
    *("tests/faults/test_harness.py", "tests/e2e/test_greedy.py", "tests/faults/test_answers_go_on.py"),
    *("tests/e2e/test_life_of_up.py", "tests/faults/test_stores.py", "tests/faults/test_hangs.py"),
    *("tests/faults/test_crash_loop.py", "tests/e2e/test_bench.py", "tests/e2e/test_two_nodes.py"),
)
# Tests mostly wait, so that two cores take several at a time: those of one file stay together, but worlds and labs are
# each by itself. A proof runs by itself: its figures are of one process.
BESIDE_EACH_OTHER = {
    # In the order of folders: the engine's, which take longest, begin first.
    "unit": ("-n", "4", "--dist", "loadfile", "--no-loadscope-reorder"),
    "simulation": ("-n", "2", "--dist", "worksteal"),
    "lab": ("-n", "4", "--dist", "worksteal"),
    "system": ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
}
WHOLE_SYSTEMS = ("simulation", "lab", "e2e", "faults", "evidence", "prove")


@dataclass
class Tally:
    """What has been run so far."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    parts: list[tuple[str, bool, float]] = field(default_factory=list)

    def note(self, name: str, work: Callable[[], bool]) -> None:
        print(f"== {name}", flush=True)
        begun = time.monotonic()
        fine = work()
        self.parts.append((name, fine, time.monotonic() - begun))

    def count(self, output: str) -> None:
        """Adds pytest's own figures, from its last line."""
        last = output.strip().splitlines()[-1] if output.strip() else ""
        for number, what in re.findall(r"(\d+) (passed|failed|error|skipped)", last):
            key = "failed" if what == "error" else what
            setattr(self, key, getattr(self, key) + int(number))


def command(*words: str) -> bool:
    """A tool of ours, from .venv."""
    return (
        subprocess.run([str(BIN / words[0]), *words[1:]], cwd=ROOT, check=False, timeout=PART_DEADLINE_S).returncode
        == 0
    )


def stubs_are_current() -> bool:
    """Makes the stubs anew and compares them with those that are checked in."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "gen"
        subprocess.run([sys.executable, str(ROOT / "protos/generate.py"), str(made)], cwd=ROOT, check=True)
        ours, theirs = _files(ROOT / "protos/gen"), _files(made)
        stale = sorted(ours ^ theirs) + sorted(
            name for name in ours & theirs if not filecmp.cmp(ROOT / "protos/gen" / name, made / name, shallow=False)
        )
    for name in stale:
        print(f"protos/gen/{name} is not what protos/ says: run `make protos`")
    return not stale


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.py*") if "__pycache__" not in path.parts}


def pytest(
    tally: Tally,
    name: str,
    targets: list[str],
    environment: dict[str, str] | None = None,
    deadline_s: float = PART_DEADLINE_S,
) -> bool:
    """One run of pytest, shown as it goes. At the deadline it is killed, with everything that it has started."""
    flags = ["-q", "-rs", "--durations=8", *(() if environment else BESIDE_EACH_OTHER.get(name, ()))]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *flags, *targets],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    lines: list[str] = []
    # A thread: whoever else holds the pipe cannot hold us.
    reader = threading.Thread(target=_show, args=(process, lines), daemon=True)
    reader.start()
    try:
        process.wait(deadline_s)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        print(f"\n{name} took longer than {deadline_s:g} s: it was killed", flush=True)
    except KeyboardInterrupt:
        # Its session is its own: the terminal has told only us. It takes its fixtures down.
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(TAKE_DOWN_S)
        kill_tree(process.pid)
        raise
    code = process.wait()
    reader.join(TAKE_DOWN_S)
    tally.count("".join(lines))
    return code == 0


def _show(process: "subprocess.Popen[str]", lines: list[str]) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            print(line, end="", flush=True)
            lines.append(line)


def kill_tree(pid: int) -> None:
    """Kills a child of ours that leads a session, its session, and its descendants in sessions of their own."""
    try:
        descendants = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    os.killpg(pid, signal.SIGKILL)
    for one in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def unit_targets() -> list[str]:
    """Everything that starts no whole system."""
    tests = ROOT / "tests"
    folders = [path for path in sorted(tests.iterdir()) if path.is_dir() and path.name not in WHOLE_SYSTEMS]
    with_tests = [folder for folder in folders if any(folder.glob("test_*.py"))]
    return [str(path.relative_to(ROOT)) for path in [*with_tests, *sorted(tests.glob("test_*.py"))]]


def test() -> int:
    tally = Tally()
    tally.note("ruff", lambda: command("ruff", "check", ".") & command("ruff", "format", "--check", "."))
    tally.note("mypy", lambda: command("mypy", "services", "clients", "tests"))
    tally.note("protos", lambda: command("buf", "lint", "protos") & stubs_are_current())
    for name, folders in PARTS.items():
        targets = [*LONGEST, *folders] if name == "system" else folders
        tally.note(name, lambda name=name, targets=targets: pytest(tally, name, targets or unit_targets()))  # type: ignore[misc]
    return conclude(tally)


def prove(names: list[str]) -> int:
    unknown = set(names) - proofs.PROOFS.keys()
    if unknown:
        print(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(proofs.PROOFS)}", file=sys.stderr)
        return 2
    tally = Tally()
    for name in names or proofs.PROOFS:
        if not names and proofs.is_current(name):
            print(f"== {name}: measured with these sources already; name the part to run it again")
            continue
        run = functools.partial(pytest, tally, name, proofs.PROOFS[name], {"PROVE": name}, PROOF_DEADLINE_S)
        tally.note(name, run)
    return conclude(tally)


def conclude(tally: Tally) -> int:
    print("\npart          result   seconds")
    for name, fine, seconds in tally.parts:
        print(f"{name:<13} {'passed' if fine else 'FAILED':<8} {seconds:6.1f}")
    skips = tally.skipped if os.environ.get("CI") else 0
    fine = all(fine for _, fine, _ in tally.parts) and not skips
    if skips:
        print("in CI a skipped test is a failure")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped", flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["test"]
    sys.exit(prove(rest) if what == "prove" else test())
