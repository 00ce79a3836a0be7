"""Discoveries on loopback, wired as the role's __main__ does it, each with a card that a test makes up."""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc

from thunderline.client import DiscoveryClient
from thunderline.cluster import NodeId
from thunderline.cluster.members import MemberState
from thunderline.discovery import wire
from thunderline.discovery.exchanging import Exchanging
from thunderline.discovery.member_life import Waits
from thunderline.discovery.membership import Membership
from thunderline.discovery.service import DiscoveryService
from thunderline.discovery.values import Card
from thunderline.process.trust import Wallet
from thunderline.rpc.server import serving
from thunderline.v1 import cluster_pb2, discovery_pb2_grpc

SERVICE = "thunderline.v1.DiscoveryService"
# Half of the defaults.
WAITS = Waits(heartbeat_s=0.5, suspect_s=1.0, dead_s=2.0)
SOON_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_id() -> NodeId:
    return NodeId(str(uuid.uuid4()))


def little_card(
    port: int,
    node_id: str = "",
    incarnation: int = 1,
    cluster: str = "ours",
    hostname: str = "ada",
    addresses: Sequence[str] = ("127.0.0.1",),
    versions: Mapping[str, str] = {},
) -> cluster_pb2.NodeCard:
    """One that every bound allows."""
    return cluster_pb2.NodeCard(
        node_id=node_id or new_id(),
        incarnation=incarnation,
        start_id=uuid.uuid4().hex,
        hostname=hostname,
        cluster_name=cluster,
        versions=[cluster_pb2.NamedValue(name=name, value=value) for name, value in versions.items()],
        addresses=addresses,
        endpoints=[cluster_pb2.RoleEndpoint(role="discovery", host="127.0.0.1", port=port)],
    )


@dataclass
class LittleNode:
    members: Membership
    exchanging: Exchanging
    client: DiscoveryClient
    target: str

    @property
    def node_id(self) -> NodeId:
        return self.members.own.node_id

    @property
    def states(self) -> dict[str, str]:
        return {node: member.state.name for node, member in self.members.roster.members.items()}

    def state(self, other: "LittleNode | NodeId") -> MemberState | None:
        node = other if isinstance(other, str) else other.node_id
        member = self.members.roster.members.get(node)
        return member.state if member is not None else None

    def sees(self, *others: "LittleNode") -> bool:
        """These are ALIVE, and nobody else is known."""
        return self.states == {one.node_id: "ALIVE" for one in (self, *others)}


@contextlib.asynccontextmanager
async def discovering(
    card: cluster_pb2.NodeCard,
    seeds: Iterable[LittleNode | str] = (),
    remembered: Iterable[Card] = (),
    wallet: Wallet | None = None,
    best: Callable[[], Mapping[NodeId, str]] = dict,
    scheduler: str = "",
) -> AsyncIterator[LittleNode]:
    """Leaving the block is to it as a kill: nothing is said to anybody."""
    targets = tuple(one if isinstance(one, str) else one.target for one in seeds)
    members = Membership(wire.to_card(card), remembered, targets, WAITS, scheduler=NodeId(scheduler or card.node_id))
    exchanging, service = Exchanging(members, wallet, best), DiscoveryService(members, wallet)
    port = card.endpoints[0].port

    def register(server: grpc.aio.Server) -> None:
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(service, server)

    async with contextlib.AsyncExitStack() as stack:
        for address in card.addresses:
            server = await stack.enter_async_context(serving(f"{address}:{port}", [SERVICE], register, wallet))
            await server.serving()
        target = f"{card.addresses[0]}:{port}"
        client = await stack.enter_async_context(DiscoveryClient(target, wallet))
        running = asyncio.create_task(exchanging.run())
        try:
            yield LittleNode(members, exchanging, client, target)
        finally:
            # A bug would have ended the role.
            assert not running.done(), running
            running.cancel()
            await asyncio.wait({running})
            members.changes.stop()


async def until(what: str, look: Callable[[], bool], timeout_s: float = SOON_S) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not look():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what}") from None
