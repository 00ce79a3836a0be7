"""Starts relays: opens their ends inside the namespaces, and tells them what to do to packets."""

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path

from lab.namespaces import LabError, inside
from lab.relay import Shape

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING, ETH_P_ALL = 263, 15, 23, 3
SO_RCVBUFFORCE, BUFFER_BYTES = 33, 8 * 1024 * 1024
ANSWER_S = 10.0


def tun(namespace: str, interface: str) -> int:
    """A tun device, which lives as long as the descriptor is open somewhere."""
    with inside(namespace):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", interface.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def packets(namespace: str, interface: str) -> int:
    """A packet socket on an interface. With the virtio_net header checksums and segments that the kernel still owes
    go through as they are."""
    with inside(namespace):
        # Without a protocol until it is bound: nothing arrives before the header is asked for.
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    one.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    one.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    one.bind((interface, ETH_P_ALL))
    return one.detach()


class RunningRelay:
    """A relay's process. The descriptors are its own from now on."""

    def __init__(self, kind: str, first: int, second: int) -> None:
        script = Path(__file__).with_name("relay.py")
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(script), f"{kind}:{first}", f"{kind}:{second}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(first, second),
            start_new_session=True,
        )
        os.close(first)
        os.close(second)

    def shape(self, shape: Shape) -> None:
        """Returns once it holds. Raises LabError."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(shape.line)
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_S)
            answer = os.read(self.process.stdout.fileno(), 64) if ready else b"no answer"
        except OSError as error:
            raise LabError(f"the relay is gone: {error}") from None
        if answer != b"ok\n":
            raise LabError(f"the relay does not take {shape}: {answer!r}")

    def close(self) -> None:
        """It ends by itself; else by its pid."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
