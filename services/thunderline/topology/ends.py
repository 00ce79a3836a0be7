"""Which of this node's interfaces a connection really passes, with its medium. Asked from any thread."""

import contextlib
import functools
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End
from thunderline.process.interfaces import Interface, interfaces
from thunderline.process.settings import DARWIN
from thunderline.topology.mac_routes import MacRoutes
from thunderline.topology.routes import Names, Routes

# A name that is not known yet is looked for at once, but not more often.
LOOK_GAP_S = 0.25
# linux/in.h and linux/in6.h; Python does not name them all.
_IP_PKTINFO, _IP_PKTOPTIONS = 8, 9
_IPV6_2292PKTINFO, _IPV6_2292PKTOPTIONS, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 2, 6, 49, 50
_CONTROL_BYTES_MAX = 512
_CONTROL = struct.Struct("@Nii")


class Ends:
    """`overrides`: what the settings say of interfaces, by name. `platform`: as sys.platform. `read` raises OSError."""

    def __init__(
        self,
        overrides: Mapping[str, Medium],
        read: Callable[[], tuple[Interface, ...]] | None = None,
        platform: str = sys.platform,
    ) -> None:
        self._overrides = overrides
        self._read = read or functools.partial(interfaces, overrides=overrides, platform=platform)
        self._names = Names()
        self._routes: Routes | MacRoutes = MacRoutes() if platform == DARWIN else Routes(self._names)
        self._lock = threading.Lock()
        self._looked_s = 0.0
        # What this node's own card says, by name.
        self._media: Mapping[str, Medium] = {}
        self.interfaces: tuple[Interface, ...] = ()
        self._by_name: dict[str, End] = {}
        self._owners: dict[str, str] = {}
        self.look()

    def look(self) -> bool:
        """Reads the interfaces anew: whether one came, went or changed. Blocking, some milliseconds. Raises OSError."""
        with self._lock:
            self._looked_s = time.monotonic()
            return self._become(self._read())

    def learn(self, media: Mapping[str, Medium]) -> None:
        """What this node's own card says of its interfaces, where nothing else tells of them."""
        with self._lock:
            if media != self._media:
                self._media = media
                self._become(self.interfaces)

    def _medium(self, one: Interface) -> Medium:
        """By the card where it tells; the settings win."""
        return one.medium if one.name in self._overrides else self._media.get(one.name, one.medium)

    def _become(self, read: tuple[Interface, ...]) -> bool:
        found = tuple(replace(one, medium=self._medium(one)) for one in read)
        if found == self.interfaces:
            return False
        self.interfaces = found
        self._by_name = {one.name: End(one.name, one.medium) for one in found}
        self._owners = {address: one.name for one in found for address in one.addresses}
        self._names.forget()
        self._routes.forget()
        return True

    def close(self) -> None:
        self._routes.close()

    def leaves(self, address: str, source: str) -> End | None:
        """By which packets from `source`, an own address, leave for `address`."""
        return self._end(self._routes.interface(address, source) or self._owners.get(source, ""))

    def arrives(self, connection: socket.socket, address: str) -> End | None:
        """On which an accepted connection to the own `address` came in. See `tell_arrivals`."""
        name = ""
        if index := _arrival_index(connection):
            try:
                name = self._names.of(index)
            except OSError:
                # It went meanwhile.
                return None
        return self._end(name or self._owners.get(address, ""))

    def _end(self, name: str) -> End | None:
        if not name:
            return None
        if name not in self._by_name and time.monotonic() - self._looked_s >= LOOK_GAP_S:
            # What cannot be read now is looked for again with the next connection.
            with contextlib.suppress(OSError):
                self.look()
        return self._by_name.get(name) or End(name, Medium.OTHER)


def tell_arrivals(listener: socket.socket) -> None:
    """Has the kernel keep, for each connection that comes, on which interface it did. Elsewhere than on Linux it
    cannot, and the owner of the address is taken for it. Raises OSError."""
    if sys.platform != "linux":
        return
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        listener.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _arrival_index(connection: socket.socket) -> int:
    """Of the handshake's packet; 0 when the system does not tell."""
    if sys.platform != "linux":
        return 0
    is_ipv6 = connection.family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if is_ipv6 else socket.IPPROTO_IP
    try:
        data = connection.getsockopt(level, _IPV6_2292PKTOPTIONS if is_ipv6 else _IP_PKTOPTIONS, _CONTROL_BYTES_MAX)
    except OSError:
        return 0
    return arrival_index(data, is_ipv6)


def arrival_index(data: bytes, is_ipv6: bool) -> int:
    """The interface in a row of control messages (struct cmsghdr); 0 when none tells it."""
    wanted = {(socket.IPPROTO_IPV6, _IPV6_PKTINFO), (socket.IPPROTO_IPV6, _IPV6_2292PKTINFO)}
    if not is_ipv6:
        wanted = {(socket.IPPROTO_IP, _IP_PKTINFO)}
    place = 0
    while place + _CONTROL.size <= len(data):
        length, level, kind = _CONTROL.unpack_from(data, place)
        # in6_pktinfo begins with the address, in_pktinfo with the index.
        at = place + _CONTROL.size + (16 if is_ipv6 else 0)
        if (level, kind) in wanted and at + 4 <= len(data):
            return int.from_bytes(data[at : at + 4], sys.byteorder)
        step = struct.calcsize("@N")
        place += max((length + step - 1) // step * step, _CONTROL.size)
    return 0
