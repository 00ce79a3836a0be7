"""A lab of its own for each test, and clusters on its hosts."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.needs import demand_here
from lab.network import Lab, lab
from lab.nodes import Cluster, clusters


@pytest.fixture
def net() -> Iterator[Lab]:
    demand_here()
    with lab() as one:
        yield one


@pytest.fixture
def new_cluster(net: Lab, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """By name; each with an authority of its own. More words are settings, as variables."""
    with clusters(tmp_path) as make:
        yield make


@pytest.fixture
def cluster(new_cluster: Callable[..., Cluster]) -> Cluster:
    return new_cluster()
