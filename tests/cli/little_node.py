"""A node's roles on loopback, as little as `doctor` asks of them: health, a roster, a graph, and HTTP."""

import asyncio
import contextlib
import http.server
import json
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from thunderline.process.home import node_id
from thunderline.process.trust import Wallet
from thunderline.rpc.server import Server, serving
from thunderline.v1 import cluster_pb2, discovery_pb2, discovery_pb2_grpc, topology_pb2, topology_pb2_grpc

GRPC_ROLES = ("discovery", "topology", "scheduler", "runner")


class Gateway(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status":"alive"}')

    def log_message(self, *_: object) -> None:
        pass


class Service(discovery_pb2_grpc.DiscoveryServiceServicer, topology_pb2_grpc.TopologyServiceServicer):
    def __init__(self, node: "LittleNode") -> None:
        self._node = node

    async def GetRoster(self, request: Any, context: Any) -> discovery_pb2.GetRosterResponse:
        if self._node.is_mute:
            await asyncio.sleep(60)
        return discovery_pb2.GetRosterResponse(roster=self._node.roster)

    async def GetTopology(self, request: Any, context: Any) -> topology_pb2.GetTopologyResponse:
        return topology_pb2.GetTopologyResponse(topology=self._node.topology)

    def register(self, server: grpc.aio.Server) -> None:
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(self, server)
        topology_pb2_grpc.add_TopologyServiceServicer_to_server(self, server)


@dataclass
class LittleNode:
    """Its ports stand in the home's config.toml. `settings`: what else does, in sections of their own."""

    home: Path
    settings: str = ""
    seeds: tuple[str, ...] = ()
    is_mute: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)
    roster: discovery_pb2.Roster = field(default_factory=discovery_pb2.Roster)
    topology: topology_pb2.Topology = field(default_factory=topology_pb2.Topology)

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        self.node_id = node_id(self.home)
        self.ports = dict(zip((*GRPC_ROLES, "gateway", "echo"), _free_ports(6), strict=True))
        sections = "".join(f"[{role}]\nport = {self.ports[role]}\n" for role in (*GRPC_ROLES, "gateway"))
        seeds = f"[discovery]\nseeds = {json.dumps(self.seeds)}\n"
        (self.home / "config.toml").write_text(sections.replace("[discovery]\n", seeds) + self.settings)
        card = cluster_pb2.NodeCard(node_id=self.node_id, hostname="ada", addresses=["127.0.0.1"])
        card.endpoints.add(role="discovery", port=self.ports["discovery"])
        me = discovery_pb2.Member(card=card, state=discovery_pb2.MEMBER_STATE_ALIVE)
        self.roster = discovery_pb2.Roster(node_id=self.node_id, members=[me], complete=True)
        self.topology = topology_pb2.Topology(node_id=self.node_id, complete=True)

    def add(
        self, hostname: str, state: "discovery_pb2.MemberState.ValueType" = discovery_pb2.MEMBER_STATE_ALIVE
    ) -> discovery_pb2.Member:
        """Another member in its roster."""
        card = cluster_pb2.NodeCard(node_id=str(uuid.uuid4()), hostname=hostname)
        self.roster.members.append(discovery_pb2.Member(card=card, state=state))
        return self.roster.members[-1]

    @contextlib.asynccontextmanager
    async def running(self, without: tuple[str, ...] = (), wallet: Wallet | None = None) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            # What doctor does not call is left out.
            service = Service(self)  # type: ignore[abstract]
            for role in GRPC_ROLES:
                if role not in without:
                    address = f"127.0.0.1:{self.ports[role]}"
                    server = await stack.enter_async_context(serving(address, [], service.register, wallet))
                    await server.serving()
                    self.servers[role] = server
            if "gateway" not in without:
                stack.enter_context(_http(self.ports["gateway"]))
            yield


@contextlib.contextmanager
def _http(port: int) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(5)


def _free_ports(count: int) -> list[int]:
    """Such that the port 100 above, for metrics, is nobody's here either."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            if port < 65_000 and all(abs(port - other) != 100 for other in found):
                found.append(port)
        return found
