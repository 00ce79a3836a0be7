"""`thunderline discovery`: who is in the cluster. One on every node."""

import asyncio
import sys
from collections.abc import Sequence

import grpc
from prometheus_client import Gauge

from thunderline.discovery.card import card, next_incarnation
from thunderline.discovery.service import DiscoveryService
from thunderline.process import metrics, stopping
from thunderline.process.entry import run_role
from thunderline.process.interfaces import interfaces
from thunderline.process.settings import Settings
from thunderline.process.version import VERSION
from thunderline.rpc.server import serving
from thunderline.v1 import discovery_pb2_grpc

SERVICE = "thunderline.v1.DiscoveryService"
LOOK_EVERY_S = 2.0

MEMBERS = Gauge("thunderline_members", "Members of the cluster by state.", ["state"])


async def keep_card(settings: Settings, incarnation: int, service: DiscoveryService) -> None:
    """Renews the card when an interface comes, goes or changes."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        newest = await asyncio.to_thread(lambda: card(settings, incarnation, interfaces()))
        if newest != service.card:
            service.card = newest
            service.changes.notify()


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    incarnation = next_incarnation(settings.home)
    service = DiscoveryService(card(settings, incarnation, interfaces()))
    MEMBERS.labels("ALIVE").set(1)

    def register(server: grpc.aio.Server) -> None:
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(service, server)

    async with serving(f"{settings.node.bind}:{settings.discovery.port}", [SERVICE], register) as server:
        with metrics.served("discovery", VERSION, settings.node.metrics_bind, settings.discovery.port):
            await server.serving()
            # A bug in the task ends the role with its reason.
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(keep_card(settings, incarnation, service))
                await stopping.stop_asked()
                keeping.cancel()
            service.changes.stop()
            await server.drain(settings.limits.drain_s)


def main(argv: Sequence[str]) -> int:
    return run_role("discovery", __doc__ or "", argv, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
