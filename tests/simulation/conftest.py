"""The collector, and the processes in which worlds live."""

import gc
from collections.abc import Iterator

import pytest

from simulation.lives import Lived, collect_rarely, living


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    usual = gc.get_threshold()
    collect_rarely()
    yield
    gc.set_threshold(*usual)
    gc.unfreeze()


@pytest.fixture(scope="session")
def lived() -> Iterator[Lived]:
    with living() as lived:
        yield lived
