"""The medium of a network interface, from what the system says of it. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Medium(Enum):
    """Numbers are those of Medium in cluster.proto."""

    THUNDERBOLT = 1
    ETHERNET = 2
    WIFI = 3
    VPN = 4
    LOOPBACK = 5
    OTHER = 6


# From best to worst: a bridge is as good as its worst member.
ORDER = (Medium.LOOPBACK, Medium.THUNDERBOLT, Medium.ETHERNET, Medium.WIFI, Medium.OTHER, Medium.VPN)
VPN_PREFIXES = ("utun", "tun", "tap", "wg", "ppp", "tailscale", "ipsec", "zt")
VPN_KINDS = {"tun", "tap", "wireguard", "ppp"}
# macOS: what AirDrop and its like make of the radio. No hardware port is listed for them.
WIFI_PREFIXES = ("awdl", "llw")
WIFI_PORT = "Wi-Fi"
# macOS: a receptacle for cables to other Macs is "Thunderbolt 3" and no word more; a dock's card is "Thunderbolt
# Ethernet Slot 0", and all receptacles joined are "Thunderbolt Bridge".
RECEPTACLE = re.compile(r"thunderbolt ([0-9]{1,3})", re.IGNORECASE)
# "Ethernet Adapter (en4)", "USB 10/100/1000 LAN", "USB Dock", "USB 2.5GbE", "AX88179A" (the chip of many adapters).
WIRED_PORT = re.compile(r"\b(ethernet|lan|dock|gigabit|\d+gbe|ax88\w+)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the system says: driver and kind are "" when it does not."""

    name: str
    driver: str = ""
    # "loopback", "ethernet", "bridge", "tun", "wireguard", "veth" ...
    kind: str = ""
    is_wireless: bool = False
    members: Sequence[str] = ()
    # macOS: what it calls the hardware port, "Thunderbolt 3". "" where it lists none, or has not told yet.
    port: str = ""


def receptacle_of(hardware_port: str) -> str:
    """ "3" of "Thunderbolt 3", as printed on the machine; "" for what is no receptacle."""
    found = RECEPTACLE.fullmatch(hardware_port)
    return found[1] if found else ""


def medium(one: Hardware, all_of_node: Mapping[str, Hardware], overrides: Mapping[str, Medium] | None = None) -> Medium:
    """The medium of one interface; `all_of_node` by name, for the members of a bridge.

    `overrides`: what the config says of interfaces, by name; it counts for members of bridges too.
    """
    if overrides and one.name in overrides:
        return overrides[one.name]
    if one.kind == "loopback" or one.name in ("lo", "lo0"):
        return Medium.LOOPBACK
    if one.kind in VPN_KINDS or one.name.startswith(VPN_PREFIXES):
        return Medium.VPN
    if one.members:
        known = [all_of_node[name] for name in one.members if name in all_of_node]
        media = [medium(member, {}, overrides) for member in known]
        return max(media, key=ORDER.index, default=Medium.OTHER)
    if one.driver == "thunderbolt-net":
        return Medium.THUNDERBOLT
    if one.is_wireless or one.port == WIFI_PORT or one.name.startswith(WIFI_PREFIXES):
        return Medium.WIFI
    if receptacle_of(one.port):
        return Medium.THUNDERBOLT
    if one.port:
        # An iPhone, Bluetooth, what nobody knows yet: OTHER.
        return Medium.ETHERNET if WIRED_PORT.search(one.port) else Medium.OTHER
    # A virtual cable says nothing about what is behind it.
    if one.kind in {"veth", "bridge", "dummy"} or not one.driver:
        return Medium.OTHER
    return Medium.ETHERNET
