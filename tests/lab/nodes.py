"""Nodes on the hosts of a lab: real processes of thunderline, with a home and a certificate of their own."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from installation import until
from lab import namespaces, verbs
from lab.doors import Door
from lab.network import Host
from lab.seen import Topology
from lab.watching import Watching
from rpc.little_cluster import LittleCluster
from thunderline.cluster import NodeId
from thunderline.cluster.callers import Caller
from thunderline.process.authority import Authorities, keep_authorities
from thunderline.process.home import node_id
from thunderline.process.trust import Identity, keep, keep_joined
from thunderline.rpc import credentials
from thunderline.rpc.channel import TLS_CHANNEL_OPTIONS
from thunderline.v1 import discovery_pb2, discovery_pb2_grpc, topology_pb2, topology_pb2_grpc

PROGRAM = Path(sys.executable).parent / "thunderline"
PORTS = {"discovery": 7401, "topology": 7402, "scheduler": 7403, "runner": 7404}
ECHO_PORT = 7412
# What is started when nothing else is asked for.
ROLES = ("discovery", "topology")
# A veth pair may be anything: only config tells. A tun device is a VPN by itself.
MEDIA = ("cable0=THUNDERBOLT", "lan0=ETHERNET", "lan1=ETHERNET", "wifi0=WIFI")
# Imports of four roles at once on two busy cores.
SERVING_S = 30.0
LOOK_EVERY_S = 0.02
GONE_S = 10.0
CALL_S = 5.0
COMMAND_S = 60.0
LISTENING = "0A"


@dataclass
class Node:
    """`environment`: settings, as variables. Every role logs to logs/ROLE.txt of its home."""

    host: Host
    home: Path
    node_id: NodeId
    identity: Identity
    environment: dict[str, str] = field(default_factory=dict)
    # Living ones, by role; or "up".
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _doors: dict[str, Door] = field(default_factory=dict)
    _channels: dict[str, grpc.Channel] = field(default_factory=dict)
    _watching: Watching | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def variables(self) -> dict[str, str]:
        return {"THUNDERLINE_HOME": str(self.home), **self.environment}

    def start(self, *roles: str) -> None:
        """`up` is all roles of this node, under its supervisor."""
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        for role in roles or ROLES:
            for served in PORTS if role == "up" else (role,):
                self._forget_channel(served)
            command = (str(PROGRAM), role)
            self.processes[role] = self.host.start(*command, environment=self.variables, log=logs / f"{role}.txt")

    def kill(self, *roles: str) -> None:
        """With -9, one after the other."""
        for role in roles or tuple(self.processes):
            verbs.kill(self.processes.pop(role))

    def run(self, *words: str, timeout_s: float = COMMAND_S) -> "subprocess.CompletedProcess[str]":
        """A command of the command line, on this host, in a wide terminal."""
        environment = {"COLUMNS": "300", **self.variables}
        return self.host.run(str(PROGRAM), *words, environment=environment, timeout_s=timeout_s)

    def log(self, role: str) -> str:
        """All that the role has said; what it wrote before its last start comes first."""
        path = self.home / "logs" / f"{role}.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def channel(self, role: str) -> grpc.Channel:
        """The same for all callers, until the role is started again."""
        if role not in self._channels:
            self._channels[role] = self._dial(role)
        return self._channels[role]

    def _dial(self, role: str) -> grpc.Channel:
        # A watching thread dials too.
        with self._lock:
            if role not in self._doors:
                self._doors[role] = Door(self.host.namespace, PORTS[role])
        options = [*TLS_CHANNEL_OPTIONS, *credentials.expects(self.node_id)]
        target, mine = self._doors[role].target, credentials.for_channel(self.identity)
        return grpc.secure_channel(target, mine, options=options)

    def _forget_channel(self, role: str) -> None:
        """A new one dials at once, where an old one may be waiting to dial again."""
        if channel := self._channels.pop(role, None):
            channel.close()

    def serves(self, role: str) -> bool:
        health: Any = health_pb2_grpc.HealthStub(self.channel(role))
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def listens(self, role: str) -> bool:
        """Seen in the system's table: nobody is dialled, and nothing is waited for."""
        wanted = f":{PORTS[role]:04X}"
        name = self.host.namespace
        pid = next((one.pid for one in tuple(self.processes.values()) if namespaces.is_in(name, one.pid)), 0)
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    words = line.split()
                    if words[1].endswith(wanted) and words[3] == LISTENING:
                        return True
        return False

    def until_serving(self, *roles: str) -> float:
        """The moment (monotonic) at which the last of these says so."""
        for role in roles or ROLES:
            self._until(f"{role} of {self.host.name} listens", partial(self.listens, role))
            self._until(f"{role} of {self.host.name} is SERVING", partial(self.serves, role))
        return time.monotonic()

    def _until(self, what: str, look: Callable[[], bool]) -> None:
        until(what, lambda: look() or self.ended(), SERVING_S, LOOK_EVERY_S)
        assert not self.ended(), self.ended()

    def ended(self) -> str:
        """Which process has ended by itself, and what it said last; "" for none."""
        for role, process in self.processes.items():
            if process.poll() is not None:
                return f"{role} of {self.host.name} ended with {process.returncode}:\n{self.log(role)[-4000:]}"
        return ""

    def roster(self) -> discovery_pb2.Roster:
        stub: Any = discovery_pb2_grpc.DiscoveryServiceStub(self.channel("discovery"))
        answer: discovery_pb2.GetRosterResponse = stub.GetRoster(discovery_pb2.GetRosterRequest(), timeout=CALL_S)
        return answer.roster

    def alive(self) -> set[str]:
        """Node ids of its roster, itself among them."""
        members = self.roster().members
        return {one.card.node_id for one in members if one.state == discovery_pb2.MEMBER_STATE_ALIVE}

    def topology(self) -> Topology:
        stub: Any = topology_pb2_grpc.TopologyServiceStub(self.channel("topology"))
        answer: topology_pb2.GetTopologyResponse = stub.GetTopology(topology_pb2.GetTopologyRequest(), timeout=CALL_S)
        return answer.topology

    @property
    def watching(self) -> Watching:
        """From the first use on."""
        if self._watching is None:
            self._watching = Watching(partial(self.listens, "topology"), partial(self._dial, "topology"))
        return self._watching

    def close(self) -> None:
        if self._watching is not None:
            self._watching.close()
        for role in tuple(self._channels):
            self._forget_channel(role)
        for door in self._doors.values():
            door.close()


class Cluster:
    """Nodes under one authority. The first that is made is the scheduler node. `roles`: what runs on each."""

    roles: Sequence[str] = ROLES

    def __init__(self, root: Path, name: str = "home", **settings: str) -> None:
        self._root, self.name, self._settings = root, name, settings
        self._little = LittleCluster(root, name)
        self.nodes: list[Node] = []

    def node(self, host: Host, seeds: Sequence[str] = (), mdns: bool = True) -> Node:
        home = self._root / host.name
        own = node_id(home)
        scheduler = self.nodes[0].node_id if self.nodes else own
        identity = self._little.identity(Caller.MEMBER if self.nodes else Caller.SCHEDULER, own)
        keep(home, identity)
        keep_joined(home, self.name, scheduler, seeds)
        if not self.nodes:
            keep_authorities(home, Authorities(self._little.authority))
        (home / "config.toml").write_text(
            f"[discovery]\nmdns = {json.dumps(mdns)}\n[topology]\nmedia = {json.dumps(MEDIA)}\n"
        )
        node = Node(host, home, own, identity, dict(self._settings))
        self.nodes.append(node)
        return node

    def start(self) -> float:
        """All of them; the moment at which the last is SERVING."""
        for node in self.nodes:
            node.start(*self.roles)
        return self.until_serving()

    def start_in_random_order(self, rng: random.Random, gap_s: float) -> float:
        """Process by process, at random intervals of at most `gap_s`."""
        order = [(node, role) for node in self.nodes for role in self.roles]
        rng.shuffle(order)
        for node, role in order:
            node.start(role)
            threading.Event().wait(rng.uniform(0, gap_s))
        return self.until_serving()

    def until_serving(self) -> float:
        return max(node.until_serving() for node in self.nodes)

    def crash(self, rng: random.Random) -> None:
        """Every process of every node, with -9, in random order; those too that a supervisor starts meanwhile."""
        end_s = time.monotonic() + GONE_S
        while order := [pid for node in self.nodes for pid in node.host.pids()]:
            assert time.monotonic() < end_s, f"processes {order} do not go"
            rng.shuffle(order)
            for pid in order:
                # A role ends with its supervisor.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()

    def _reap(self) -> None:
        for node in self.nodes:
            for role in [role for role, process in node.processes.items() if process.poll() is not None]:
                del node.processes[role]

    def check(self) -> None:
        """Nobody has ended by itself, and nobody has met a bug. Fails with what was said."""
        for node in self.nodes:
            assert not node.ended(), node.ended()
            for path in sorted((node.home / "logs").glob("*.txt")):
                bugs = [line for line in path.read_text(errors="replace").splitlines() if "Traceback" in line]
                assert not bugs, f"{path.name} of {node.host.name}:\n{bugs[0][:4000]}"

    def close(self) -> None:
        for node in self.nodes:
            node.close()


@contextlib.contextmanager
def clusters(root: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters, which are looked at and closed at the end, before their hosts are taken down."""
    made: list[Cluster] = []

    def make(name: str = "home", **settings: str) -> Cluster:
        # Two of one name are two clusters all the same.
        made.append(Cluster(root / str(len(made)), name, **settings))
        return made[-1]

    try:
        yield make
        for one in made:
            one.check()
    finally:
        for one in made:
            one.close()
