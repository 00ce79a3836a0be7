"""The medium of a network interface, from what the system says of it. Pure."""

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


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the system says: driver and kind are "" when it does not."""

    name: str
    driver: str = ""
    # "loopback", "ethernet", "bridge", "tun", "wireguard", "veth" ...
    kind: str = ""
    is_wireless: bool = False
    members: Sequence[str] = ()


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
    if one.is_wireless:
        return Medium.WIFI
    # A virtual cable says nothing about what is behind it.
    if one.kind in {"veth", "bridge", "dummy"} or not one.driver:
        return Medium.OTHER
    return Medium.ETHERNET
