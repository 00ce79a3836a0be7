"""Whether a connection is plain or TLS, the same for who listens and who dials. Pure."""

import ipaddress
from enum import Enum, auto


class Transport(Enum):
    PLAIN = auto()  # A Unix socket, or loopback on a node without a cluster.
    TLS = auto()  # Both ends show a certificate of the cluster.
    REFUSED = auto()  # Others could reach it, or be reached, and nothing would keep strangers out.


def transport(address: str, has_certificate: bool) -> Transport:
    """Of "host:port" or "unix:path".

    A node of a cluster speaks TLS on loopback too: one port cannot do both, and whoever may read the node's key
    may also dial it.
    """
    if address.startswith("unix:"):
        return Transport.PLAIN
    if has_certificate:
        return Transport.TLS
    return Transport.PLAIN if is_loopback(address.rpartition(":")[0].strip("[]")) else Transport.REFUSED


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
