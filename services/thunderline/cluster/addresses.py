"""IP addresses as links see them, and how they are written with a port. Pure."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# RFC 1918: what people give to their own networks and cables.
PRIVATE = (ip_network("10.0.0.0/8"), ip_network("172.16.0.0/12"), ip_network("192.168.0.0/16"))
# RFC 6598, from which overlays such as Tailscale take theirs, and Tailscale's own IPv6 prefix.
VPN = (ip_network("100.64.0.0/10"), ip_network("fd7a:115c:a1e0::/48"))


@lru_cache(maxsize=4096)
def parse(address: str) -> IPv4Address | IPv6Address:
    """An IPv4 address that a dual-stack socket shows as IPv6 is an IPv4 address. Raises ValueError."""
    found = ip_address(address)
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def is_address(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def target(address: str, port: int) -> str:
    """As gRPC dials it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_ipv4(address: str) -> bool:
    return isinstance(parse(address), IPv4Address)


@lru_cache(maxsize=4096)
def is_private(address: str) -> bool:
    return any(parse(address) in network for network in PRIVATE)


@lru_cache(maxsize=4096)
def is_vpn(address: str) -> bool:
    """Whether the address alone says that a VPN carries it, whatever its interface looks like."""
    return any(parse(address) in network for network in VPN)


def is_probed(address: str, same_machine: bool) -> bool:
    """Whether a peer's address is worth a try from here.

    Loopback is the peer's only on one machine. A link-local IPv6 address means nothing without a zone, which only the
    peer knows.
    """
    if not is_address(address):
        return False
    found = parse(address)
    if found.is_loopback:
        return same_machine
    return not (found.is_unspecified or found.is_multicast or (found.is_link_local and found.version == 6))


@lru_cache(maxsize=4096)
def address_key(address: str) -> tuple[int, int, str]:
    """Sorts by number, IPv4 first; texts would put .10 before .9."""
    found = parse(address)
    zone = (found.scope_id or "") if isinstance(found, IPv6Address) else ""
    return found.version, int(found), zone
