"""Undeploy of a second deployment as its rank starts, loads, warms up, and under a stream: nothing of it is left.

Every phase, with a little runner: tests/scheduler/test_stories_of_undeploy.py.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from installation import DEMO, Installation, until
from streams import Stream
from thunderline.client import SchedulerClient
from thunderline.cluster.ranks import RankState
from thunderline.runner.rank_process import read_mark
from thunderline.v1 import cluster_pb2, scheduler_pb2

T = TypeVar("T")
OTHER = "gone-soon"
SOON_S = 60.0
# PREPARED lasts for a moment alone; the little runner's stories stop there.
PHASES = {
    "as it starts": RankState.STARTING,
    "as it loads": RankState.LOADING,
    "as it warms up": RankState.WARMING,
    "under a stream": RankState.READY,
}


def ask(up: Installation, what: Callable[[SchedulerClient], Awaitable[T]]) -> T:
    async def call() -> T:
        async with SchedulerClient(up.target("scheduler")) as client:
            return await what(client)

    return asyncio.run(call())


def is_deployed(up: Installation) -> bool:
    return any(one.spec.name == OTHER for one in ask(up, lambda client: client.deployments()))


def phase_of(up: Installation, others: set[Path]) -> RankState | None:
    """Where the rank of the second deployment stands now, by its own word: that of the map that is not of `others`."""
    marks = [read_mark(path) for path in maps(up) - others]
    return next((mark.state for mark in marks if mark is not None), None)


async def undeploy_in(up: Installation, phase: RankState, others: set[Path]) -> list[RankState | None]:
    """As soon as it is there; where the rank stood as that was sent, and as it was answered."""
    async with SchedulerClient(up.target("scheduler")) as client, asyncio.timeout(SOON_S):
        await client.deployments()
        while (sent := phase_of(up, others)) is not phase:
            await asyncio.sleep(0.002)
        await client.undeploy(OTHER)
        return [sent, phase_of(up, others)]


async def told(client: SchedulerClient) -> list[scheduler_pb2.Event]:
    return [event async for event in client.watch_events(kept_only=True) if event.subject == OTHER]


def maps(up: Installation) -> set[Path]:
    return set((up.home / "run/ranks").glob("*.map"))


def left(up: Installation) -> tuple[dict[int, str], set[Path]]:
    return up.processes(), maps(up)


@pytest.mark.parametrize("phase", PHASES if os.environ.get("PROVE") else ["as it loads"])
def test_nothing_is_left(fresh: Installation, phase: str, evidence: dict[str, Any]) -> None:
    until("a good answer", fresh.answers, SOON_S)
    before, number = left(fresh), max((one.number for one in ask(fresh, told)), default=0)
    spec = cluster_pb2.DeploymentSpec(name=OTHER, model=str(fresh.home / "models" / DEMO))
    ask(fresh, lambda client: client.deploy(spec))
    stream = Stream(fresh.url, 1)
    if phase == "under a stream":
        until("READY", lambda: fresh.answers(OTHER), SOON_S)
        stream.body["model"] = OTHER
        stream.start()
        until("a token", lambda: stream.events, SOON_S)
    sent, answered = asyncio.run(undeploy_in(fresh, PHASES[phase], before[1]))
    assert sent is PHASES[phase]
    until("it to be forgotten", lambda: not is_deployed(fresh), SOON_S)
    assert left(fresh) == before
    if phase == "under a stream":
        stream.join(SOON_S)
        assert (stream.end, stream.error["code"]) == ("typed error", "model_not_found"), stream.error
    until("the news of it", lambda: ask(fresh, told)[-1].kind == "UNDEPLOYED", SOON_S)
    story = [(one.kind, one.done) for one in ask(fresh, told) if one.number > number]
    ends = [("EPOCH_ENDED", "undeployed"), ("UNDEPLOYED", "")]
    assert story[0][0] == "DEPLOYED" and story[-2:] == ends, story
    assert [kind for kind, _ in story].count("EPOCH_ENDED") == 1, "nothing of it was taken for a crash"
    assert fresh.answers()
    evidence[f"undeployed_{phase.replace(' ', '_')}"] = [one.name if one else "gone" for one in (sent, answered)]
