"""TopologyService."""

from collections.abc import AsyncIterator

from thunderline.client.connection import Connection, called, called_again, streamed
from thunderline.v1 import topology_pb2, topology_pb2_grpc

# 20 probes that are all lost, 10 s of bandwidth, what is then still on a slow way, and the way to who measures.
MEASURE_S = 70.0


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

    async def measure_link(
        self, link: topology_pb2.Link, bandwidth: bool, in_use: bool = False
    ) -> topology_pb2.MeasureLinkResponse:
        """From the node where the link begins. `in_use`: an instance serves over it.

        Raises NotFound, Full, LinkInUse, Unreachable.
        """
        request = topology_pb2.MeasureLinkRequest(
            from_node_id=link.from_node_id,
            peer_node_id=link.to_node_id,
            peer_address=link.peer_address,
            bandwidth=bandwidth,
            in_use=in_use,
        )
        response: topology_pb2.MeasureLinkResponse = await called(self._stub.MeasureLink, request, MEASURE_S)
        return response
