"""The gRPC shell of discovery: the roster of one node."""

import time
from collections.abc import AsyncIterator
from typing import Any

from thunderline.cluster.errors import NotOffered
from thunderline.process.changes import Changes, watch
from thunderline.v1 import cluster_pb2, discovery_pb2, discovery_pb2_grpc

WATCH_PACE_S = 0.1


class DiscoveryService(discovery_pb2_grpc.DiscoveryServiceServicer):
    """`card` may be replaced; `changes` then has to be notified."""

    def __init__(self, card: cluster_pb2.NodeCard) -> None:
        self.card = card
        self.changes = Changes()
        self._since_s = time.time()

    def roster(self) -> discovery_pb2.Roster:
        member = discovery_pb2.Member(card=self.card, state=discovery_pb2.MEMBER_STATE_ALIVE)
        member.state_since.FromMilliseconds(int(self._since_s * 1000))
        # A cluster of one node is complete as soon as that node is there.
        return discovery_pb2.Roster(members=[member], complete=True, node_id=self.card.node_id)

    async def GetRoster(self, request: discovery_pb2.GetRosterRequest, context: Any) -> discovery_pb2.GetRosterResponse:
        return discovery_pb2.GetRosterResponse(roster=self.roster())

    async def WatchRoster(
        self, request: discovery_pb2.WatchRosterRequest, context: Any
    ) -> AsyncIterator[discovery_pb2.WatchRosterResponse]:
        async for roster in watch(self.changes, self.roster, WATCH_PACE_S):
            yield discovery_pb2.WatchRosterResponse(roster=roster)

    async def ExchangeCard(
        self, request: discovery_pb2.ExchangeCardRequest, context: Any
    ) -> discovery_pb2.ExchangeCardResponse:
        raise NotOffered("a cluster is one node so far: there are no peers")
