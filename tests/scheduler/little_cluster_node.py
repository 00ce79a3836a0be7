"""Nodes of a cluster in one process: the scheduler node's doors as its process opens them, and members that joined."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scheduler.little_scheduler import free_address
from thunderline.cli import founding, joining
from thunderline.cluster import NodeId
from thunderline.cluster.join_tokens import JoinToken
from thunderline.process import settings
from thunderline.process.authority import announced
from thunderline.process.home import node_id
from thunderline.process.settings import Settings
from thunderline.process.trust import Wallet
from thunderline.rpc.server import serving
from thunderline.scheduler.trust import SERVICE, Trust
from thunderline.v1 import cluster_pb2, discovery_pb2

ALIVE, LEFT = discovery_pb2.MEMBER_STATE_ALIVE, discovery_pb2.MEMBER_STATE_LEFT
WAIT_S = 15.0


async def until(what: str, look: Callable[[], object], timeout_s: float = WAIT_S) -> None:
    end = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@dataclass
class Node:
    """`ahead_s`: its clock is wrong by so much."""

    home: Path
    ports: dict[str, int] = field(default_factory=dict)
    ahead_s: float = 0.0
    said: list[str] = field(default_factory=list)

    def read(self) -> Settings:
        scheduler = {f"{name}": port for name, port in self.ports.items()}
        return settings.read({}, flags={"node": {"bind": "127.0.0.1"}, "scheduler": scheduler}, home=self.home)

    @property
    def id(self) -> NodeId:
        return node_id(self.home)

    @property
    def wallet(self) -> Wallet:
        return Wallet(self.home, self.read().cluster.name, lambda: time.time() + self.ahead_s)

    async def join(self, token: str, yes: bool = False) -> joining.Joined:
        return await joining.join(self.read(), token, yes, self.said.append)

    def card(self) -> cluster_pb2.NodeCard:
        """As its discovery would show it."""
        trust = announced(self.home, self.wallet)
        endpoints = [cluster_pb2.RoleEndpoint(role="discovery", host="127.0.0.1", port=7401)]
        if self.ports:
            endpoints.append(cluster_pb2.RoleEndpoint(role="scheduler", host="127.0.0.1", port=self.ports["port"]))
        return cluster_pb2.NodeCard(
            node_id=self.id,
            hostname=self.home.name,
            addresses=["127.0.0.1"],
            endpoints=endpoints,
            trusted_authorities=trust.trusted,
            certificate_authority=trust.signed_by,
            signing_authority=trust.signing,
        )


def founded(home: Path, name: str = "home") -> Node:
    """A scheduler node: `init` has been run there."""
    found = Node(home, {key: int(free_address().rpartition(":")[2]) for key in ("port", "enrollment_port")})
    founding.init(found.read, name, "127.0.0.1", time.time())
    # Its token is not used here.
    for path in (home / "cluster" / "offers").glob("*.json"):
        path.unlink()
    return found


def token(node: Node) -> JoinToken:
    return founding.init(node.read, None, "127.0.0.1", time.time()).token


@dataclass
class Doors:
    """The scheduler node's, open. `members` are in its roster, beside itself."""

    node: Node
    wallet: Wallet
    members: list[Node] = field(default_factory=list)
    complete: bool = True
    # Of the members, those who have left.
    left: set[NodeId] = field(default_factory=set)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.node.ports['port']}"

    @property
    def enrolment(self) -> str:
        return f"127.0.0.1:{self.node.ports['enrollment_port']}"

    def roster(self) -> discovery_pb2.Roster:
        members = [
            discovery_pb2.Member(card=one.card(), state=LEFT if one.id in self.left else ALIVE)
            for one in (self.node, *self.members)
        ]
        return discovery_pb2.Roster(members=members, complete=self.complete, node_id=self.node.id)


@contextlib.asynccontextmanager
async def doors(node: Node, dead_s: float = 0.5) -> AsyncIterator[Doors]:
    found = node.read()
    wallet = node.wallet
    opened = Doors(node, wallet)
    flags: dict[str, dict[str, Any]] = {
        "node": {"bind": "127.0.0.1"},
        "scheduler": node.ports,
        "limits": {"heartbeat_s": dead_s / 4, "suspect_s": dead_s / 2, "dead_s": dead_s},
    }
    trust = Trust(settings.read({}, flags=flags, home=found.home), node.id, wallet, opened.roster)
    async with serving(opened.target, [SERVICE], trust.register, wallet) as server:
        await server.serving()
        running = asyncio.create_task(trust.run())
        try:
            yield opened
        finally:
            running.cancel()
            await asyncio.wait({running})
            if not running.cancelled() and running.exception() is not None:
                raise running.exception() or AssertionError
