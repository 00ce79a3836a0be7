"""The echo and its probe, over real sockets: what both ends learn, and what strangers and floods do to it."""

import contextlib
import errno as errnos
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from thunderline.cluster.errors import Full
from thunderline.cluster.graph import Outcome
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End
from thunderline.process.entry import CannotStart
from thunderline.topology.echo import CONNECTION_COUNT_MAX, PER_ADDRESS_COUNT_MAX
from thunderline.topology.echo_messages import (
    ANSWER_BYTES,
    ASK_BYTES,
    TALLY_BYTES,
    Ask,
    Kind,
    pack_ask,
    speaker,
    unpack_answer,
    unpack_tally,
)
from thunderline.topology.measuring import bandwidth
from thunderline.topology.permits import Permits
from thunderline.topology.probe import Aim, Crossed, NotCrossed, probe
from thunderline.topology.sockets import receive
from topology.little_echo import HERE, OURS, TIMEOUT_S, A, B, C, LittleEcho, little_echo, until

LO = End("lo", Medium.LOOPBACK)
IPV6 = "::1"


def may_measure(permits: Permits, now_s: float) -> bool:
    try:
        return bool(permits.give(now_s))
    except Full:
        return False


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind((IPV6, 0))
    except OSError:
        return False
    return True


HOSTS = [HERE, pytest.param(IPV6, marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here"))]


@pytest.mark.parametrize("host", HOSTS)
def test_both_ends_learn_of_the_link_by_one_burst(host: str) -> None:
    with little_echo(host) as little:
        found = little.probe(address=host)
        assert isinstance(found, Crossed)
        assert found.local_address == host
        assert (found.path.leaves, found.path.arrives, found.path.returns) == (LO, LO, LO)
        until("the echo has told", lambda: little.heard)
        (heard,) = little.heard
        assert (heard.peer, heard.address, heard.peer_address) == (A, host, host)
        assert (heard.arrives, heard.returns) == (LO, LO)
        assert 0 < found.rtt_us < 50_000
        assert 0 < heard.rtt_us < 50_000


def test_an_echo_on_every_address_takes_both_families() -> None:
    with little_echo("0.0.0.0") as little:
        for host in [HERE, "127.0.0.2", *([IPV6] if has_ipv6() else [])]:
            found = little.probe(address=host)
            assert isinstance(found, Crossed), (host, found)
        until("all are told", lambda: len(little.heard) == (3 if has_ipv6() else 2))
        assert {one.address for one in little.heard} >= {HERE, "127.0.0.2"}


def test_the_median_of_many_bursts_is_far_below_what_a_ping_may_differ_by() -> None:
    """0.3 ms is what the RTT of a real link may differ from ping's; loopback's own is some microseconds."""
    with little_echo() as little:
        rtts = [one.rtt_us for _ in range(50) if isinstance(one := little.probe(), Crossed)]
    assert len(rtts) == 50
    assert statistics.median(rtts) < 300


# Who probes whom: how that ends, and whether the echo tells of it.
MEETINGS: dict[str, tuple[Callable[[LittleEcho], Crossed | NotCrossed], Outcome | None, bool]] = {
    "a member": (lambda one: one.probe(), None, True),
    "a member that looks for another node": (lambda one: one.probe(peer=C), Outcome.WRONG_NODE, False),
    "a node that is no member": (lambda one: one.probe(own=speaker(C, OURS)), None, False),
    "a member's name from another cluster": (
        lambda one: one.probe(own=speaker(A, "theirs")),
        Outcome.WRONG_NODE,
        False,
    ),
}


@pytest.mark.parametrize(("meet", "outcome", "tells"), MEETINGS.values(), ids=MEETINGS.keys())
def test_who_meets(meet: Callable[[LittleEcho], Crossed | NotCrossed], outcome: Outcome | None, tells: bool) -> None:
    with little_echo() as little:
        found = meet(little)
        assert (found.outcome if isinstance(found, NotCrossed) else None) is outcome
        until("the connection is over", lambda: little.echo.open_count == 0)
        assert bool(little.heard) == tells


def test_nobody_there_is_refused_and_a_silent_one_times_out() -> None:
    with socket.create_server((HERE, 0)) as silent, little_echo() as little:
        port = silent.getsockname()[1]
        begun_s = time.monotonic()
        found = probe(speaker(A, OURS), Aim(B, HERE, port), little.ends, TIMEOUT_S)
        assert found == NotCrossed(Outcome.TIMED_OUT, errnos.ETIMEDOUT)
        assert time.monotonic() - begun_s < TIMEOUT_S + 0.5
    closed = probe(speaker(A, OURS), Aim(B, HERE, port), little.ends, TIMEOUT_S)
    assert closed == NotCrossed(Outcome.REFUSED, errnos.ECONNREFUSED)


BAD: dict[str, bytes] = {
    "nothing": b"",
    "half a message": pack_ask(Ask(Kind.ECHO, speaker(A, OURS), bytes(16)))[: ASK_BYTES // 2],
    "another protocol": b"GET / HTTP/1.1\r\nHost: thunderline\r\nUser-Agent: curl\r\nAccept: */*\r\n\r\n",
    "another version": b"TLEC\xff" + bytes(ASK_BYTES),
    "noise": os.urandom(4096),
    "a permit that nobody gave": pack_ask(Ask(Kind.SINK, speaker(A, OURS), bytes(16))),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_bad_bytes_are_closed_on_and_the_echo_goes_on(data: bytes) -> None:
    with little_echo() as little:
        with little.raw() as connection:
            connection.sendall(data)
            # It may have closed already, with a reset where it had not read all.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert isinstance(little.probe(), Crossed)
        assert len(little.heard) <= 1


def test_an_answer_of_nonsense_is_a_failed_probe() -> None:
    def babble(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(ASK_BYTES)
            connection.sendall(b"\0" * ANSWER_BYTES)

    with socket.create_server((HERE, 0)) as listener, little_echo() as little:
        babbling = threading.Thread(target=babble, args=[listener])
        babbling.start()
        found = probe(speaker(A, OURS), Aim(B, HERE, listener.getsockname()[1]), little.ends, TIMEOUT_S)
        babbling.join(10)
    assert found == NotCrossed(Outcome.FAILED, errnos.EPROTO)


def test_a_member_that_changes_its_name_within_a_burst_is_not_heard() -> None:
    with little_echo() as little, little.raw() as connection:
        for node in (A, C):
            connection.sendall(pack_ask(Ask(Kind.ECHO, speaker(node, OURS), bytes(16))))
            if node == A:
                assert unpack_answer(receive(connection, ANSWER_BYTES, time.monotonic() + 5)).speaker.node == B
        assert connection.recv(1) == b""
        assert little.heard == []


def test_a_flood_of_open_connections_takes_neither_threads_nor_other_peers_away() -> None:
    with little_echo("0.0.0.0", timeout_s=5.0) as little:
        before = threading.active_count()
        flood = [little.raw() for _ in range(200)]
        try:
            until("the rest is closed", lambda: little.echo.open_count == PER_ADDRESS_COUNT_MAX)
            assert threading.active_count() - before <= PER_ADDRESS_COUNT_MAX
            # From another address, as another host is.
            with socket.socket() as other:
                other.bind(("127.0.0.9", 0))
                other.connect((HERE, little.port))
                other.sendall(pack_ask(Ask(Kind.ECHO, speaker(A, OURS), bytes(16))))
                assert unpack_answer(receive(other, ANSWER_BYTES, time.monotonic() + 5)).speaker.node == B
        finally:
            for one in flood:
                one.close()
        # Some of the flood may still wait to be accepted, on a busy machine.
        until("others get their turn", lambda: isinstance(little.probe(), Crossed))
    assert CONNECTION_COUNT_MAX >= 2 * PER_ADDRESS_COUNT_MAX


def test_who_waits_for_a_thread_when_the_echo_stops_is_closed_too() -> None:
    with little_echo(timeout_s=5.0) as little:
        # As on a machine that is too busy to start threads.
        little.echo._pool.shutdown()
        little.echo._pool = ThreadPoolExecutor(1)
        with contextlib.ExitStack() as kept:
            crowd = [kept.enter_context(little.raw()) for _ in range(3)]
            for one in crowd:
                # Too little for an ask: the thread is kept.
                one.sendall(b"!")
            until("all are accepted", lambda: little.echo.open_count == len(crowd))
            little.echo.stop()
            until("all are let go", lambda: little.echo.open_count == 0)


def test_connections_that_say_nothing_are_closed_after_the_time_of_a_probe() -> None:
    with little_echo(timeout_s=0.2) as little, little.raw() as connection:
        begun_s = time.monotonic()
        assert connection.recv(1) == b""
        assert 0.1 < time.monotonic() - begun_s < 5


def test_a_flood_of_bursts_is_told_at_its_pace() -> None:
    with little_echo() as little:
        begun_s = time.monotonic()
        for _ in range(200):
            little.probe()
        until("the connections are over", lambda: little.echo.open_count == 0)
        elapsed_s = time.monotonic() - begun_s
        assert 1 <= len(little.heard) <= elapsed_s / 0.05 + 2


def test_a_taken_port_is_a_reason_not_to_start() -> None:
    with little_echo() as first, pytest.raises(CannotStart, match=f"127.0.0.1:{first.port}"):
        first.echo.listen(HERE, first.port)


def test_bandwidth_needs_a_permit_that_works_once() -> None:
    with little_echo() as little:
        given_s = time.monotonic()
        permit = little.permits.give(given_s)
        aim = Aim(B, HERE, little.port)
        bits = bandwidth(speaker(A, OURS), aim, permit, 0.3, 1.0)
        # Loopback carries gigabits; a count of a wrong unit would be far off.
        assert 10**8 < bits < 10**13
        with little.raw() as connection:
            connection.sendall(pack_ask(Ask(Kind.SINK, speaker(A, OURS), permit)))
            assert connection.recv(1) == b""
        # All streams are over, once their threads have noticed: the next may have its own, also if no time has passed.
        until("another may measure", lambda: may_measure(little.permits, given_s))


def test_a_sink_counts_what_came() -> None:
    with little_echo() as little, little.raw() as connection:
        permit = little.permits.give(time.monotonic())
        connection.sendall(pack_ask(Ask(Kind.SINK, speaker(A, OURS), permit)))
        receive(connection, ANSWER_BYTES, time.monotonic() + 5)
        connection.sendall(bytes(1_000_000))
        connection.shutdown(socket.SHUT_WR)
        tally = unpack_tally(receive(connection, TALLY_BYTES, time.monotonic() + 5))
        assert tally.taken_bytes == 1_000_000
        assert tally.elapsed_us > 0


def test_a_stop_ends_connections_that_are_open() -> None:
    with little_echo(timeout_s=30.0) as little:
        connection = little.raw()
        until("it is open", lambda: little.echo.open_count == 1)
    with connection:
        assert connection.recv(1) == b""
