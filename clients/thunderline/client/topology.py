"""TopologyService."""

from collections.abc import AsyncIterator

from thunderline.client.connection import Connection, called_again, streamed
from thunderline.v1 import topology_pb2, topology_pb2_grpc


class TopologyClient(Connection):
    stub = topology_pb2_grpc.TopologyServiceStub

    async def topology(self) -> topology_pb2.Topology:
        response: topology_pb2.GetTopologyResponse = await called_again(
            self._stub.GetTopology, topology_pb2.GetTopologyRequest()
        )
        return response.topology

    async def watch_topology(self) -> AsyncIterator[topology_pb2.Topology]:
        """The whole topology, then again at every change."""
        async for response in streamed(self._stub.WatchTopology(topology_pb2.WatchTopologyRequest())):
            yield response.topology
