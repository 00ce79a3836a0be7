"""`networksetup`, `ifconfig` and `route`: hardware ports, network services, bridges. Pure."""

import re
from collections import Counter
from dataclasses import dataclass, field

from thunderline.process.macos.outputs import BRIDGE, INTERFACE, Read, lines, name, not_understood, quoted

# See MachineFacts and Bridge in cluster.proto. Interfaces: a Mac with VPNs and virtual machines has 40.
PORT_COUNT_MAX, SERVICE_COUNT_MAX, INTERFACE_COUNT_MAX, BRIDGE_COUNT_MAX, MEMBER_COUNT_MAX = 64, 128, 256, 16, 16

# Behind it come virtual LANs, which are no ports.
VLANS = "VLAN Configurations"
SERVICE = re.compile(r"\((?:[0-9]{1,4}|(\*))\) (.*)")
# Names of ports may hold commas and parentheses; devices hold neither. A VPN's device is empty.
SERVICE_PORT = re.compile(r"\(Hardware Port: .*, Device: ([^,()]*)\)")
INTERFACE_LINE = re.compile(r"([^\s:]+): flags=[0-9a-fA-F]+<([A-Z0-9_,]*)>.*")
ENABLED = {"Enabled": True, "Disabled": False}


@dataclass(frozen=True, slots=True)
class Service:
    """What the system settings call a network service; `device` is "" for most VPNs. Names are as they came."""

    name: str
    device: str
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class Interface:
    """Of `ifconfig`."""

    name: str
    is_up: bool = False
    # Of a bridge.
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """By which interface packets leave; `gateway` is "" where the address is on a network of ours."""

    interface: str = ""
    gateway: str = ""


@dataclass(slots=True)
class _Block:
    """The lines of one interface."""

    name: str
    is_up: bool
    members: list[str] = field(default_factory=list)


def hardware_ports(text: str) -> Read[tuple[tuple[str, str], ...]]:
    """Interfaces and what the system calls their ports, in its order."""
    found: list[tuple[str, str]] = []
    warnings = []
    port: str | None = None
    for line in lines(text):
        key, _, value = line.partition(":")
        if key == "Hardware Port":
            if port is not None:
                warnings.append(not_understood(f"hardware port {quoted(port)} has no device"))
            port = name(value)
        elif key == "Device" and port is not None:
            device = value.strip()
            if INTERFACE.fullmatch(device):
                found.append((device, port))
            elif device:
                warnings.append(not_understood(f"the device of {quoted(port)} is {quoted(device)}"))
            port = None
        elif line.startswith(VLANS):
            break
    if port is not None:
        warnings.append(not_understood(f"hardware port {quoted(port)} has no device"))
    pairs = tuple(dict.fromkeys(found))
    if not pairs:
        warnings.append(not_understood("it names no hardware port"))
    if len(pairs) > PORT_COUNT_MAX:
        warnings.append(not_understood(f"it names {len(pairs)} hardware ports; {PORT_COUNT_MAX} are kept"))
    # Which of two names is right, nobody knows: both are told.
    counts = Counter(device for device, _ in pairs)
    warnings += [
        not_understood(f"{device} is the device of {count} ports") for device, count in counts.items() if count > 1
    ]
    return Read(pairs[:PORT_COUNT_MAX], tuple(dict.fromkeys(warnings)))


def services(text: str) -> Read[tuple[Service, ...]]:
    """`networksetup -listnetworkserviceorder`: each service is two lines."""
    found: list[Service] = []
    warnings = []
    named: tuple[str, bool] | None = None
    for line in lines(text):
        if match := SERVICE.fullmatch(line):
            if named is not None:
                warnings.append(not_understood(f"service {quoted(named[0])} has no hardware port"))
            named = match[2], match[1] is None
        elif named is not None and (match := SERVICE_PORT.fullmatch(line.strip())):
            device = match[1].strip()
            if device and not INTERFACE.fullmatch(device):
                warnings.append(not_understood(f"the device of {quoted(named[0])} is {quoted(device)}"))
                device = ""
            found.append(Service(named[0], device, named[1]))
            named = None
    if named is not None:
        warnings.append(not_understood(f"service {quoted(named[0])} has no hardware port"))
    if not found:
        warnings.append(not_understood("it names no network service"))
    if len(found) > SERVICE_COUNT_MAX:
        warnings.append(not_understood(f"it names {len(found)} services; {SERVICE_COUNT_MAX} are kept"))
    return Read(tuple(dict.fromkeys(found))[:SERVICE_COUNT_MAX], tuple(dict.fromkeys(warnings)))


def bridge_services(service_order_text: str) -> tuple[str, ...]:
    """Names, as networksetup takes them, of the services whose device is a bridge."""
    found = services(service_order_text).value
    # A name that cannot be shown whole is none to ask for.
    names = [one.name for one in found if BRIDGE.fullmatch(one.device) and one.name == name(one.name)]
    return tuple(dict.fromkeys(names))[:BRIDGE_COUNT_MAX]


def service_enabled(text: str) -> Read[bool | None]:
    """`networksetup -getnetworkserviceenabled SERVICE`."""
    told = text.strip()
    if told in ENABLED:
        return Read(ENABLED[told])
    return Read(None, (not_understood(quoted(told)),))


def interfaces(text: str) -> Read[tuple[Interface, ...]]:
    """`ifconfig`: a line "en5: flags=8863<UP,...> mtu 1500" for each, with indented lines below it."""
    blocks: dict[str, _Block] = {}
    warnings = []
    block: _Block | None = None
    for line in lines(text):
        if not line[:1].isspace():
            match = INTERFACE_LINE.fullmatch(line)
            if match and INTERFACE.fullmatch(match[1]):
                block = blocks.setdefault(match[1], _Block(match[1], "UP" in match[2].split(",")))
                continue
            block = None
            if line:
                warnings.append(not_understood(quoted(line)))
        elif block is not None:
            match line.split():
                case ["member:", member, *_] if INTERFACE.fullmatch(member):
                    block.members.append(member)
    if not blocks:
        warnings.append(not_understood("it names no interface"))
    if len(blocks) > INTERFACE_COUNT_MAX:
        warnings.append(not_understood(f"it names {len(blocks)} interfaces; {INTERFACE_COUNT_MAX} are kept"))
    found = [
        Interface(one.name, one.is_up, tuple(dict.fromkeys(one.members))[:MEMBER_COUNT_MAX]) for one in blocks.values()
    ]
    return Read(tuple(found[:INTERFACE_COUNT_MAX]), tuple(dict.fromkeys(warnings)))


def route(text: str) -> Route:
    """`route -n get ADDRESS`: "gateway: 192.168.1.1" and "interface: en5" among other lines."""
    told: dict[str, str] = {}
    for line in lines(text):
        key, _, value = line.strip().partition(": ")
        told.setdefault(key, value.strip())
    interface, gateway = told.get("interface", ""), told.get("gateway", "")
    return Route(
        interface=interface if INTERFACE.fullmatch(interface) else "",
        gateway=gateway if re.fullmatch(r"[0-9A-Fa-f.:]{2,39}", gateway) else "",
    )


def route_interface(text: str) -> str:
    """ "" where it does not say."""
    return route(text).interface
