"""Undeploy in each phase, over real sockets and a real store: nothing is left, nothing is taken for a crash, and who
asked is told. test_undeploy.py has the decisions, one by one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scheduler.little_runner import ABSENT, CRASH, FIRST, LOADING, READY
from scheduler.little_scheduler import LIMITS, House, Life, house, series
from thunderline.cluster.errors import ClusterError, InstanceFailed, NotFound
from thunderline.v1 import cluster_pb2, scheduler_pb2

Phase = Callable[[House, Life], Awaitable[None]]
# Where a rank stands as it is told to end: rank 0 of the first epoch unless another is named.
STARTING, PREPARED, WARMING = (
    cluster_pb2.RANK_STATE_STARTING,
    cluster_pb2.RANK_STATE_PREPARED,
    cluster_pb2.RANK_STATE_WARMING,
)
ANSWER_S = 15.0
FAILED_ONCE = "the last epoch ended: SIGNAL while LOADING: SIGSEGV"


def rank_in(state: cluster_pb2.RankState.ValueType) -> Phase:
    async def reach(home: House, life: Life) -> None:
        if state in (STARTING, PREPARED):
            home.runner.ignores = 1
        home.runner.holds_loading = state != READY
        await life.deploy()
        before = PREPARED if state == STARTING else LOADING if state == WARMING else state
        await life.until("its phase", lambda: home.runner.states().get(1) == before)
        if state != before:
            home.runner.move(1, state)
        await life.until("it to be seen", lambda: life.seen[-1][0] == ("READY" if state == READY else "STARTING"))

    return reach


async def waits_for_files(home: House, life: Life) -> None:
    home.runner.has_files.clear()
    await life.deploy()
    await life.until("the progress", lambda: ("WAITING", "org/m is being fetched, 43%") in life.seen)


async def waits_for_the_next(home: House, life: Life) -> None:
    home.runner.fails = [CRASH]
    await life.deploy()
    await life.until("the wait", lambda: ("WAITING", FAILED_ONCE) in life.seen)


async def repairs(home: House, life: Life) -> None:
    await rank_in(READY)(home, life)
    home.runner.holds_loading = True
    home.runner.move(1, cluster_pb2.RANK_STATE_FAILED, CRASH)
    await life.until("REPAIRING", lambda: life.seen[-1][0] == "REPAIRING" and home.runner.states().get(2) == LOADING)


async def crash_loop(home: House, life: Life) -> None:
    home.runner.fails = [CRASH] * 5
    await life.deploy()
    await life.until_state("CRASH_LOOP")


PHASES: dict[str, Phase] = {
    "WAITING, for files": waits_for_files,
    "WAITING, for the next attempt": waits_for_the_next,
    "STARTING": rank_in(STARTING),
    "STARTING, PREPARED": rank_in(PREPARED),
    "STARTING, LOADING": rank_in(LOADING),
    "STARTING, WARMING": rank_in(WARMING),
    "READY": rank_in(READY),
    "REPAIRING": repairs,
    "CRASH_LOOP": crash_loop,
}
# There a request is refused at once.
NOBODY_WAITS = {"CRASH_LOOP"}


async def end_of(life: Life) -> ClusterError:
    """How a request of the client library ends, with all its resumes."""
    try:
        async for _ in life.client.generate(life.generation(), ANSWER_S):
            pass
    except ClusterError as error:
        return error
    raise AssertionError("it was answered")


def runs_until_its_rank_ends(home: House) -> Callable[[cluster_pb2.Generation, Any], AsyncIterator[bytes]]:
    """As at a runner: streams of a rank that is told to end fail with it."""

    async def answer(_: cluster_pb2.Generation, __: Any) -> AsyncIterator[bytes]:
        yield FIRST
        while home.runner.states()[1] != ABSENT:
            seen = home.runner.changes.version
            await home.runner.changes.after(seen)
        raise InstanceFailed("rank 0 is told to end")

    return answer


async def told(life: Life) -> list[scheduler_pb2.Event]:
    """Everything, to the end."""
    found: list[scheduler_pb2.Event] = []
    async with asyncio.timeout(ANSWER_S):
        async for event in life.client.watch_events():
            found.append(event)
            if event.kind == "UNDEPLOYED":
                return found
    raise AssertionError("the watch ended")


@pytest.mark.parametrize("phase", PHASES)
async def test_nothing_is_left_and_whoever_asked_is_told(tmp_path: Path, phase: str) -> None:
    # The wait is where it waits for the next attempt; elsewhere it costs time.
    wait_s = LIMITS.epoch_wait_min_s if phase.startswith("WAITING") else 0.02
    limits = replace(LIMITS, epoch_wait_min_s=wait_s, epoch_wait_max_s=wait_s)
    async with house(tmp_path) as home, home.scheduler(limits) as life:
        home.runner.answer = runs_until_its_rank_ends(home)
        await PHASES[phase](home, life)
        # One of them runs where it is READY, the other waits.
        asked = [asyncio.create_task(end_of(life)) for _ in range(0 if phase in NOBODY_WAITS else 2)]
        waiting = max(0, len(asked) - (phase == "READY"))
        await life.until("the requests", lambda: life.admission.depth("m") == waiting)
        commands, begun_s = len(home.runner.commands), time.time()
        await life.client.undeploy("m")
        for one in asked:
            assert isinstance(await asyncio.wait_for(one, ANSWER_S), NotFound)
        await life.until("it to be forgotten", lambda: life.control.named("m") is None)
        assert set(home.runner.states().values()) <= {ABSENT}
        assert "PREPARED" not in {goal for goal, _ in home.runner.commands[commands:]}, "nothing new starts"
        assert home.epochs() == []
        await life.until("its series to go", lambda: series() == set())
        events = [event for event in await told(life) if event.time.ToNanoseconds() / 1e9 > begun_s]
        for event in events[:-1]:
            assert (event.kind, event.done) == ("EPOCH_ENDED", "undeployed"), events
            assert "STOPPED" in event.text or "undeployed" in event.text, event
        assert not life.task.done()
