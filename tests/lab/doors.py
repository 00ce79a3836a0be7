"""A port on this process's own loopback that leads to one on a host: for clients that live outside the lab."""

import contextlib
import selectors
import socket
import threading

from lab.namespaces import inside

DIAL_S = 2.0
CLOSED_S = 5.0
CHUNK_BYTES = 65536


class Door:
    """Passes bytes on; whoever dials `target` talks to 127.0.0.1:`port` of the host."""

    def __init__(self, namespace: str, port: int) -> None:
        self._namespace, self._port = namespace, port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._join, args=(outer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _join(self, outer: socket.socket) -> None:
        with outer, contextlib.suppress(OSError):
            with inside(self._namespace):
                inner = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            with inner:
                inner.settimeout(DIAL_S)
                inner.connect(("127.0.0.1", self._port))
                inner.settimeout(None)
                with self._lock:
                    self._open |= {outer, inner}
                try:
                    _pass_on(outer, inner)
                finally:
                    with self._lock:
                        self._open -= {outer, inner}

    def close(self) -> None:
        # A close alone does not wake a thread in accept.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(CLOSED_S)
        self._listening.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(CLOSED_S)


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Until either end closes."""
    for end in (one, other):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with selectors.DefaultSelector() as both:
        both.register(one, selectors.EVENT_READ, other)
        both.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in both.select():
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(CHUNK_BYTES)
                if not data:
                    return
                key.data.sendall(data)
