"""Which address of each peer is the best, as this node's own topology says."""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import grpc

from thunderline.cluster import NodeId
from thunderline.process.changes import Changes
from thunderline.rpc import moves
from thunderline.rpc.following import follow
from thunderline.rpc.moving import Moving
from thunderline.v1 import topology_pb2, topology_pb2_grpc

if TYPE_CHECKING:
    from thunderline.process.trust import Wallet

REDIAL_S = 0.1

log = logging.getLogger(__name__)


class Ways:
    """`run` follows the topology role of our own node. While that is away, what it said last stays.

    A peer to which no link is known has no best address: those of its card are tried.
    """

    def __init__(
        self, topology: str, wallet: "Wallet | None" = None, node: NodeId | None = None, hears_all: bool = False
    ) -> None:
        """`topology` is "host:port" of our own, `node` ourselves. `hears_all`: also what does not say which is best."""
        self.best: dict[NodeId, str] = {}
        # What it has said last; `changes` is of `best` only.
        self.topology = topology_pb2.Topology()
        self._request = topology_pb2.WatchTopologyRequest(chosen_only=not hears_all)
        self.changes = Changes()
        self._own = Moving.at(topology, wallet, node)

    async def run(self) -> None:
        """Until cancelled."""
        stub = topology_pb2_grpc.TopologyServiceStub(self._own)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._own.run(), name="own topology")
            while True:
                try:
                    told = follow(self._own, lambda: stub.WatchTopology(self._request))
                    async with contextlib.aclosing(told):
                        async for response in told:
                            self._hear(response.topology)
                except grpc.aio.AioRpcError as error:
                    log.debug("topology cannot be heard", extra={"why": error.details()})
                await asyncio.sleep(REDIAL_S)

    def _hear(self, topology: topology_pb2.Topology) -> None:
        self.topology = topology
        found = moves.best(self.best, topology)
        if found != self.best:
            self.best = found
            self.changes.notify()
