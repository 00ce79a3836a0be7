"""The prober with a real echo: what is tried when, what a late tick forgives, and that a probe is answered by one."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from thunderline.cluster.graph import Outcome
from thunderline.cluster.limits import Limits
from thunderline.cluster.links import LinkState
from thunderline.cluster.media import Medium
from thunderline.cluster.members import MemberState
from thunderline.cluster.paths import End
from thunderline.topology.echo_messages import Speaker, speaker
from thunderline.topology.ends import Ends
from thunderline.topology.health import Health
from thunderline.topology.members import Members, Peer
from thunderline.topology.probe import Aim, NotCrossed
from thunderline.topology.prober import Prober, works
from thunderline.topology.probes import Echoed, Row
from topology.little_echo import HERE, OURS, A, B, C, LittleEcho, little_echo
from topology.little_network import free_ports, until

LIMITS = Limits(probe_period_s=0.2, probe_timeout_s=0.3)
LO = End("lo", Medium.LOOPBACK)
# In 127/8, but nobody listens on this port there.
ELSEWHERE = "127.0.0.5"


def roster(*peers: Peer) -> Members:
    return Members({one.node: one for one in peers}, is_complete=True)


def peer(
    little: LittleEcho,
    *addresses: str,
    state: MemberState = MemberState.ALIVE,
    port: int = 0,
    life: tuple[int, str] = (1, ""),
) -> Peer:
    return Peer(B, state, life, addresses or (HERE,), port or little.port, 1)


@contextlib.asynccontextmanager
async def probing(little: LittleEcho, limits: Limits = LIMITS) -> AsyncIterator[Prober]:
    prober = Prober(speaker(A, OURS), little.ends, limits, lambda: None)
    running = asyncio.create_task(prober.run())
    try:
        yield prober
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def row(prober: Prober, address: str = HERE) -> Row:
    return prober.rows[(B, address)]


def test_only_what_always_answers_shares_a_thread() -> None:
    health = Health(LinkState.UP, (50,))
    steady = [Row(B, f"10.0.0.{number}", Outcome.ANSWERED, health=health) for number in (1, 2)]
    slow = Row(B, "10.0.0.3", Outcome.ANSWERED, health=replace(health, state=LinkState.DEGRADED))
    missed, new = Row(B, "10.0.0.4", Outcome.TIMED_OUT, health=health), Row(B, "10.0.0.5")
    assert works([new, steady[0], slow, missed, steady[1]]) == [steady, [new], [slow], [missed]]
    assert works([new]) == [[new]] and works([]) == []


async def test_of_many_that_fall_silent_at_once_none_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind one switch, say. What swallows packets on one machine is refused on another."""

    def silent(_: Speaker, __: Aim, ___: Ends, timeout_s: float) -> NotCrossed:
        time.sleep(timeout_s)
        return NotCrossed(Outcome.TIMED_OUT, 110)

    monkeypatch.setattr("thunderline.topology.prober.probe", silent)
    health = Health(LinkState.UP, (50,))
    with little_echo() as little:
        async with probing(little, Limits(probe_period_s=0.5, probe_timeout_s=0.5)) as prober:
            prober.follow(roster(peer(little, *(f"127.0.0.{number}" for number in range(10, 20)))))
            rows = prober.rows.items()
            prober.rows = {key: replace(one, outcome=Outcome.ANSWERED, health=health, tried_s=0.0) for key, one in rows}
            begun_s = time.monotonic()
            await until("all are found silent", lambda: all(one.failure_count for one in prober.rows.values()))
            # One after the other the first six take three seconds.
            assert time.monotonic() - begun_s < 2.8


async def test_every_address_is_tried_at_once_and_again_each_period() -> None:
    with little_echo() as little:
        async with probing(little) as prober:
            begun_s = time.monotonic()
            prober.follow(roster(peer(little, HERE, ELSEWHERE)))
            await until("one answers", lambda: row(prober).outcome is Outcome.ANSWERED)
            assert time.monotonic() - begun_s < 1
            await until("the other is refused twice", lambda: row(prober, ELSEWHERE).failure_count >= 2)
            assert row(prober, ELSEWHERE).outcome is Outcome.REFUSED
            await until("it has told several", lambda: len(little.heard) >= 4)
            gaps_s = [after.at_s - before.at_s for before, after in zip(little.heard, little.heard[1:], strict=False)]
            assert min(gaps_s) > 0.8 * LIMITS.probe_period_s
            assert row(prober).health is not None
            assert prober.tried_at_s[(B, HERE)] == pytest.approx(time.time(), abs=5)


async def test_a_peer_that_comes_back_is_tried_at_once() -> None:
    slow = Limits(probe_period_s=30.0, probe_timeout_s=0.3)
    closed = free_ports(1)[0]
    with little_echo() as little:
        async with probing(little, slow) as prober:
            prober.follow(roster(peer(little, port=closed)))
            await until("it is refused", lambda: row(prober).failure_count == 1)
            prober.follow(roster(peer(little, life=(2, ""))))
            await until("it answers", lambda: row(prober).outcome is Outcome.ANSWERED)


async def test_a_peer_that_is_heard_is_probed_back_at_once() -> None:
    slow = Limits(probe_period_s=30.0, probe_timeout_s=0.3)
    closed = free_ports(1)[0]
    with little_echo() as little:
        async with probing(little, slow) as prober:
            prober.follow(roster(peer(little, port=closed)))
            await until("it is refused", lambda: row(prober).failure_count == 1)
            # Its echo is there now, and no card tells of it: only its probe does.
            prober._members = roster(peer(little))
            prober.heard(Echoed(B, HERE, HERE, LO, LO, 50, time.monotonic()))
            await until("it answers", lambda: row(prober).outcome is Outcome.ANSWERED)
            assert [one.last.peer for one in prober.arrivals.values()] == [B]


async def test_an_address_that_only_the_peers_probe_shows_has_a_row() -> None:
    with little_echo("0.0.0.0") as little:
        async with probing(little) as prober:
            prober.follow(roster(peer(little)))
            prober.heard(Echoed(B, HERE, "127.0.0.3", LO, LO, 50, time.monotonic()))
            await until("it has a row", lambda: (B, "127.0.0.3") in prober.rows)
            await until("it is tried", lambda: row(prober, "127.0.0.3").outcome is Outcome.ANSWERED)
            # Nothing comes from there any more.
            await until("it is forgotten", lambda: (B, "127.0.0.3") not in prober.rows)


async def test_who_is_no_member_is_not_heard_and_who_has_left_is_forgotten() -> None:
    with little_echo() as little:
        async with probing(little) as prober:
            prober.follow(roster(peer(little)))
            prober.heard(Echoed(C, HERE, HERE, LO, LO, 50, time.monotonic()))
            prober.heard(Echoed(B, HERE, HERE, LO, LO, 50, time.monotonic()))
            await until("the member is heard", lambda: {one.last.peer for one in prober.arrivals.values()} == {B})
            await until("it answers", lambda: row(prober).outcome is Outcome.ANSWERED)
            prober.follow(roster())
            assert (prober.rows, prober.arrivals, prober.tried_at_s) == ({}, {}, {})


async def test_a_link_goes_down_when_nobody_answers_any_more() -> None:
    with socket.socket() as silent, little_echo() as little:
        # Takes connections, and never answers.
        silent.bind((HERE, 0))
        silent.listen(64)
        async with probing(little) as prober:
            prober.follow(roster(peer(little)))
            await until("it is UP", lambda: row(prober).health is not None)
            prober.follow(roster(peer(little, port=silent.getsockname()[1])))
            await until("it is DOWN", lambda: state(prober) is LinkState.DOWN)
            assert row(prober).outcome is Outcome.TIMED_OUT
            prober.follow(roster(peer(little)))
            await until("it is UP again", lambda: state(prober) is LinkState.UP)


def state(prober: Prober) -> LinkState | None:
    health = row(prober).health
    return health.state if health else None


async def test_who_was_asleep_judges_nobody_for_one_period() -> None:
    closed = free_ports(1)[0]
    with little_echo() as little:
        async with probing(little) as prober:
            prober.follow(roster(peer(little)))
            await until("it answers", lambda: row(prober).outcome is Outcome.ANSWERED)
            # Stands still, as a machine that sleeps does.
            time.sleep(1.4)  # noqa: ASYNC251
            woken_s = time.monotonic()
            prober._members = roster(peer(little, port=closed))
            await until("it is refused", lambda: row(prober).outcome is Outcome.REFUSED)
            assert time.monotonic() - woken_s > LIMITS.probe_period_s
