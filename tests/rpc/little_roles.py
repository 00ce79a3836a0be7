"""Real servers that say what a test has them say: topology, discovery, and something that is watched."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
import psutil
from google.protobuf.message import Message

from thunderline.cluster import NodeId
from thunderline.process.changes import Changes, watch
from thunderline.process.trust import Wallet
from thunderline.rpc.server import serving
from thunderline.v1 import discovery_pb2, topology_pb2

TOPOLOGY, DISCOVERY = "thunderline.v1.TopologyService", "thunderline.v1.DiscoveryService"
SOON_S = 15.0
unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


async def until(what: str, look: Callable[[], object], timeout_s: float = SOON_S) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not look():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what}") from None


def connected(target: str) -> int:
    """Connections of this process to "host:port", as the operating system sees them."""
    host, _, port = target.rpartition(":")
    found = psutil.Process(os.getpid()).net_connections("tcp")
    there = [(one.raddr.ip, one.raddr.port) for one in found if one.status == psutil.CONN_ESTABLISHED]
    # gRPC's sockets are of IPv6, whomever they reach.
    return sum((ip.removeprefix("::ffff:"), its_port) == (host, int(port)) for ip, its_port in there)


class LittleTopology:
    """Says what `tell` was given last. `seen` is who watches, by the address at which they came in."""

    def __init__(self) -> None:
        self.topology = topology_pb2.Topology(node_id="own", complete=True)
        self.changes = Changes()
        self.seen: list[str] = []
        # A watch says nothing until this is set.
        self.speaks = asyncio.Event()
        self.speaks.set()

    def tell(self, topology: topology_pb2.Topology) -> None:
        self.topology = topology
        self.changes.notify()

    def tell_best(self, best: Mapping[str, str], *incomplete: str) -> None:
        """By peer, the address of its chosen link."""
        links = [
            topology_pb2.Link(from_node_id="own", to_node_id=to, peer_address=address, chosen=True)
            for to, address in best.items()
        ]
        self.tell(
            topology_pb2.Topology(
                node_id="own", links=links, complete=not incomplete, incomplete_node_ids=list(incomplete)
            )
        )

    def count(self, number: int) -> None:
        self.tell(topology_pb2.Topology(node_id="own", version=topology_pb2.GraphVersion(number=number)))

    async def _get(self, _: topology_pb2.GetTopologyRequest, __: Any) -> topology_pb2.GetTopologyResponse:
        return topology_pb2.GetTopologyResponse(topology=self.topology)

    async def _watch(
        self, _: topology_pb2.WatchTopologyRequest, context: Any
    ) -> AsyncIterator[topology_pb2.WatchTopologyResponse]:
        # Asked for once: of a call that has ended gRPC would crash over it.
        peer = context.peer()
        self.seen.append(peer)
        try:
            await self.speaks.wait()
            async for topology in watch(self.changes, lambda: self.topology, 0.01):
                yield topology_pb2.WatchTopologyResponse(topology=topology)
        finally:
            self.seen.remove(peer)

    def register(self, server: grpc.aio.Server) -> None:
        pb = topology_pb2
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetTopology": unary(self._get, pb.GetTopologyRequest.FromString, _bytes),
            "WatchTopology": stream(self._watch, pb.WatchTopologyRequest.FromString, _bytes),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(TOPOLOGY, handlers),))

    @contextlib.asynccontextmanager
    async def at(self, address: str, wallet: Wallet | None = None) -> AsyncIterator[None]:
        """May be served at several addresses at the same time."""
        async with serving(address, [TOPOLOGY], self.register, wallet):
            yield


class LittleDiscovery:
    def __init__(self, roster: discovery_pb2.Roster) -> None:
        self.roster = roster
        self.changes = Changes()

    def tell(self, roster: discovery_pb2.Roster) -> None:
        self.roster = roster
        self.changes.notify()

    async def _get(self, _: discovery_pb2.GetRosterRequest, __: Any) -> discovery_pb2.GetRosterResponse:
        return discovery_pb2.GetRosterResponse(roster=self.roster)

    async def _watch(
        self, _: discovery_pb2.WatchRosterRequest, __: Any
    ) -> AsyncIterator[discovery_pb2.WatchRosterResponse]:
        async for roster in watch(self.changes, lambda: self.roster, 0.01):
            yield discovery_pb2.WatchRosterResponse(roster=roster)

    def register(self, server: grpc.aio.Server) -> None:
        pb = discovery_pb2
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetRoster": unary(self._get, pb.GetRosterRequest.FromString, _bytes),
            "WatchRoster": stream(self._watch, pb.WatchRosterRequest.FromString, _bytes),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(DISCOVERY, handlers),))

    @contextlib.asynccontextmanager
    async def at(self, address: str, wallet: Wallet | None = None) -> AsyncIterator[None]:
        async with serving(address, [DISCOVERY], self.register, wallet):
            yield


class Told:
    """Best addresses, by a test's word instead of topology's."""

    def __init__(self) -> None:
        self.best: dict[NodeId, str] = {}
        self.changes = Changes()

    def tell(self, best: dict[NodeId, str]) -> None:
        self.best = best
        self.changes.notify()


@contextlib.asynccontextmanager
async def run(*works: Any) -> AsyncIterator[None]:
    """Coroutines for the time of the block; a bug in one of them ends the test."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work) for work in works]
        try:
            yield
        finally:
            for one in running:
                one.cancel()
