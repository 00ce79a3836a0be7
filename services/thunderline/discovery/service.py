"""The gRPC shell of discovery: the roster of one node."""

import time
from collections.abc import AsyncIterator
from typing import Any

from thunderline.cluster import NodeId
from thunderline.cluster.callers import Caller
from thunderline.cluster.errors import InvalidRequest, Unauthenticated
from thunderline.discovery import wire
from thunderline.discovery.exchanging import EXCHANGES
from thunderline.discovery.membership import Membership
from thunderline.process.changes import watch
from thunderline.process.trust import Wallet
from thunderline.rpc.admission import address_of, caller_of
from thunderline.v1 import discovery_pb2, discovery_pb2_grpc

WATCH_PACE_S = 0.1


class DiscoveryService(discovery_pb2_grpc.DiscoveryServiceServicer):
    """`wallet` where callers show a certificate, else None."""

    def __init__(self, members: Membership, wallet: Wallet | None = None) -> None:
        self._members = members
        self._wallet = wallet

    async def GetRoster(self, request: discovery_pb2.GetRosterRequest, context: Any) -> discovery_pb2.GetRosterResponse:
        return discovery_pb2.GetRosterResponse(roster=self._members.proto())

    async def WatchRoster(
        self, request: discovery_pb2.WatchRosterRequest, context: Any
    ) -> AsyncIterator[discovery_pb2.WatchRosterResponse]:
        async for roster in watch(self._members.changes, self._members.proto, WATCH_PACE_S):
            yield discovery_pb2.WatchRosterResponse(roster=roster)

    async def ExchangeCard(
        self, request: discovery_pb2.ExchangeCardRequest, context: Any
    ) -> discovery_pb2.ExchangeCardResponse:
        came_s = time.time()
        greeting = wire.checked_greeting(request)
        ahead_s = request.sent_at.ToMicroseconds() / 1e6 - came_s
        if self._wallet is not None:
            bearer = caller_of(context, self._wallet).bearer
            if bearer.name != greeting.card.node_id:
                raise Unauthenticated(f"{bearer} shows the card of node {greeting.card.node_id}")
        self._members.greeted(greeting, ahead_s, address_of(context.peer()))
        EXCHANGES.labels("served").inc()
        response = discovery_pb2.ExchangeCardResponse()
        wire.fill_greeting(response, self._members.greet(greeting.card), time.time())
        return response

    async def LeaveCluster(
        self, request: discovery_pb2.LeaveClusterRequest, context: Any
    ) -> discovery_pb2.LeaveClusterResponse:
        if not wire.is_node_id(request.node_id):
            raise InvalidRequest("node_id is no UUID", param="node_id")
        if self._wallet is not None:
            bearer, own = caller_of(context, self._wallet).bearer, self._members.own.node_id
            # The others believe it of this node itself only, or of the scheduler node: discovery/peers.py.
            if bearer.name != own or (bearer.caller is not Caller.SCHEDULER and bearer.name != request.node_id):
                raise Unauthenticated(f"{bearer} leaves by its own discovery; others only the scheduler node takes out")
        self._members.leave(NodeId(request.node_id))
        return discovery_pb2.LeaveClusterResponse()
