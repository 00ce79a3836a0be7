"""An address of its own for each test."""

import socket

import pytest


@pytest.fixture
def address() -> str:
    """A free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
