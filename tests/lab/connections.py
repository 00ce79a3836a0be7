"""TCP connections between hosts, as a host's own socket table has them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from lab.media import Medium
from lab.namespaces import ip
from lab.network import Host
from lab.nodes import ECHO_PORT

# An IPv4 address, or one that an IPv6 socket shows so; behind it perhaps an interface.
END = r"\[?(?:::ffff:)?(\d+\.\d+\.\d+\.\d+)(?:%\w+)?\]?:(\d+)"
LINE = re.compile(rf"\s{END}\s+{END}\s*(\S*)")


@dataclass(frozen=True)
class Connection:
    address: str
    port: int
    peer_address: str
    peer_port: int
    # As ss names it: with its pid.
    process: str


def parsed(table: str) -> list[Connection]:
    found = [match.groups() for match in map(LINE.search, table.splitlines()) if match]
    return [Connection(one, int(port), other, int(other_port), who) for one, port, other, other_port, who in found]


def established(host: Host) -> list[Connection]:
    """With other hosts, also if only one end has closed it; but for the short ones of the echo."""
    table = ip("-N", host.namespace, "-tnpH", "state", "established", "state", "close-wait", tool="ss")
    return [
        one
        for one in parsed(table)
        if ECHO_PORT not in (one.port, one.peer_port) and not IPv4Address(one.peer_address).is_loopback
    ]


def over(medium: Medium, hosts: Sequence[Host]) -> list[Connection]:
    """Those of these hosts that have an address of the medium."""
    return [
        one
        for host in hosts
        for one in established(host)
        if any(IPv4Address(end) in medium.network for end in (one.address, one.peer_address))
    ]
