"""A runner of its own for a test, as a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.runner_process import Process


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    made.end()
