"""An installation whose rank is a test build."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import hooked_rank
from installation import Installation, end


@pytest.fixture(scope="session")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`thunderline up --demo`, started by the test build's own `thunderline`."""
    folder: Path = tmp_path_factory.mktemp("hooked")
    installation = Installation(folder / "home", bin=hooked_rank.build(folder / "build"))
    installation.start("--demo")
    try:
        installation.wait_ready()
        yield installation
    finally:
        end(installation)
