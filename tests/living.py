"""Fixtures of real installations, shared by the end-to-end and the fault tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from installation import Installation, installed


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`thunderline up --demo` from an empty home, as `make up` does; one for all tests that leave it as it was."""
    with installed(tmp_path_factory.mktemp("up") / "home", "--demo") as installation:
        yield installation


@pytest.fixture(scope="session")
def demo_folder(fresh: Installation) -> Path:
    """The demo model that `up --demo` made."""
    return fresh.home / "models" / "smollm2-135m-instruct"
