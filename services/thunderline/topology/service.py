"""The gRPC shell of topology: the interfaces of one node."""

from collections.abc import AsyncIterator
from typing import Any

from thunderline.cluster import NodeId
from thunderline.cluster.errors import NotOffered
from thunderline.process.changes import Changes, watch
from thunderline.process.interfaces import Interface
from thunderline.v1 import cluster_pb2, topology_pb2, topology_pb2_grpc

WATCH_PACE_S = 0.1


class TopologyService(topology_pb2_grpc.TopologyServiceServicer):
    """`interfaces` may be replaced; `changes` then has to be notified."""

    def __init__(self, node_id: NodeId, interfaces: tuple[Interface, ...]) -> None:
        self._node_id = node_id
        self.interfaces = interfaces
        self.changes = Changes()

    def topology(self) -> topology_pb2.Topology:
        found = [
            cluster_pb2.NetworkInterface(
                name=one.name,
                medium=one.medium.value,  # type: ignore[arg-type]
                addresses=one.addresses,
                is_up=one.is_up,
                mtu_bytes=one.mtu_bytes,
            )
            for one in self.interfaces
        ]
        # One node has no links: there is nothing left to probe.
        return topology_pb2.Topology(node_id=self._node_id, interfaces=found, complete=True)

    async def GetTopology(
        self, request: topology_pb2.GetTopologyRequest, context: Any
    ) -> topology_pb2.GetTopologyResponse:
        return topology_pb2.GetTopologyResponse(topology=self.topology())

    async def WatchTopology(
        self, request: topology_pb2.WatchTopologyRequest, context: Any
    ) -> AsyncIterator[topology_pb2.WatchTopologyResponse]:
        async for topology in watch(self.changes, self.topology, WATCH_PACE_S):
            yield topology_pb2.WatchTopologyResponse(topology=topology)

    async def WatchObservations(
        self, request: topology_pb2.WatchObservationsRequest, context: Any
    ) -> AsyncIterator[topology_pb2.WatchObservationsResponse]:
        raise NotOffered("a cluster is one node so far: there is no link to observe")
        yield topology_pb2.WatchObservationsResponse()  # makes it a stream

    async def MeasureLink(
        self, request: topology_pb2.MeasureLinkRequest, context: Any
    ) -> topology_pb2.MeasureLinkResponse:
        raise NotOffered("a cluster is one node so far: there is no link to measure")
