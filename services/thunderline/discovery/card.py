"""What this node says of itself."""

import json
import platform
import socket
from pathlib import Path

import psutil

from thunderline.process.entry import CannotStart
from thunderline.process.home import node_id, write_atomically
from thunderline.process.interfaces import Interface
from thunderline.process.settings import Settings
from thunderline.process.version import VERSION
from thunderline.v1 import cluster_pb2


def next_incarnation(home: Path) -> int:
    """Counts this start, on disk. Raises CannotStart when the count cannot be kept."""
    path = home / "discovery.json"
    try:
        count = int(json.loads(path.read_text())["incarnation"]) if path.exists() else 0
        write_atomically(path, json.dumps({"incarnation": count + 1}).encode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotStart(f"{path} cannot be used: {error}; remove it to count from one again") from None
    return count + 1


def card(settings: Settings, incarnation: int, interfaces: tuple[Interface, ...]) -> cluster_pb2.NodeCard:
    """Blocking, some milliseconds."""
    ports = {
        "discovery": settings.discovery.port,
        "topology": settings.topology.port,
        "scheduler": settings.scheduler.port,
        "runner": settings.runner.port,
    }
    return cluster_pb2.NodeCard(
        node_id=node_id(settings.home),
        incarnation=incarnation,
        hostname=socket.gethostname(),
        cluster_name=settings.cluster.name,
        version=VERSION,
        operating_system=f"{platform.system().lower()} {platform.release()}",
        chip=_chip(),
        memory_bytes=psutil.virtual_memory().total,
        interfaces=[to_proto(one) for one in interfaces],
        endpoints=[cluster_pb2.RoleEndpoint(role=role, host=settings.host, port=port) for role, port in ports.items()],
    )


def to_proto(one: Interface) -> cluster_pb2.NetworkInterface:
    return cluster_pb2.NetworkInterface(
        name=one.name,
        medium=one.medium.value,  # type: ignore[arg-type]
        addresses=one.addresses,
        is_up=one.is_up,
        mtu_bytes=one.mtu_bytes,
    )


def _chip() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.machine()
