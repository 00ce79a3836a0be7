"""This node's network interfaces, read from the system."""

import contextlib
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from thunderline.cluster.machine_facts import MachineFacts
from thunderline.cluster.media import Hardware, Medium, medium
from thunderline.process.settings import DARWIN

SYSFS = Path("/sys/class/net")
ADDRESS_COUNT_MAX = 32
LOOPBACK_TYPE, TUN_TYPE = "772", "65534"


@dataclass(frozen=True, slots=True)
class Interface:
    """See NetworkInterface in cluster.proto."""

    name: str
    medium: Medium
    addresses: tuple[str, ...]
    is_up: bool
    mtu_bytes: int


def interfaces(
    sysfs: Path = SYSFS,
    overrides: Mapping[str, Medium] | None = None,
    machine: MachineFacts | None = None,
    platform: str = sys.platform,
) -> tuple[Interface, ...]:
    """Blocking, some milliseconds. An interface that goes while it is read is left out.

    `overrides`: what [topology] media says, by name. `machine`: without it a Mac's media are not known but for a few
    names, and are OTHER. Raises OSError: on macOS psutil reads all or none.
    """
    stats = psutil.net_if_stats()
    hardware = {}
    for name in stats:
        with contextlib.suppress(OSError):
            hardware[name] = mac_hardware(name, machine) if platform == DARWIN else _hardware(sysfs / name)
    found = []
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        if name not in hardware:
            continue
        ips = [a.address.split("%")[0] for a in addresses if a.family in (socket.AF_INET, socket.AF_INET6)]
        kind = medium(hardware[name], hardware, overrides)
        found.append(Interface(name, kind, tuple(ips[:ADDRESS_COUNT_MAX]), stats[name].isup, stats[name].mtu))
    return tuple(found)


def mac_hardware(name: str, machine: MachineFacts | None) -> Hardware:
    """What a Mac's commands say of an interface."""
    machine = machine or MachineFacts()
    members = next((one.members for one in machine.bridges if one.interface == name), ())
    return Hardware(name, members=members, port=dict(machine.hardware_ports).get(name, ""))


def _hardware(folder: Path) -> Hardware:
    """What sysfs says of an interface; without it only its name is known. Raises OSError when it has just gone."""
    if not folder.is_dir():
        return Hardware(folder.name)
    driver = folder / "device" / "driver"
    members = folder / "brif"
    kind = {LOOPBACK_TYPE: "loopback", TUN_TYPE: "tun"}.get(_text(folder / "type"), "")
    kind = next(
        (line.partition("=")[2] for line in _text(folder / "uevent").splitlines() if line.startswith("DEVTYPE=")), kind
    )
    return Hardware(
        name=folder.name,
        driver=driver.resolve().name if driver.exists() else "",
        kind=kind,
        is_wireless=(folder / "wireless").is_dir() or (folder / "phy80211").exists(),
        members=sorted(member.name for member in members.iterdir()) if members.is_dir() else (),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
