"""Blocking TCP sockets with one deadline for all that happens on them."""

import contextlib
import errno as errnos
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator

# A deadline is renewed on a socket when it is so much nearer: each time costs a system call.
SLACK_S = 0.1
# Closed at once, with a reset: thousands of probes would else leave as many ports waiting for a minute.
_NO_LINGER = struct.pack("ii", 1, 0)
# struct timeval.
_TIMEVAL = struct.Struct("@ll")


class Sockets:
    """Those of one piece of work in threads. Who gives it up ends them, and with them what the threads wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.is_over = False

    @contextlib.contextmanager
    def holding(self, connection: socket.socket) -> Iterator[None]:
        """One of them, for the time of the block. Raises OSError when it is over."""
        with self._lock:
            if self.is_over:
                raise OSError(errnos.ECANCELED, "given up")
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)

    def end(self) -> None:
        """For good. From any thread."""
        with self._lock:
            self.is_over = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def dialled(address: str, port: int, deadline_s: float) -> socket.socket:
    """Unbound, as MLX dials: the kernel alone chooses the way. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(left_s(deadline_s))
        connection.connect((address, port))
    except BaseException:
        connection.close()
        raise
    return connection


def end_at_once(connection: socket.socket) -> None:
    """For the next close. Raises OSError."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def receive(connection: socket.socket, count: int, deadline_s: float) -> bytes:
    """So many bytes. Raises OSError, also when the other end closes before."""
    data = b""
    while len(data) < count:
        limit(connection, deadline_s)
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError(errnos.ECONNRESET, "closed before all of it came")
        data += part
    return data


def limit(connection: socket.socket, deadline_s: float) -> None:
    """For the next calls, which last no longer than SLACK_S beyond it; a nearer one stays. Raises TimeoutError.

    One that waits in the kernel keeps its limit.
    """
    left, limit_s = left_s(deadline_s), connection.gettimeout()
    if limit_s is not None and limit_s > left + SLACK_S:
        connection.settimeout(left)


def wait_in_kernel(connection: socket.socket, limit_s: float) -> None:
    """From now on each `recv` waits so long at most. Python's own time-outs cost one more system call for every call.
    What a burst sends is less than any buffer. Raises OSError."""
    # Elsewhere than on Linux an accepted socket is as its listener, whatever Python says of it.
    if connection.gettimeout() is not None or sys.platform != "linux":
        connection.setblocking(True)
    # Of 0 it would wait for ever.
    limit_us = max(1, int(limit_s * 1e6))
    data = _TIMEVAL.pack(limit_us // 10**6, limit_us % 10**6)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, data)


def left_s(deadline_s: float) -> float:
    """Until a moment of the monotonic clock. Raises TimeoutError when it has passed."""
    left = deadline_s - time.monotonic()
    if left <= 0:
        raise TimeoutError(errnos.ETIMEDOUT, "the deadline passed")
    return left


def own_address(connection: socket.socket) -> str:
    """Of this end, without a zone. Raises OSError."""
    return str(connection.getsockname()[0]).split("%")[0]


def errno_of(error: OSError) -> int:
    """A deadline of our own is ETIMEDOUT: Python gives it no number, and the kernel EAGAIN."""
    is_ours = isinstance(error, TimeoutError | BlockingIOError)
    return errnos.ETIMEDOUT if is_ours else error.errno or errnos.EIO
