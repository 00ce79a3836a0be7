"""How a role starts and how it refuses to: exit codes and one line, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from thunderline.process.entry import BUG, DONE, FAILED, USAGE, first

LITTLE = Path(__file__).with_name("little_role.py")


def run(home: Path, behaviour: str, *flags: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """The role's whole life."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
    return subprocess.run(
        [sys.executable, str(LITTLE), behaviour, "--home", str(home), *flags],
        env={**ours, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# What it does, flags, environment -> exit code, the last line on stderr.
ENDS: dict[str, tuple[str, list[str], dict[str, str], int, str]] = {
    "a role that ends as asked says nothing": ("ends", [], {}, DONE, ""),
    "one that cannot start says why in one line, whatever the reason holds": (
        "refuses",
        [],
        {},
        FAILED,
        "thunderline topology: the store is locked by pid 17",
    ),
    "a refusal is found in a group of tasks": (
        "refuses in a task",
        [],
        {},
        FAILED,
        "thunderline topology: port 7402 is taken",
    ),
    "a bug is no refusal: it is worth a restart": (
        "breaks in a task",
        [],
        {},
        BUG,
        "thunderline topology: ZeroDivisionError: division by zero",
    ),
    "a wrong setting is named": (
        "ends",
        ["--port", "many"],
        {},
        USAGE,
        "thunderline topology: flags: [topology] port = 'many': ",
    ),
    "an unknown variable is named": (
        "ends",
        [],
        {"THUNDERLINE_TOPOLOGY_PROT": "1"},
        USAGE,
        "thunderline topology: environment: THUNDERLINE_TOPOLOGY_PROT is no setting",
    ),
}


@pytest.mark.parametrize(("behaviour", "flags", "environ", "code", "line"), ENDS.values(), ids=ENDS.keys())
def test_how_a_role_ends(
    tmp_path: Path, behaviour: str, flags: list[str], environ: dict[str, str], code: int, line: str
) -> None:
    ended = run(tmp_path, behaviour, *flags, **environ)
    assert ended.returncode == code, ended.stderr
    last = ended.stderr.strip().splitlines()[-1] if ended.stderr.strip() else ""
    assert last.startswith(line)
    # A refusal is one line; a bug has its traceback in a log line before it.
    assert len(ended.stderr.splitlines()) == {DONE: 0, BUG: 2}.get(code, 1)


def test_a_bug_is_logged_with_its_traceback(tmp_path: Path) -> None:
    logged = json.loads(run(tmp_path, "breaks in a task").stderr.splitlines()[0])
    assert (logged["level"], logged["role"]) == ("critical", "topology")
    assert "ZeroDivisionError" in logged["exception"]


def test_the_first_error_is_found_however_deep() -> None:
    deep = ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("this")]), KeyError("that")])
    assert str(first(deep)) == "this"
