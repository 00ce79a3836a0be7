"""Fixtures of real installations, shared by the end-to-end and the fault tests."""

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proofs
from installation import DEMO, Installation, installed

SHALLOW = Path(__file__).with_name("shallow.py")
COPY_DEADLINE_S = 60


@pytest.fixture(scope="session")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`thunderline up --demo` from an empty home, as `make up` does; one for all tests that leave it as it was."""
    with installed(tmp_path_factory.mktemp("up") / "home", "--demo") as installation:
        yield installation


@pytest.fixture(scope="session")
def fresh(demonstration: Installation) -> Installation:
    """What most tests talk to. The fault tests have their own."""
    return demonstration


@pytest.fixture(scope="session")
def evidence(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Figures that a proof measures; `make prove NAME` keeps them in tests/evidence/NAME.json once all has passed."""
    figures: dict[str, Any] = {}
    name = os.environ.get("PROVE")
    # Before it is measured: what changes meanwhile is not what was measured.
    sources = proofs.digest(name) if name else ""
    yield figures
    if name and figures and not request.session.testsfailed:
        today = datetime.date.today().isoformat()
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        found = {"date": today, "machine": machine, "sources": sources, **figures}
        folder = Path(__file__).parent / "evidence"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


@pytest.fixture(scope="session")
def demo_folder(demonstration: Installation) -> Path:
    """The demo model that `up --demo` made."""
    return demonstration.home / "models" / DEMO


@pytest.fixture(scope="session")
def shallow_folder(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first layers, for who does not care what it says."""
    folder: Path = tmp_path_factory.mktemp("shallow") / DEMO
    subprocess.run([sys.executable, str(SHALLOW), str(demo_folder), str(folder)], check=True, timeout=COPY_DEADLINE_S)
    return folder
