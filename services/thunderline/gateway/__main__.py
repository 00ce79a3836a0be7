"""`thunderline gateway`: the OpenAI door. HTTP and SSE; holds each client's request until it is answered."""

import asyncio
import contextlib
import math
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

import uvicorn

from thunderline.client import SchedulerClient
from thunderline.cluster.transport import is_loopback
from thunderline.gateway.app import Gateway
from thunderline.gateway.connections import Connections
from thunderline.gateway.keys import AsksForKey
from thunderline.process import stopping
from thunderline.process.entry import CannotStart, run_role
from thunderline.process.home import node_id
from thunderline.process.metrics import ROLE_UP
from thunderline.process.settings import Settings
from thunderline.process.trust import Wallet
from thunderline.process.version import VERSION
from thunderline.rpc.scheduler_way import OwnNode, SchedulerWay

BACKLOG = 1024
# Ctrl-C: somebody waits for the prompt.
INTERRUPT_GRACE_S = 1
TICK_S = 1.0


class Server(uvicorn.Server):
    """Leaves the signals to us, and looks about once a second: uvicorn's ten times cost a fifth of a token's CPU."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        """No new requests; those in flight get the grace of the config."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        # At each tenth tick it makes the Date header anew.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._ending.wait()


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises CannotStart."""
    # With the protocol named: asyncio turns Nagle's delay off (40 ms on a kept-alive connection) only where it is TCP.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A closed server's port can be taken again at once; two servers cannot have it at the same time.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotStart(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    listener.setblocking(False)
    return listener


def check_keys(settings: Settings) -> None:
    """Raises CannotStart where strangers could reach us and no key would keep them out."""
    if not settings.gateway.api_keys and not is_loopback(settings.gateway.bind):
        raise CannotStart(
            f"[gateway] bind = {settings.gateway.bind!r} is wider than loopback, and [gateway] api_keys is empty: run "
            "`thunderline cluster key NAME` and write the digest that it prints into config.toml"
        )


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT: no new requests then, those in flight get the drain time."""
    check_keys(settings)
    listener = listen(settings.gateway.bind, settings.gateway.port)
    ROLE_UP.labels("gateway", VERSION).set(1)
    own = OwnNode.of(settings, node_id(settings.home), Wallet(settings.home, settings.cluster.name))
    way = SchedulerWay(own)
    async with SchedulerClient.over(way.channel) as scheduler:
        gateway = Gateway(scheduler, settings.limits)
        connections = Connections(settings.limits)
        config = uvicorn.Config(
            AsksForKey(gateway.app(), settings.gateway.api_keys, not is_loopback(settings.node.metrics_bind)),
            http=connections.protocol,  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=math.ceil(settings.limits.connection_idle_s),
            timeout_graceful_shutdown=math.ceil(settings.limits.drain_s),
        )
        server = Server(config)
        # A bug in one of the tasks ends the role with its reason.
        async with asyncio.TaskGroup() as tasks:
            finding = tasks.create_task(way.run())
            serving = tasks.create_task(server.serve(sockets=[listener]))
            names = tasks.create_task(gateway.keep_names())
            watching = tasks.create_task(connections.watch())
            stop = tasks.create_task(stopping.stop_asked())
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            gateway.draining = True
            if stop.done() and stop.result() is signal.SIGINT:
                config.timeout_graceful_shutdown = INTERRUPT_GRACE_S
                gateway.interrupt()
            server.end()
            await asyncio.wait({serving})
            for task in (names, watching, stop, finding):
                task.cancel()


def main(argv: Sequence[str]) -> int:
    return run_role("gateway", __doc__ or "", argv, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
