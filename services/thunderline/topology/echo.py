"""The echo that peers probe: a TCP server with blocking sockets in threads.

An event loop would add its own waits to what is measured: 0.3 ms, and 5 ms for one in a hundred.
"""

import asyncio
import contextlib
import errno as errnos
import functools
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address, parse
from thunderline.cluster.paths import End
from thunderline.process.entry import CannotStart
from thunderline.topology.echo_messages import (
    ASK_BYTES,
    BURST_COUNT,
    Answer,
    Ask,
    BadMessage,
    Kind,
    Speaker,
    Tally,
    nonce_of,
    pack_answer,
    pack_tally,
    unpack_ask,
    with_nonce,
)
from thunderline.topology.ends import Ends, tell_arrivals
from thunderline.topology.permits import MEASUREMENT_S, Permits
from thunderline.topology.probes import Echoed
from thunderline.topology.sockets import left_s, own_address, receive, wait_in_kernel

# Each has a thread. A burst over a slow VPN takes 0.3 s: 64 at a time are 200 probes a second.
CONNECTION_COUNT_MAX = 64
# So that one who only opens connections leaves room for others. Nodes behind one router share an address.
PER_ADDRESS_COUNT_MAX = 16
BACKLOG = 128
# Bursts between the same two addresses are told no faster; and so many pairs of them are watched for that.
TELL_GAP_S, TELL_COUNT_MAX = 0.05, 4096
# Out of file descriptors: whoever waits is still there a little later.
EXHAUSTED_WAIT_S = 0.1
# 100 Gb/s for the time of a measurement.
SINK_BYTES_MAX = 300 * 10**9
SINK_BUFFER_BYTES = 256 * 1024
WILDCARDS = {"0.0.0.0", "::", "[::]", ""}
# A system without IPv6.
NO_IPV6 = {errnos.EAFNOSUPPORT, errnos.EADDRNOTAVAIL, errnos.EPROTONOSUPPORT, errnos.ENOPROTOOPT}


class Echo:
    """`heard` is called from a thread with each burst of a member; `members` may be replaced at any time."""

    def __init__(
        self, speaker: Speaker, ends: Ends, permits: Permits, timeout_s: float, heard: Callable[[Echoed], None]
    ) -> None:
        self.members: frozenset[NodeId] = frozenset()
        self._speaker = speaker
        self._ends = ends
        self._permits = permits
        self._timeout_s = timeout_s
        self._heard = heard
        self._pool = ThreadPoolExecutor(CONNECTION_COUNT_MAX, thread_name_prefix="echo")
        self._acceptor = ThreadPoolExecutor(1, thread_name_prefix="echo-accept")
        self._lock = threading.Lock()
        self._open: dict[socket.socket, str] = {}
        self._told_s: dict[tuple[NodeId, str, str], float] = {}
        self._listeners: list[socket.socket] = []
        self._awake, self._wake = socket.socketpair()
        self._stopped = self._is_accepting = False
        self._bug: BaseException | None = None

    @property
    def open_count(self) -> int:
        with self._lock:
            return len(self._open)

    def listen(self, host: str, port: int) -> int:
        """The port. A wildcard is every address, IPv6 too where the system has it. Raises CannotStart."""
        try:
            for one in ("0.0.0.0", "::") if host in WILDCARDS else (_resolved(host),):
                try:
                    self._listeners.append(_listener(one, port))
                except OSError as error:
                    if one == "::" and error.errno in NO_IPV6:
                        continue
                    raise
                port = self._listeners[0].getsockname()[1]
        except (OSError, ValueError) as error:
            self.stop()
            reason = getattr(error, "strerror", None) or error
            raise CannotStart(f"the echo cannot listen on {host}:{port}: {reason}") from None
        return port

    async def run(self) -> None:
        """`accept` in a thread of its own. Raises what a bug has raised."""
        await asyncio.get_running_loop().run_in_executor(self._acceptor, self.accept)

    def accept(self) -> None:
        """Takes connections until `stop`. Blocking. Raises what a bug has raised in any of its threads."""
        self._is_accepting = True
        try:
            with selectors.DefaultSelector() as selector:
                for one in (*self._listeners, self._awake):
                    selector.register(one, selectors.EVENT_READ)
                while not self._stopped:
                    for key, _ in selector.select():
                        if isinstance(key.fileobj, socket.socket) and key.fileobj is not self._awake:
                            self._take(key.fileobj)
                    if self._bug is not None:
                        raise self._bug
        finally:
            self._close()

    def stop(self) -> None:
        """Ends `accept` and every connection."""
        self._stopped = True
        if self._is_accepting:
            with contextlib.suppress(OSError):
                self._wake.send(b"!")
        else:
            self._close()
        self._acceptor.shutdown(wait=False)
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        for one in (*self._listeners, self._awake, self._wake):
            one.close()

    def _take(self, listener: socket.socket) -> None:
        try:
            connection, peer = listener.accept()
        except (BlockingIOError, ConnectionError):
            # It went before we looked.
            return
        except OSError:
            time.sleep(EXHAUSTED_WAIT_S)
            return
        address = str(parse(str(peer[0]).split("%")[0]))
        with self._lock:
            crowd = Counter(self._open.values())
            is_full = len(self._open) >= CONNECTION_COUNT_MAX or crowd[address] >= PER_ADDRESS_COUNT_MAX
            if not is_full and not self._stopped:
                self._open[connection] = address
        if is_full or self._stopped:
            connection.close()
            return
        try:
            work = self._pool.submit(self._serve, connection, address)
        except RuntimeError:
            # `stop` was quicker.
            self._let_go(connection)
        else:
            work.add_done_callback(functools.partial(self._ended, connection))

    def _ended(self, connection: socket.socket, work: "Future[None]") -> None:
        """Also of one that `stop` has cancelled before a thread had it."""
        self._let_go(connection)
        if not work.cancelled() and (bug := work.exception()) is not None:
            self._bug = bug
            with contextlib.suppress(OSError):
                self._wake.send(b"!")

    def _let_go(self, connection: socket.socket) -> None:
        connection.close()
        with self._lock:
            self._open.pop(connection, None)

    def _serve(self, connection: socket.socket, address: str) -> None:
        """Whatever it gets, it answers or gives up; `_ended` closes."""
        with contextlib.suppress(OSError, BadMessage):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wait_in_kernel(connection, self._timeout_s)
            asked = receive(connection, ASK_BYTES, time.monotonic() + self._timeout_s)
            first = unpack_ask(asked)
            own = str(parse(own_address(connection)))
            arrives = self._ends.arrives(connection, own)
            returns = self._ends.leaves(address, own)
            answer = Answer(first.kind, self._speaker, first.nonce, own, arrives, returns)
            if first.speaker.cluster != self._speaker.cluster:
                # It learns whom it has dialled, and nothing follows.
                connection.sendall(pack_answer(answer))
            elif first.kind is Kind.SINK:
                self._sink(connection, first, answer)
            else:
                self._echo(connection, asked, answer, address, first.speaker.node)

    def _echo(self, connection: socket.socket, asked: bytes, answer: Answer, peer_address: str, peer: NodeId) -> None:
        """Raises OSError, BadMessage."""
        message, told, rtts_us, sent_ns = asked, pack_answer(answer), list[int](), 0
        deadline_s = time.monotonic() + (BURST_COUNT + 1) * self._timeout_s
        try:
            for number in range(BURST_COUNT):
                if number:
                    message = receive(connection, ASK_BYTES, min(deadline_s, time.monotonic() + self._timeout_s))
                    rtts_us.append((time.perf_counter_ns() - sent_ns) // 1000)
                    if message != with_nonce(asked, nonce_of(message)):
                        raise BadMessage("another one speaks")
                connection.sendall(with_nonce(told, nonce_of(message)))
                sent_ns = time.perf_counter_ns()
        except OSError:
            # The caller has what it wants, or is gone.
            pass
        if rtts_us and answer.arrives is not None:
            self._tell(peer, answer, answer.arrives, peer_address, min(rtts_us))

    def _tell(self, node: NodeId, answer: Answer, arrives: End, peer_address: str, rtt_us: int) -> None:
        """Of members, and not each of a flood: anybody may say a member's name."""
        if node not in self.members:
            return
        found = Echoed(node, answer.address, peer_address, arrives, answer.returns, max(rtt_us, 1), time.monotonic())
        with self._lock:
            if found.at_s - self._told_s.get(found.key, 0.0) < TELL_GAP_S:
                return
            if len(self._told_s) >= TELL_COUNT_MAX:
                self._told_s.clear()
            self._told_s[found.key] = found.at_s
        self._heard(found)

    def _sink(self, connection: socket.socket, first: Ask, answer: Answer) -> None:
        """Takes bytes and says how many came in which time. Raises OSError."""
        if not self._permits.take(first.nonce, time.monotonic()):
            return
        try:
            deadline_s = time.monotonic() + MEASUREMENT_S
            connection.settimeout(self._timeout_s)
            connection.sendall(pack_answer(answer))
            buffer, taken_bytes, begun_s = bytearray(SINK_BUFFER_BYTES), 0, 0.0
            while taken_bytes < SINK_BYTES_MAX:
                connection.settimeout(left_s(deadline_s))
                count = connection.recv_into(buffer)
                begun_s = begun_s or time.monotonic()
                if count == 0:
                    break
                taken_bytes += count
            elapsed_us = int((time.monotonic() - begun_s) * 1e6)
            connection.sendall(pack_tally(Tally(taken_bytes, max(elapsed_us, 1))))
        finally:
            self._permits.give_back(first.nonce)


def _resolved(host: str) -> str:
    """Of a name its first address. Raises OSError."""
    bare = host.strip("[]")
    return bare if is_address(bare) else str(socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)[0][4][0])


def _listener(host: str, port: int) -> socket.socket:
    """Raises OSError, ValueError."""
    family = socket.AF_INET6 if parse(host).version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        tell_arrivals(listener)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            # Linux: a connection is there when its first ask is, so that no thread waits for that.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
