"""Real topologies in one process, on loopback, each with an echo; their discoveries are little ones that tests fill."""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thunderline.client import TopologyClient
from thunderline.cluster import NodeId
from thunderline.cluster.errors import NotOffered
from thunderline.process.changes import Changes, watch
from thunderline.process.home import node_id, write_atomically
from thunderline.process.settings import Settings, read
from thunderline.rpc.server import serving
from thunderline.topology.__main__ import Role, running
from thunderline.v1 import cluster_pb2, discovery_pb2, discovery_pb2_grpc, topology_pb2

WAIT_S = 20.0
HERE = "127.0.0.1"
SERVICE_NAME = "thunderline.v1.TopologyService"
ALIVE, DEAD = discovery_pb2.MEMBER_STATE_ALIVE, discovery_pb2.MEMBER_STATE_DEAD
# A tenth of the usual ones.
FAST = {
    "probe_period_s": "0.2",
    "probe_timeout_s": "0.3",
    "heartbeat_s": "0.1",
    "suspect_s": "0.2",
    "dead_s": "0.4",
    "drain_s": "2",
}
# Sorted: the first dials the others.
IDS = [NodeId(str(uuid.UUID(int=number))) for number in range(1, 9)]


def free_ports(count: int) -> list[int]:
    """Below the ports that the kernel gives to callers; each has a free one 100 above it for metrics."""
    found: list[int] = []
    start = 20_000 + (uuid.uuid4().int % 8_000)
    for port in range(start, 32_000):
        if len(found) == count:
            return found
        with contextlib.ExitStack() as stack:
            try:
                for one in (port, port + 100):
                    probe = stack.enter_context(socket.socket())
                    probe.bind((HERE, one))
            except OSError:
                continue
            if port - 100 not in found:
                found.append(port)
    raise AssertionError("no free ports")


@dataclass
class Node:
    """A node of a test: what its card says, and the ports that it really has."""

    node: NodeId
    home: Path
    discovery: int
    topology: int
    echo: int

    def card(self, addresses: Iterable[str] = (HERE,), echo: int = 0, topology: int = 0) -> cluster_pb2.NodeCard:
        ports = {"echo": echo or self.echo, "topology": topology or self.topology, "discovery": self.discovery}
        loopback = cluster_pb2.NetworkInterface(name="lo", medium=cluster_pb2.MEDIUM_LOOPBACK, addresses=[HERE])
        return cluster_pb2.NodeCard(
            node_id=self.node,
            incarnation=1,
            start_id="one",
            hostname=f"host-{self.node[-1]}",
            addresses=addresses,
            interfaces=[loopback],
            endpoints=[cluster_pb2.RoleEndpoint(role=role, port=port) for role, port in ports.items()],
        )

    def settings(self) -> Settings:
        names = {"DISCOVERY_PORT": self.discovery, "TOPOLOGY_PORT": self.topology, "TOPOLOGY_ECHO_PORT": self.echo}
        environ = {f"THUNDERLINE_{name}": str(port) for name, port in names.items()}
        environ |= {f"THUNDERLINE_LIMITS_{name.upper()}": text for name, text in FAST.items()}
        return read(environ=environ, home=self.home)


def nodes(folder: Path, count: int) -> list[Node]:
    """Their ids are in order."""
    ports = free_ports(3 * count)
    made = []
    for index in range(count):
        home = folder / f"node-{index}"
        home.mkdir(parents=True)
        write_atomically(home / "node.json", f'{{"node_id": "{IDS[index]}"}}'.encode())
        assert node_id(home) == IDS[index]
        made.append(Node(IDS[index], home, *ports[3 * index : 3 * index + 3]))
    return made


def roster(*cards: cluster_pb2.NodeCard, complete: bool = True, dead: Iterable[str] = ()) -> discovery_pb2.Roster:
    members = [discovery_pb2.Member(card=one, state=DEAD if one.node_id in dead else ALIVE) for one in cards]
    return discovery_pb2.Roster(members=members, complete=complete)


class LittleDiscovery(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Tells the roster that it is given."""

    def __init__(self, told: discovery_pb2.Roster) -> None:
        self.told = told
        self.changes = Changes()

    def tell(self, told: discovery_pb2.Roster) -> None:
        self.told = told
        self.changes.notify()

    async def GetRoster(self, request: discovery_pb2.GetRosterRequest, context: Any) -> discovery_pb2.GetRosterResponse:
        return discovery_pb2.GetRosterResponse(roster=self.told)

    async def WatchRoster(
        self, request: discovery_pb2.WatchRosterRequest, context: Any
    ) -> AsyncIterator[discovery_pb2.WatchRosterResponse]:
        async for told in watch(self.changes, lambda: self.told, 0.01):
            yield discovery_pb2.WatchRosterResponse(roster=told)

    async def ExchangeCard(
        self, request: discovery_pb2.ExchangeCardRequest, context: Any
    ) -> discovery_pb2.ExchangeCardResponse:
        raise NotOffered("it has no peers")

    async def LeaveCluster(
        self, request: discovery_pb2.LeaveClusterRequest, context: Any
    ) -> discovery_pb2.LeaveClusterResponse:
        raise NotOffered("it has no peers")

    @contextlib.asynccontextmanager
    async def served(self, port: int) -> AsyncIterator["LittleDiscovery"]:
        def register(server: Any) -> None:
            discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(self, server)

        async with serving(f"{HERE}:{port}", ["thunderline.v1.DiscoveryService"], register):
            try:
                yield self
            finally:
                self.changes.stop()
                self.changes = Changes()


@dataclass
class Living:
    """A node whose topology runs, with a client of it."""

    node: Node
    role: Role
    discovery: LittleDiscovery
    client: TopologyClient
    seen: list[topology_pb2.Topology] = field(default_factory=list)

    async def until(self, what: str, holds: Callable[[topology_pb2.Topology], Any]) -> topology_pb2.Topology:
        """What it tells, as soon as that holds."""
        try:
            async with asyncio.timeout(WAIT_S):
                async for told in self.client.watch_topology():
                    self.seen.append(told)
                    if holds(told):
                        return told
        except TimeoutError:
            pass
        last = self.seen[-1] if self.seen else "nothing"
        raise AssertionError(f"not within {WAIT_S} s: {what}; node {self.node.node} tells:\n{last}")


@contextlib.asynccontextmanager
async def living(node: Node, told: discovery_pb2.Roster) -> AsyncIterator[Living]:
    async with (
        LittleDiscovery(told).served(node.discovery) as discovery,
        running(node.settings()) as role,
        TopologyClient(f"{HERE}:{node.topology}") as client,
    ):
        yield Living(node, role, discovery, client)


@contextlib.asynccontextmanager
async def together(*made: Node) -> AsyncIterator[list[Living]]:
    """All of them, each knowing all."""
    told = roster(*(one.card() for one in made))
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(living(one, told)) for one in made]


def pairs(told: topology_pb2.Topology) -> set[tuple[str, str]]:
    """Directions that have a link which answers."""
    return {(link.from_node_id, link.to_node_id) for link in told.links if link.state != topology_pb2.LINK_STATE_DOWN}


async def until(what: str, holds: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S} s: {what}") from None
