"""A lab of its own for each test."""

from collections.abc import Iterator

import pytest

from lab.needs import demand_here
from lab.network import Lab, lab


@pytest.fixture
def net() -> Iterator[Lab]:
    demand_here()
    with lab() as one:
        yield one
