"""What this node says of itself, read from its disk, its system and its settings. Blocking, some milliseconds."""

import functools
import json
import platform
import plistlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import MachineFacts
from thunderline.cluster.reachable import Face, addresses
from thunderline.discovery.differences import digest
from thunderline.discovery.values import Life
from thunderline.process.authority import Announced
from thunderline.process.entry import CannotStart
from thunderline.process.home import write_atomically
from thunderline.process.interfaces import Interface
from thunderline.process.settings import Settings
from thunderline.process.version import VERSION, full_version, version_of
from thunderline.rpc import machine_facts
from thunderline.v1 import cluster_pb2

# A machine of many containers has hundreds, most of them down.
INTERFACE_COUNT_MAX = 64
TEXT_MAX = 128
MAC_BUILD = Path("/System/Library/CoreServices/SystemVersion.plist")
LINUX_BUILD = Path("/etc/os-release")


def next_incarnation(home: Path) -> int:
    """Counts this start, on disk. Raises CannotStart when the count cannot be kept."""
    path = home / "discovery.json"
    try:
        count = int(json.loads(path.read_text())["incarnation"]) if path.exists() else 0
        write_atomically(path, json.dumps({"incarnation": count + 1}).encode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotStart(f"{path} cannot be used: {error}; remove it to count from one again") from None
    return count + 1


@dataclass(frozen=True, slots=True)
class Origin:
    """What of a card stays the same for one start."""

    node_id: NodeId
    life: Life
    settings: Settings


def card(
    origin: Origin, interfaces: Sequence[Interface], trust: Announced, machine: MachineFacts | None = None
) -> cluster_pb2.NodeCard:
    """Without a revision: whoever keeps it counts. `machine`: what this node's commands have told; None until then."""
    settings, node_id = origin.settings, origin.node_id
    known = machine_facts.to_proto(machine or MachineFacts())
    system = f"macOS {known.os_version} {known.os_build}".strip() if known.os_version else ""
    said = joining(settings, node_id)
    shown = sorted(interfaces, key=lambda one: not one.is_up)[:INTERFACE_COUNT_MAX]
    faces = [Face(one.medium, one.addresses, one.is_up) for one in interfaces]
    return cluster_pb2.NodeCard(
        node_id=node_id,
        incarnation=origin.life.incarnation,
        start_id=origin.life.start_id,
        hostname=socket.gethostname()[:TEXT_MAX],
        cluster_name=settings.cluster.name,
        version=VERSION,
        versions=named(versions(system)),
        operating_system=f"{settings.platform} {platform.release()}"[:TEXT_MAX],
        chip=(known.chip or _chip())[:TEXT_MAX],
        memory_bytes=psutil.virtual_memory().total,
        interfaces=[to_proto(one) for one in sorted(shown, key=lambda one: one.name)],
        addresses=addresses(settings.node.bind, faces),
        endpoints=[
            cluster_pb2.RoleEndpoint(role=role, host=settings.host, port=port)
            for role, port in ports(settings, node_id).items()
        ],
        settings=named(said),
        settings_digest=digest(said),
        is_scheduler_node=is_scheduler_node(settings, node_id),
        trusted_authorities=trust.trusted,
        certificate_authority=trust.signed_by,
        signing_authority=trust.signing,
        departed_node_ids=trust.departed,
        machine=known if machine is not None else None,
    )


def is_scheduler_node(settings: Settings, node_id: NodeId) -> bool:
    return settings.cluster.scheduler in ("", node_id)


def ports(settings: Settings, node_id: NodeId) -> dict[str, int]:
    """By role."""
    found = {
        "discovery": settings.discovery.port,
        "topology": settings.topology.port,
        "echo": settings.topology.echo_port,
        "runner": settings.runner.port,
    }
    if is_scheduler_node(settings, node_id):
        found |= {"scheduler": settings.scheduler.port, "enrollment": settings.scheduler.enrollment_port}
    return found


def joining(settings: Settings, node_id: NodeId) -> tuple[tuple[str, str], ...]:
    """The settings that matter to others, as text, sorted by name."""
    roles = ["discovery", "gateway", "runner", "topology"]
    limits = settings.limits
    found = {
        "cluster.name": settings.cluster.name,
        "cluster.scheduler": settings.cluster.scheduler or node_id,
        "roles": " ".join(sorted([*roles, *(["scheduler"] if is_scheduler_node(settings, node_id) else [])])),
        "node.bind": settings.node.bind,
        "node.metrics_bind": settings.node.metrics_bind,
        "gateway.bind": settings.gateway.bind,
        "discovery.port": settings.discovery.port,
        "discovery.seeds": " ".join(settings.discovery.seeds),
        "discovery.mdns": str(settings.discovery.mdns).lower(),
        "topology.port": settings.topology.port,
        "topology.echo_port": settings.topology.echo_port,
        "runner.port": settings.runner.port,
        "limits.heartbeat_s": f"{limits.heartbeat_s:g}",
        "limits.suspect_s": f"{limits.suspect_s:g}",
        "limits.dead_s": f"{limits.dead_s:g}",
        "limits.probe_period_s": f"{limits.probe_period_s:g}",
        "limits.probe_timeout_s": f"{limits.probe_timeout_s:g}",
    }
    return tuple((name, str(value)[:1024]) for name, value in sorted(found.items()))


def versions(system: str = "") -> tuple[tuple[str, str], ...]:
    """Of what runs here, as it was when this was asked first. Nothing is imported for it. `system`: where it is known
    better than from files."""
    found = {**_installed(), "system": system or _build()}
    return tuple((name, value[:TEXT_MAX]) for name, value in sorted(found.items()) if value)


@functools.cache
def _installed() -> dict[str, str]:
    return {
        "thunderline": full_version(),
        "mlx": version_of("mlx"),
        "mlx-lm": version_of("mlx-lm"),
        "python": platform.python_version(),
    }


def named(pairs: Sequence[tuple[str, str]]) -> list[cluster_pb2.NamedValue]:
    return [cluster_pb2.NamedValue(name=name, value=value) for name, value in pairs]


def to_proto(one: Interface) -> cluster_pb2.NetworkInterface:
    return cluster_pb2.NetworkInterface(
        name=one.name,
        medium=one.medium.value,  # type: ignore[arg-type]
        addresses=one.addresses,
        is_up=one.is_up,
        mtu_bytes=one.mtu_bytes,
    )


@functools.cache
def _build() -> str:
    """The system with its build: "macOS 26.1 25B78", or "Debian GNU/Linux 12 (bookworm) 6.18.0"."""
    try:
        if MAC_BUILD.exists():
            told = plistlib.loads(MAC_BUILD.read_bytes())
            return f"{told['ProductName']} {told['ProductVersion']} {told['ProductBuildVersion']}"
        lines = [line.partition("=") for line in LINUX_BUILD.read_text().splitlines()]
        name = next((value.strip('"') for key, _, value in lines if key == "PRETTY_NAME"), platform.system())
    except (OSError, ValueError, KeyError, plistlib.InvalidFileException):
        name = platform.system()
    return f"{name} {platform.release()}"


@functools.cache
def _chip() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.machine()
