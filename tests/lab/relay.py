"""A link in user space: packets from one end are written to the other, late, at random intervals, or not at all.

Run as a process of its own, `relay.py KIND:FD KIND:FD`, with a tun device or a packet socket at each end. Each line on
standard input is a Shape as JSON and is answered with "ok"; the end of standard input ends it. Standard library only.
"""

import contextlib
import heapq
import json
import os
import random
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass

# A packet that the kernel will cut up may be 64 KiB, with an Ethernet header and a virtio_net header before it.
PACKET_BYTES_MAX = 128 * 1024
# Read at one go before anything is written.
BURST_COUNT = 64
# On the way at once; what comes beyond is lost, as in any queue.
QUEUE_COUNT_MAX = 20_000
OUTGOING = 4
# Of an IPv4 address, the first byte from which on it is a group's.
MULTICAST = b"\xe0"


@dataclass(frozen=True)
class Shape:
    """What a medium does to packets, each way. Jitter is plus or minus, and never changes their order."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    # Of 1.
    loss: float = 0.0
    # Otherwise nothing crosses, and nobody is told.
    is_open: bool = True
    # Otherwise the interfaces have no carrier: the plug is out.
    is_plugged: bool = True

    @property
    def is_plain(self) -> bool:
        """A cable that needs no help."""
        return not (self.delay_s or self.jitter_s or self.loss)

    @property
    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


class Tun:
    """An end that is a tun device: whole IP packets. None for a group of hosts: a VPN carries no multicast."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)

    def read(self) -> bytes | None:
        """None when there is nothing now; empty for what stays here."""
        try:
            packet = os.read(self.descriptor, PACKET_BYTES_MAX)
        except OSError:
            return None
        is_ipv4 = packet[:1] < b"\x60"
        return b"" if is_ipv4 and packet[16:17] >= MULTICAST else packet

    def write(self, packet: bytes) -> None:
        # The interface may be down just now.
        with contextlib.suppress(OSError):
            os.write(self.descriptor, packet)


class Packets:
    """An end that is a packet socket with PACKET_VNET_HDR: Ethernet frames, behind what is left to do to them."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def read(self) -> bytes | None:
        """None when there is nothing now; empty for what we sent ourselves."""
        try:
            packet, source = self._socket.recvfrom(PACKET_BYTES_MAX)
        except OSError:
            return None
        return b"" if source[2] == OUTGOING else packet

    def write(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(packet)


End = Tun | Packets
KINDS: dict[str, type[Tun] | type[Packets]] = {"tun": Tun, "packets": Packets}


class Relay:
    """Both directions. `step` is given what is readable and returns in how many seconds it wants to be called."""

    def __init__(self, ends: tuple[End, End], seed: int = 0) -> None:
        self._ends = ends
        self._random = random.Random(seed)
        self.shape = Shape()
        self._count = 0
        # When the last packet of a direction is due: none overtakes it.
        self._last_s = [0.0, 0.0]
        self._on_the_way: list[tuple[float, int, int, bytes]] = []

    def step(self, readable: list[int]) -> float | None:
        for place, end in enumerate(self._ends):
            if end.descriptor in readable:
                self._take(place, end)
        return self._give()

    def _take(self, place: int, end: End) -> None:
        shape = self.shape
        for _ in range(BURST_COUNT):
            packet = end.read()
            if packet is None:
                return
            lost = shape.loss and self._random.random() < shape.loss
            if not packet or lost or not shape.is_open or len(self._on_the_way) >= QUEUE_COUNT_MAX:
                continue
            jitter_s = self._random.uniform(-shape.jitter_s, shape.jitter_s) if shape.jitter_s else 0.0
            due_s = max(self._last_s[place], time.monotonic() + max(0.0, shape.delay_s + jitter_s))
            self._last_s[place] = due_s
            self._count += 1
            heapq.heappush(self._on_the_way, (due_s, self._count, 1 - place, packet))

    def _give(self) -> float | None:
        while self._on_the_way:
            wait_s = self._on_the_way[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            _, _, place, packet = heapq.heappop(self._on_the_way)
            if self.shape.is_open:
                self._ends[place].write(packet)
        return None

    def reshape(self, shape: Shape) -> None:
        """What is on the way already keeps its time; what is read from now on may not overtake it."""
        self.shape = shape


def main(words: list[str]) -> int:
    parts = [word.partition(":") for word in words]
    first, second = (KINDS[kind](int(descriptor)) for kind, _, descriptor in parts)
    relay = Relay((first, second))
    control = sys.stdin.fileno()
    pending = b""
    wait_s: float | None = None
    while True:
        readable, _, _ = select.select([control, first.descriptor, second.descriptor], [], [], wait_s)
        if control in readable:
            read = os.read(control, 65536)
            if not read:
                return 0
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                relay.reshape(Shape(**json.loads(line)))
                print("ok", flush=True)
        wait_s = relay.step(readable)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
