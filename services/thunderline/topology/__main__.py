"""`thunderline topology`: how nodes are joined. One on every node."""

import asyncio
import sys
from collections.abc import Sequence

import grpc
from prometheus_client import Gauge

from thunderline.cluster.media import Medium
from thunderline.process import metrics, stopping
from thunderline.process.entry import run_role
from thunderline.process.home import node_id
from thunderline.process.interfaces import interfaces
from thunderline.process.settings import Settings
from thunderline.process.version import VERSION
from thunderline.rpc.server import serving
from thunderline.topology.service import TopologyService
from thunderline.v1 import topology_pb2_grpc

SERVICE = "thunderline.v1.TopologyService"
LOOK_EVERY_S = 2.0

INTERFACES = Gauge("thunderline_interfaces", "Network interfaces that are up, by medium.", ["medium"])


async def keep_looking(service: TopologyService) -> None:
    """Notices interfaces that come, go or change."""
    while True:
        for medium in Medium:
            up = [one for one in service.interfaces if one.is_up and one.medium is medium]
            INTERFACES.labels(medium.name).set(len(up))
        await asyncio.sleep(LOOK_EVERY_S)
        newest = await asyncio.to_thread(interfaces)
        if newest != service.interfaces:
            service.interfaces = newest
            service.changes.notify()


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    service = TopologyService(node_id(settings.home), interfaces())

    def register(server: grpc.aio.Server) -> None:
        topology_pb2_grpc.add_TopologyServiceServicer_to_server(service, server)

    async with serving(f"{settings.node.bind}:{settings.topology.port}", [SERVICE], register) as server:
        with metrics.served("topology", VERSION, settings.node.metrics_bind, settings.topology.port):
            await server.serving()
            # A bug in the task ends the role with its reason.
            async with asyncio.TaskGroup() as tasks:
                looking = tasks.create_task(keep_looking(service))
                await stopping.stop_asked()
                looking.cancel()
            service.changes.stop()
            await server.drain(settings.limits.drain_s)


def main(argv: Sequence[str]) -> int:
    return run_role("topology", __doc__ or "", argv, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
