"""The one factory of gRPC servers: limits, health, reflection, errors, and how a role drains."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.transport import Transport, transport
from thunderline.process.certificates import Authority
from thunderline.process.entry import CannotStart
from thunderline.process.trust import Wallet
from thunderline.rpc import credentials
from thunderline.rpc.admission import Admission, Admit, admit_strangers
from thunderline.rpc.channel import SERVER_OPTIONS
from thunderline.rpc.errors import ErrorInterceptor

DRAIN_LOOK_S = 0.02
# At the enrolment port anybody may call: a token and a certificate request are 5 KiB.
ENROLMENT_MESSAGE_BYTES_MAX = 64 * 1024
ENROLMENT_CALL_COUNT_MAX = 32
_RECEIVE = "grpc.max_receive_message_length"
ENROLMENT_OPTIONS = [(name, ENROLMENT_MESSAGE_BYTES_MAX if name == _RECEIVE else n) for name, n in SERVER_OPTIONS]

log = logging.getLogger(__name__)


class PortTaken(CannotStart):
    """Another process listens there."""


class Server:
    """A running server. `health` says NOT_SERVING until `serving()` is called, and again while draining."""

    def __init__(
        self,
        server: grpc.aio.Server,
        services: Sequence[str],
        calls: ErrorInterceptor,
        tls: grpc.ServerCredentials | None,
    ) -> None:
        self._server = server
        # gRPC asks it at every handshake, and keeps no reference to it.
        self._tls = tls
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
    address: str, services: Sequence[str], register: Callable[[grpc.aio.Server], None], wallet: Wallet | None = None
) -> AsyncIterator[Server]:
    """Listens on "host:port" or "unix:path" for the time of the block. `services` are full names for reflection.

    With a wallet, and on a node of a cluster, by TLS; each call is then held against the table of callers. Raises
    PortTaken; CannotStart where strangers could come in, or where our certificate is no good. Leaving the block
    without `drain` breaks the calls in flight.
    """
    try:
        has_certificate = wallet is not None and wallet.identity() is not None
        kind = transport(address, has_certificate)
        if kind is Transport.REFUSED:
            host = address.rpartition(":")[0].strip("[]")
            raise CannotStart(
                f"[node] bind = {host!r} is wider than loopback, and this node has no certificate of a cluster: run "
                "`thunderline cluster init` or `thunderline cluster join TOKEN`"
            )
        tls: grpc.ServerCredentials | None = None
        admit: Admit | None = None
        if kind is Transport.TLS and wallet is not None:
            tls, admit = credentials.for_server(wallet), Admission(wallet)
    except Unauthenticated as error:
        raise CannotStart(error.message) from None
    async with _served(address, services, register, tls, admit) as wrapped:
        yield wrapped


@contextlib.asynccontextmanager
async def enrolling(
    address: str, services: Sequence[str], register: Callable[[grpc.aio.Server], None], authority: Authority
) -> AsyncIterator[Server]:
    """The enrolment port: only our end shows a certificate. Raises PortTaken."""
    tls, most = credentials.for_enrolment(authority), ENROLMENT_CALL_COUNT_MAX
    async with _served(address, services, register, tls, admit_strangers, ENROLMENT_OPTIONS, most) as wrapped:
        yield wrapped


@contextlib.asynccontextmanager
async def _served(
    address: str,
    services: Sequence[str],
    register: Callable[[grpc.aio.Server], None],
    tls: grpc.ServerCredentials | None,
    admit: Admit | None,
    options: Sequence[tuple[str, int]] = SERVER_OPTIONS,
    call_count_max: int | None = None,
) -> AsyncIterator[Server]:
    calls = ErrorInterceptor(admit)
    server = grpc.aio.server(interceptors=[calls], options=options, maximum_concurrent_rpcs=call_count_max)
    wrapped = Server(server, services, calls, tls)
    register(server)
    try:
        if tls is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, tls)
    except RuntimeError:
        raise PortTaken(f"cannot listen on {address}: another process has it, or it is no address of ours") from None
    await wrapped.serving(False)
    await server.start()
    log.info("listening", extra={"address": address, "tls": tls is not None})
    try:
        yield wrapped
    finally:
        await server.stop(0)
