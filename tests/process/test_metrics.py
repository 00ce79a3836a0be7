"""Metrics of a role: on the port beside its own, and never shared."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from thunderline.process import metrics
from thunderline.process.entry import CannotStart


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Another process's port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken


def free_grpc_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1]) - metrics.PORT_OFFSET


def test_a_parser_reads_which_role_runs() -> None:
    with metrics.served("topology", "0.1.0", "127.0.0.1", free_grpc_port()) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = {family.name: family for family in text_string_to_metric_families(text)}
        roles = [sample.labels for sample in found["thunderline_role_info"].samples if sample.value == 1]
        assert {"role": "topology", "version": "0.1.0"} in roles
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_a_taken_port_is_refused_by_name(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with (
        pytest.raises(CannotStart, match=rf"127\.0\.0\.1:{port}: "),
        metrics.served("topology", "0.1.0", "127.0.0.1", port - metrics.PORT_OFFSET),
    ):
        pass


def test_the_port_is_free_again_afterwards() -> None:
    grpc_port = free_grpc_port()
    for _ in range(2):
        with metrics.served("topology", "0.1.0", "127.0.0.1", grpc_port) as port:
            assert port == grpc_port + 100
