"""The runner of all checks: nothing hangs it, and a proof is measured again exactly when its sources have changed."""

import json
import os
import shutil
import time
from pathlib import Path

import psutil
import pytest

import proofs
import run
from installation import until

HANGS = """
import pathlib, subprocess, sys, time

def test_that_hangs():
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    # It holds our output, from a session of its own.
    child = subprocess.Popen(command, start_new_session=True)
    pathlib.Path(__file__).with_name("pid").write_text(str(child.pid))
    time.sleep(600)
"""


def test_a_part_that_hangs_is_killed_with_what_it_started_and_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGS)
    tally, begun = run.Tally(), time.monotonic()
    tally.note("sleepy", lambda: run.pytest(tally, "sleepy", [f"{tmp_path}/test_hanging.py", "-s"], deadline_s=10))
    assert time.monotonic() - begun < 25
    assert run.conclude(tally) == 1
    assert "sleepy took longer than 10 s: it was killed" in capfd.readouterr().out
    child = int((tmp_path / "pid").read_text())
    until("its child is gone", lambda: not psutil.pid_exists(child), 5)


@pytest.mark.parametrize(("text", "fine"), [("assert True", True), ("assert False", False)])
def test_a_part_that_ends_is_counted(tmp_path: Path, text: str, fine: bool) -> None:
    (tmp_path / "test_quick.py").write_text(f"def test_it():\n    {text}\n")
    tally = run.Tally()
    assert run.pytest(tally, "quick", [str(tmp_path)], deadline_s=60) is fine
    assert (tally.passed, tally.failed) == ((1, 0) if fine else (0, 1))


# By name what it holds: sources, the tests of a proof, and what these use.
MEASURED = {
    **dict.fromkeys(("services/a.py", "clients/b.py", "protos/c.proto"), "text"),
    **dict.fromkeys(proofs.PROOFS["kills"], "import streams\nfrom faults import helper\nPROGRAM = 'program.py'\n"),
    "tests/streams.py": "from deep.deeper import TEXT\n",
    "tests/deep/deeper.py": "TEXT = 1\n",
    "tests/faults/helper.py": "",
    "tests/faults/program.py": "",
    "tests/faults/conftest.py": "import hook\n",
    "tests/hook.py": "",
    "tests/living.py": "import proofs\n",
}
UNUSED = dict.fromkeys(("tests/proofs.py", "tests/faults/another_helper.py", "tests/e2e/conftest.py"), "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one source in each place, and evidence measured with them."""
    for name, text in (MEASURED | UNUSED).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    evidence = tmp_path / "tests/evidence/kills.json"
    evidence.parent.mkdir(parents=True)
    evidence.write_text(json.dumps({"sources": proofs.digest("kills", tmp_path)}))
    return tmp_path


def test_a_fresh_clone_needs_no_new_proof(root: Path) -> None:
    for path in root.rglob("*.p*"):
        os.utime(path, (2e9, 2e9))
    (root / "services/__pycache__").mkdir()
    (root / "services/__pycache__/a.pyc").write_text("compiled")
    assert proofs.is_current("kills", root)


@pytest.mark.parametrize("name", MEASURED)
def test_a_changed_source_needs_a_new_proof(root: Path, name: str) -> None:
    (root / name).write_text("changed")
    assert not proofs.is_current("kills", root)


@pytest.mark.parametrize("name", UNUSED)
def test_what_a_proof_does_not_use_may_change(root: Path, name: str) -> None:
    (root / name).write_text("changed")
    assert proofs.is_current("kills", root)


def test_changed_data_of_its_tests_needs_a_new_proof(root: Path) -> None:
    for name, folders in proofs.DATA.items():
        for test in proofs.PROOFS[name]:
            (root / test).parent.mkdir(parents=True, exist_ok=True)
            (root / test).write_text("")
        for folder in folders:
            before = proofs.digest(name, root)
            (root / folder / "some/where").mkdir(parents=True)
            (root / folder / "some/where/ifconfig.txt").write_text("data")
            assert proofs.digest(name, root) != before
            shutil.rmtree(root / folder)


def test_a_renamed_source_needs_a_new_proof(root: Path) -> None:
    (root / "services/a.py").rename(root / "services/z.py")
    assert not proofs.is_current("kills", root)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sources": ""}'])
def test_evidence_that_does_not_name_its_sources_is_not_current(root: Path, text: str) -> None:
    (root / "tests/evidence/kills.json").write_text(text)
    assert not proofs.is_current("kills", root)
