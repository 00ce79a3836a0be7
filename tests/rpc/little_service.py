"""A real server on loopback whose handlers do what a test says, and a client of it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from thunderline.rpc.channel import dial
from thunderline.rpc.server import Server, serving
from thunderline.v1 import rank_pb2, rank_pb2_grpc, topology_pb2, topology_pb2_grpc

SERVICE = "thunderline.v1.TopologyService"
ASK, WATCH = topology_pb2.GetTopologyRequest(), topology_pb2.WatchTopologyRequest()
DEADLINE_S = 20.0

# What a handler does before it would answer; it gets gRPC's context.
Behaviour = Callable[[Any], Awaitable[None]]


def raising(error: Exception) -> Behaviour:
    async def behave(_: Any) -> None:
        raise error

    return behave


async def nothing(_: Any) -> None:
    """The handler answers at once."""


class LittleService(topology_pb2_grpc.TopologyServiceServicer, rank_pb2_grpc.RankServiceServicer):
    """One RPC of each kind that the contracts have. `between` comes after a stream's first message."""

    def __init__(self, behave: Behaviour = nothing, between: Behaviour = nothing) -> None:
        self._behave = behave
        self._between = between

    async def GetTopology(
        self, request: topology_pb2.GetTopologyRequest, context: Any
    ) -> topology_pb2.GetTopologyResponse:
        await self._behave(context)
        return topology_pb2.GetTopologyResponse(topology=topology_pb2.Topology(node_id="node"))

    async def WatchTopology(
        self, request: topology_pb2.WatchTopologyRequest, context: Any
    ) -> AsyncIterator[topology_pb2.WatchTopologyResponse]:
        await self._behave(context)
        yield topology_pb2.WatchTopologyResponse(topology=topology_pb2.Topology(node_id="node"))
        await self._between(context)
        yield topology_pb2.WatchTopologyResponse(topology=topology_pb2.Topology(node_id="node"))

    async def WatchObservations(
        self, request_iterator: AsyncIterator[topology_pb2.WatchObservationsRequest], context: Any
    ) -> AsyncIterator[topology_pb2.WatchObservationsResponse]:
        yield topology_pb2.WatchObservationsResponse()

    async def MeasureLink(
        self, request: topology_pb2.MeasureLinkRequest, context: Any
    ) -> topology_pb2.MeasureLinkResponse:
        return topology_pb2.MeasureLinkResponse()

    async def PrepareMeasurement(
        self, request: topology_pb2.PrepareMeasurementRequest, context: Any
    ) -> topology_pb2.PrepareMeasurementResponse:
        return topology_pb2.PrepareMeasurementResponse()

    async def Attach(
        self, requests: AsyncIterator[rank_pb2.AttachRequest], context: Any
    ) -> AsyncIterator[rank_pb2.AttachResponse]:
        async for _ in requests:
            yield rank_pb2.AttachResponse()
            await self._between(context)

    def register(self, server: grpc.aio.Server) -> None:
        topology_pb2_grpc.add_TopologyServiceServicer_to_server(self, server)
        rank_pb2_grpc.add_RankServiceServicer_to_server(self, server)


@dataclass
class Little:
    server: Server
    channel: grpc.aio.Channel
    address: str

    @property
    def topology(self) -> "topology_pb2_grpc.TopologyServiceAsyncStub":
        return topology_pb2_grpc.TopologyServiceStub(self.channel)

    @property
    def rank(self) -> "rank_pb2_grpc.RankServiceAsyncStub":
        return rank_pb2_grpc.RankServiceStub(self.channel)

    async def raw(self, method: str, request: bytes) -> None:
        """A call without a stub of ours. Raises grpc.aio.AioRpcError."""
        call: Any = self.channel.unary_unary(method)
        await call(request, timeout=DEADLINE_S)

    async def ask(self) -> str:
        return (await self.topology.GetTopology(ASK, timeout=DEADLINE_S)).topology.node_id


@contextlib.asynccontextmanager
async def running(address: str, behave: Behaviour = nothing, between: Behaviour = nothing) -> AsyncIterator[Little]:
    service = LittleService(behave, between)
    async with serving(address, [SERVICE], service.register) as server, dial(address) as channel:
        yield Little(server, channel, address)
