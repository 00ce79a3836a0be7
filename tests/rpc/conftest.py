"""An address of its own for each test, and a cluster."""

import socket
from pathlib import Path

import pytest

from rpc.little_cluster import LittleCluster


@pytest.fixture
def address() -> str:
    """A free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def cluster(tmp_path: Path) -> LittleCluster:
    return LittleCluster(tmp_path)
