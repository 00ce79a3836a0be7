"""Installations of the fault tests: in `make test` their model is the demo's first layers, three times as fast."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults import hooked_rank
from installation import DEMO, Installation, end, installed


@pytest.fixture(scope="session")
def new_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the home of an installation that begins with `--demo`; in `make prove` it makes the whole model itself."""

    def make(name: str) -> Path:
        home: Path = tmp_path_factory.mktemp(name) / "home"
        if not os.environ.get("PROVE"):
            shallow: Path = request.getfixturevalue("shallow_folder")
            shutil.copytree(shallow, home / "models" / DEMO, copy_function=os.link)
        return home

    return make


@pytest.fixture(scope="session")
def fresh(new_home: Callable[[str], Path]) -> Iterator[Installation]:
    """One for all fault tests that leave it as it was."""
    with installed(new_home("faults"), "--demo") as installation:
        yield installation


@pytest.fixture(scope="session")
def hooked(new_home: Callable[[str], Path]) -> Iterator[Installation]:
    """`thunderline up --demo`, started by the test build's own `thunderline`: its rank has a hook."""
    home = new_home("hooked")
    installation = Installation(home, bin=hooked_rank.build(home.parent / "build"))
    installation.start("--demo")
    try:
        installation.wait_ready()
        yield installation
    finally:
        end(installation)
