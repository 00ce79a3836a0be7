"""The one factory of gRPC servers: limits, health, reflection, errors, and how a role drains."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from thunderline.process.entry import CannotStart, check_loopback
from thunderline.rpc.channel import SERVER_OPTIONS
from thunderline.rpc.errors import ErrorInterceptor

DRAIN_LOOK_S = 0.02

log = logging.getLogger(__name__)


class PortTaken(CannotStart):
    """Another process listens there."""


class Server:
    """A running server. `health` says NOT_SERVING until `serving()` is called, and again while draining."""

    def __init__(self, server: grpc.aio.Server, services: Sequence[str], calls: ErrorInterceptor) -> None:
        self._server = server
        self._calls = calls
        self._services = (*services, "")
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)

    async def serving(self, serving: bool = True) -> None:
        """Says through grpc.health.v1 whether the role can do its work now."""
        status = health_pb2.HealthCheckResponse
        for service in self._services:
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def drain(self, grace_s: float) -> None:
        """Takes no new calls, lets those in flight end, and breaks them after the grace."""
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.create_task(self._server.stop(grace_s))
        # Watches of health and reflection never end by themselves: only our own calls are waited for.
        while self._calls.active_count and not stopping.done():
            await asyncio.sleep(DRAIN_LOOK_S)
        # None, not 0: a second stop that waits, if only for a moment, may find the server destroyed: a segfault.
        await self._server.stop(None)
        await stopping


@contextlib.asynccontextmanager
async def serving(
    address: str, services: Sequence[str], register: Callable[[grpc.aio.Server], None]
) -> AsyncIterator[Server]:
    """Listens on "host:port" or "unix:path" for the time of the block. `services` are full names for reflection.

    Raises PortTaken. Leaving the block without `drain` breaks the calls in flight.
    """
    if not address.startswith("unix:"):
        check_loopback("[node] bind", address.rpartition(":")[0].strip("[]"), "the certificates of a cluster")
    calls = ErrorInterceptor()
    server = grpc.aio.server(interceptors=[calls], options=SERVER_OPTIONS)
    wrapped = Server(server, services, calls)
    register(server)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise PortTaken(f"cannot listen on {address}: another process has it, or it is no address of ours") from None
    await wrapped.serving(False)
    await server.start()
    log.info("listening", extra={"address": address})
    try:
        yield wrapped
    finally:
        await server.stop(0)
