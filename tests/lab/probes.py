"""What crosses between two hosts, seen with sockets of the lab's own: how verbs are proved. Blocking."""

import contextlib
import os
import socket
import struct
import time

from lab.namespaces import inside, ip
from lab.network import Host

IP_PKTINFO = 8
# Below the ephemeral range, where services listen.
PORTS = range(30_000, 32_000)
WAIT_S = 0.5
# Where multicast DNS talks.
GROUP = "224.0.0.251"
ECHO_REQUEST, ECHO_REPLY = 8, 0


def bound(host: Host, address: str, timeout_s: float) -> socket.socket:
    """A socket for datagrams that lives on this host."""
    with inside(host.namespace):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(timeout_s)
    one.bind((address, 0))
    return one


def rtt_s(one: Host, other: Host, address: str, source: str = "", timeout_s: float = WAIT_S) -> float | None:
    """A datagram to an address of the other host and back; None when either is lost. `source`: of the first host."""
    here, there = bound(one, source, timeout_s), bound(other, address, timeout_s)
    with here, there, contextlib.suppress(OSError):
        begun_s = time.perf_counter()
        here.sendto(b"there", there.getsockname())
        _, back = there.recvfrom(64)
        there.sendto(b"back", back)
        here.recvfrom(64)
        return time.perf_counter() - begun_s
    return None


def arrives(one: Host, other: Host, address: str, source: str = "", timeout_s: float = WAIT_S) -> str:
    """The interface of the other host at which a datagram to this address arrives; "" when it does not."""
    with bound(one, source, timeout_s) as here, bound(other, address, timeout_s) as there:
        there.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        with contextlib.suppress(OSError):
            here.sendto(b"where", there.getsockname())
            _, extra, _, _ = there.recvmsg(64, 128)
            found = [data for level, kind, data in extra if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO)]
            with inside(other.namespace):
                return socket.if_indextoname(struct.unpack_from("I", found[0])[0])
    return ""


def can_dial(one: Host, other: Host, address: str, timeout_s: float = WAIT_S) -> bool:
    """Whether a TCP connection from one host to a service of the other comes about."""
    with bound_service(other, address) as listening:
        with inside(one.namespace):
            dialling = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with dialling:
            dialling.settimeout(timeout_s)
            return dialling.connect_ex(listening.getsockname()) == 0


def bound_service(host: Host, address: str) -> socket.socket:
    """A listening socket at a port where services are."""
    with inside(host.namespace):
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    for port in PORTS:
        with contextlib.suppress(OSError):
            one.bind((address, port))
            one.listen(4)
            return one
    one.close()
    raise AssertionError(f"no free port on {host.name}")


def leaves_by(host: Host, address: str) -> str:
    """The interface that the routes of a host name for an address; "" for none."""
    words = ip("route", "get", address, namespace=host.namespace).split()
    return words[words.index("dev") + 1] if "dev" in words else ""


def has_carrier(host: Host, interface: str) -> bool:
    return "LOWER_UP" in ip("link", "show", "dev", interface, namespace=host.namespace)


def ping_s(host: Host, address: str, timeout_s: float = WAIT_S) -> float | None:
    """As ping does it: ICMP, which the other host's kernel answers. None when it is lost."""
    with inside(host.namespace):
        one = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with one:
        one.settimeout(timeout_s)
        mark = os.urandom(8)
        packet = struct.pack("!BBH", ECHO_REQUEST, 0, _checksum(struct.pack("!BBH", ECHO_REQUEST, 0, 0) + mark)) + mark
        with contextlib.suppress(OSError):
            begun_s = time.perf_counter()
            one.sendto(packet, (address, 0))
            while True:
                data = one.recv(256)
                taken_s = time.perf_counter() - begun_s
                # Behind an IPv4 header without options.
                if data[20] == ECHO_REPLY and data[24:32] == mark:
                    return taken_s
                if taken_s > timeout_s:
                    return None
    return None


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def hears_group(one: Host, other: Host, address: str, source: str, timeout_s: float = WAIT_S) -> bool:
    """Whether a datagram of the first host to multicast DNS's group reaches the other, from and to these addresses."""
    with inside(other.namespace):
        there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with there, bound(one, source, timeout_s) as here:
        there.settimeout(timeout_s)
        there.bind((GROUP, 0))
        membership = socket.inet_aton(GROUP) + socket.inet_aton(address)
        there.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        here.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
        with contextlib.suppress(OSError):
            here.sendto(b"anybody", (GROUP, there.getsockname()[1]))
            return bool(there.recv(64))
    return False
