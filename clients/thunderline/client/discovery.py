"""DiscoveryService."""

from collections.abc import AsyncIterator

from thunderline.client.connection import Connection, called, called_again, streamed
from thunderline.cluster import NodeId
from thunderline.v1 import discovery_pb2, discovery_pb2_grpc


class DiscoveryClient(Connection):
    stub = discovery_pb2_grpc.DiscoveryServiceStub

    async def roster(self) -> discovery_pb2.Roster:
        response: discovery_pb2.GetRosterResponse = await called_again(
            self._stub.GetRoster, discovery_pb2.GetRosterRequest()
        )
        return response.roster

    async def watch_roster(self) -> AsyncIterator[discovery_pb2.Roster]:
        """The whole roster, then again at every change."""
        async for response in streamed(self._stub.WatchRoster(discovery_pb2.WatchRosterRequest())):
            yield response.roster

    async def leave(self, node: NodeId) -> None:
        """The node is no member any more. Raises NotFound, Unauthenticated."""
        await called(self._stub.LeaveCluster, discovery_pb2.LeaveClusterRequest(node_id=node))
