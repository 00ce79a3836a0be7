"""By which interface packets to an address leave: the kernel's own answer, asked over netlink (Linux)."""

import socket
import struct
import sys
import threading

from thunderline.cluster.addresses import is_ipv4
from thunderline.topology.sockets import wait_in_kernel

# linux/netlink.h and linux/rtnetlink.h.
NETLINK_ROUTE = 0
RTM_GETROUTE, NLM_F_REQUEST, NLMSG_ERROR = 26, 1, 2
RTA_DST, RTA_SRC, RTA_OIF = 1, 2, 4
_HEADER, _ROUTE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBBBBBI"), struct.Struct("=HH")
_INDEX = struct.Struct("=I")
# The kernel answers within some microseconds.
ANSWER_S = 0.5
ANSWER_BYTES_MAX = 8192


class Names:
    """Of interfaces by their index, until `forget`: a look-up costs three system calls. Asked from any thread."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(self, index: int) -> str:
        """Raises OSError when there is none."""
        # One that is forgotten meanwhile takes what was asked before along.
        known = self._known
        if index not in known:
            known[index] = socket.if_indextoname(index)
        return known[index]

    def forget(self) -> None:
        self._known = {}


class Routes:
    """Asked from any thread. Elsewhere than on Linux it knows nothing."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_closed = False
        self._number = 0

    def interface(self, address: str, source: str) -> str:
        """By which packets from `source`, an address of this node, leave for `address`; "" when nobody can tell."""
        if sys.platform != "linux":
            return ""
        try:
            with self._lock:
                index = self._asked(address, source)
            return self._names.of(index) if index else ""
        except (OSError, ValueError):
            self._drop()
            return ""

    def forget(self) -> None:
        """The interfaces are others; it remembers nothing."""

    def close(self) -> None:
        """For good: a thread that still answers a probe learns nothing more."""
        self._is_closed = True
        self._drop()

    def _drop(self) -> None:
        """The next question has a new socket."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def _asked(self, address: str, source: str) -> int:
        """The interface's index, 0 for no route. Raises OSError."""
        if self._is_closed:
            return 0
        if self._socket is None:
            # The numbers of linux/socket.h: other systems' modules do not have the names.
            self._socket = socket.socket(getattr(socket, "AF_NETLINK", 16), socket.SOCK_RAW, NETLINK_ROUTE)
            wait_in_kernel(self._socket, ANSWER_S)
        self._number = (self._number + 1) % 2**32
        self._socket.send(request(address, source, self._number))
        while True:
            data = self._socket.recv(ANSWER_BYTES_MAX)
            number, index = answer(data)
            # An answer that came too late is not for this question.
            if number == self._number:
                return index


def request(address: str, source: str, number: int) -> bytes:
    """A netlink message."""
    family = socket.AF_INET if is_ipv4(address) else socket.AF_INET6
    fields = [(RTA_DST, socket.inet_pton(family, address)), (RTA_SRC, socket.inet_pton(family, source))]
    attributes = b"".join(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data for kind, data in fields)
    bits = 8 * len(fields[0][1])
    body = _ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, number, 0) + body


def answer(data: bytes) -> tuple[int, int]:
    """Which question it answers, and the index of the interface, 0 for none. Raises OSError for half a message."""
    try:
        size, kind, _, number, _ = _HEADER.unpack_from(data)
        place = _HEADER.size + _ROUTE.size
        if kind == NLMSG_ERROR:
            return number, 0
        while place + _ATTRIBUTE.size <= min(size, len(data)):
            length, attribute = _ATTRIBUTE.unpack_from(data, place)
            if attribute == RTA_OIF:
                return number, int(_INDEX.unpack_from(data, place + _ATTRIBUTE.size)[0])
            # Each begins at a multiple of four bytes.
            place += max((length + 3) & ~3, _ATTRIBUTE.size)
    except struct.error:
        raise OSError("the kernel's answer cannot be read") from None
    return number, 0
