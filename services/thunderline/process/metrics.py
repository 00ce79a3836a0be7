"""Prometheus metrics of a role, on its own port."""

import contextlib
from collections.abc import Iterator

from prometheus_client import Gauge, start_http_server

from thunderline.process.entry import CannotStart

ROLE_UP = Gauge("thunderline_role_info", "1 while the role runs.", ["role", "version"])
PORT_OFFSET = 100


@contextlib.contextmanager
def served(role: str, version: str, host: str, grpc_port: int) -> Iterator[int]:
    """Serves /metrics at the gRPC port + 100 from a thread of its own. Raises CannotStart."""
    port = grpc_port + PORT_OFFSET
    try:
        server, thread = start_http_server(port, addr=host)
    except OSError as error:
        raise CannotStart(f"cannot serve metrics on {host}:{port}: {error.strerror}") from None
    ROLE_UP.labels(role, version).set(1)
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
