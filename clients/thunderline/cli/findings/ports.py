"""What keeps a Thunderbolt port from RDMA: a bridge, no IPv4 address, the port next to Ethernet. Pure.

Only ports at which another Mac is seen are looked at. The ring over TCP works over all of them.
"""

import zlib
from collections.abc import Iterable
from shlex import quote

from thunderline.cli.findings.finding import Finding, joined, note, warning
from thunderline.cli.findings.macs import Mac, other_end, place
from thunderline.cluster import studio
from thunderline.cluster.machine_facts import Bridge, RdmaState, ThunderboltPort
from thunderline.process.macos import outputs


def of_ports(mac: Mac) -> list[Finding]:
    if not mac.may_use_rdma:
        return []
    found = [one for bridge in mac.facts.bridges for one in _of_bridge(mac, bridge)]
    for port in mac.cabled:
        if is_next_to_ethernet(mac, port):
            found.append(_of_next_to_ethernet(mac, port))
        elif _lacks_address(mac, port):
            found.append(_of_no_address(mac, port))
    return found


def _of_bridge(mac: Mac, bridge: Bridge) -> Iterable[Finding]:
    held = [one for one in bridge.members if one in mac.thunderbolt_interfaces and mac.bridge_of(one) is bridge]
    if not held:
        return
    name = " ".join(filter(None, [bridge.interface, f"({bridge.service})" if bridge.service else ""]))
    seen = f"`ifconfig {quote(bridge.interface)}`: {joined([f'member: {one}' for one in held])}"
    unsure = {
        None: "whether its network service is enabled",
        False: "whether it lets go of its members while its service is off",
        True: "",
    }[bridge.is_enabled]
    cabled = {one.interface: other_end(one) for one in mac.cabled if one.interface in held}
    if not cabled:
        if mac.facts.rdma is RdmaState.ENABLED:
            why = f"RDMA will not work at {joined(held)} while it holds them; nothing is plugged in there"
            yield note(f"{name} is in the way of RDMA", why, seen, unsure)
        return
    out = joined([f"`sudo ifconfig {quote(bridge.interface)} deletem {quote(one)}`" for one in cabled])
    can_be_off = bridge.service and bridge.is_enabled is not False
    off = f"`sudo networksetup -setnetworkserviceenabled {quote(bridge.service)} off`, or " if can_be_off else ""
    services = "; ".join(_own_service(mac, one) for one in cabled)
    yield warning(
        f"{name} rules out RDMA at {joined(list(cabled))}",
        f"it has taken over the cable to {joined(list(cabled.values()))}: no address, and so no RDMA, at the port "
        "itself; the ring over TCP works over the bridge",
        f"while nothing is served over {bridge.interface}: {out}, which lasts until a reboot; for good: {off}System "
        f"Settings > Network; then each port needs an address of its own: {services}",
        seen,
        unsure,
    )


def is_next_to_ethernet(mac: Mac, port: ThunderboltPort) -> bool:
    """Of a Mac Studio, where RDMA does not work at it."""
    return studio.is_next_to_ethernet(mac.facts.model, mac.facts.model_name, port.interface, port.receptacle)


def _of_next_to_ethernet(mac: Mac, port: ThunderboltPort) -> Finding:
    known = mac.facts.model in studio.KNOWN_STUDIOS
    return warning(
        f"the cable to {other_end(port)} is in the port next to Ethernet",
        f"on a Mac Studio RDMA does not work at that port ({place(port)}); the ring over TCP does",
        "while nothing is served over it, move the cable to another Thunderbolt port of this Mac; `thunderline doctor` "
        "then does not name it any more",
        f"`{outputs.THUNDERBOLT}`: {place(port)}; `sysctl hw.model`: {mac.facts.model or 'not told'}",
        "" if known else "whether en2 is that port on this model: it is known of the M3 Ultra only",
    )


def _lacks_address(mac: Mac, port: ThunderboltPort) -> bool:
    if mac.facts.rdma is not RdmaState.ENABLED or not port.rdma_device or mac.bridge_of(port.interface):
        return False
    return mac.ipv4(port.interface) == []


def _of_no_address(mac: Mac, port: ThunderboltPort) -> Finding:
    name = port.interface
    return warning(
        f"{name} has no IPv4 address: {port.rdma_device} cannot be used",
        f"MLX finds the port to {other_end(port)} by a GID made of its IPv4 address; without one JACCL ends with "
        '"No IPv4-mapped GID"',
        f"{_own_service(mac, name)} (without a server macOS takes a link-local address by itself); quick, until a "
        f"reboot: `sudo ifconfig {quote(name)} inet {link_local(mac.node, name)} netmask 255.255.0.0 alias`",
        f"`ifconfig {quote(name)}`: no line with inet",
        "whether one is on its way: macOS takes some seconds after a cable was plugged in",
    )


def _own_service(mac: Mac, interface: str) -> str:
    """A port that was in a bridge usually has no network service, so that nothing gives it an address."""
    title = dict(mac.facts.hardware_ports).get(interface, "")
    if not title:
        return f"add a network service for {interface} that uses DHCP (System Settings > Network)"
    port = quote(title)
    return (
        f"`sudo networksetup -createnetworkservice {port} {port}` where the port has no network service, then "
        f"`sudo networksetup -setdhcp {port}`"
    )


def link_local(node: str, interface: str) -> str:
    """An address of 169.254.0.0/16 for one port, the same each time, and hardly ever the one of another port.

    RFC 3927 keeps the first and the last 256 of them.
    """
    number = zlib.crc32(f"{node} {interface}".encode())
    return f"169.254.{1 + number // 254 % 254}.{1 + number % 254}"
