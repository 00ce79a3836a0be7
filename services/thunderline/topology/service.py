"""The gRPC shell of topology: the graph as this node knows it, reports both ways, measurements."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from thunderline.cluster.graph import Version
from thunderline.process.changes import Changes, watch
from thunderline.topology.exchange import Exchange
from thunderline.topology.measuring import Measuring
from thunderline.topology.permits import Permits
from thunderline.v1 import topology_pb2, topology_pb2_grpc

WATCH_PACE_S = 0.1


class TopologyService(topology_pb2_grpc.TopologyServiceServicer):
    """`now` makes the topology as it is, `chosen` what connections need of it; `version` is that of what `now` would
    make."""

    def __init__(
        self,
        changes: Changes,
        now: Callable[[], topology_pb2.Topology],
        chosen: Callable[[], topology_pb2.Topology],
        version: Callable[[], Version],
        exchange: Exchange,
        measuring: Measuring,
        permits: Permits,
    ) -> None:
        self._changes = changes
        self._now = now
        self._chosen = chosen
        self._version = version
        self._exchange = exchange
        self._measuring = measuring
        self._permits = permits
        self._told: tuple[Version, topology_pb2.Topology] | None = None

    async def GetTopology(
        self, request: topology_pb2.GetTopologyRequest, context: Any
    ) -> topology_pb2.GetTopologyResponse:
        return topology_pb2.GetTopologyResponse(topology=self._now())

    async def WatchTopology(
        self, request: topology_pb2.WatchTopologyRequest, context: Any
    ) -> AsyncIterator[topology_pb2.WatchTopologyResponse]:
        told = None
        async for topology in watch(
            self._changes, self._chosen if request.chosen_only else self._of_version, WATCH_PACE_S
        ):
            if not request.chosen_only or topology != told:
                told = topology
                yield topology_pb2.WatchTopologyResponse(topology=topology)

    def _of_version(self) -> topology_pb2.Topology:
        """Made once for all who watch."""
        version = self._version()
        if self._told is None or self._told[0] != version:
            self._told = version, self._now()
        return self._told[1]

    async def WatchObservations(
        self, request_iterator: AsyncIterator[topology_pb2.WatchObservationsRequest], context: Any
    ) -> AsyncIterator[topology_pb2.WatchObservationsResponse]:
        async with aclosing(self._exchange.answered(request_iterator, context)) as responses:
            async for response in responses:
                yield response

    async def MeasureLink(
        self, request: topology_pb2.MeasureLinkRequest, context: Any
    ) -> topology_pb2.MeasureLinkResponse:
        return await self._measuring.measure(request)

    async def PrepareMeasurement(
        self, request: topology_pb2.PrepareMeasurementRequest, context: Any
    ) -> topology_pb2.PrepareMeasurementResponse:
        return topology_pb2.PrepareMeasurementResponse(permit=self._permits.give(time.monotonic()))
