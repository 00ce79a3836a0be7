"""Undeploy of a second deployment while its rank starts, while it loads, and under a stream: nothing of it is left.

Every phase, with a little runner: tests/scheduler/test_stories_of_undeploy.py.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from installation import DEMO, Installation, until
from streams import Stream
from thunderline.client import SchedulerClient
from thunderline.v1 import cluster_pb2, scheduler_pb2

T = TypeVar("T")
OTHER = "gone-soon"
SOON_S = 60.0
PHASES = {
    "as it starts": {cluster_pb2.RANK_STATE_STARTING, cluster_pb2.RANK_STATE_PREPARED},
    "as it loads": {cluster_pb2.RANK_STATE_LOADING, cluster_pb2.RANK_STATE_WARMING},
    "under a stream": {cluster_pb2.RANK_STATE_READY},
}


def ask(up: Installation, what: Callable[[SchedulerClient], Awaitable[T]]) -> T:
    async def call() -> T:
        async with SchedulerClient(up.target("scheduler")) as client:
            return await what(client)

    return asyncio.run(call())


def states(up: Installation) -> set[int]:
    """Of the ranks of the second deployment; of it itself 0 is left when it has none."""
    found = [one for one in ask(up, lambda client: client.deployments()) if one.spec.name == OTHER]
    return {rank.state for one in found for rank in one.ranks} | {0 for _ in found}


async def told(client: SchedulerClient) -> list[scheduler_pb2.Event]:
    return [event async for event in client.watch_events(kept_only=True) if event.subject == OTHER]


def left(up: Installation) -> tuple[dict[int, str], set[Path]]:
    return up.processes(), set((up.home / "run/ranks").glob("*.map"))


@pytest.mark.parametrize("phase", PHASES if os.environ.get("PROVE") else ["as it loads"])
def test_nothing_is_left(fresh: Installation, phase: str) -> None:
    until("a good answer", fresh.answers, SOON_S)
    before, number = left(fresh), max((one.number for one in ask(fresh, told)), default=0)
    spec = cluster_pb2.DeploymentSpec(name=OTHER, model=str(fresh.home / "models" / DEMO))
    ask(fresh, lambda client: client.deploy(spec))
    until("its phase", lambda: states(fresh) & PHASES[phase], SOON_S, every_s=0.01)
    stream = Stream(fresh.url, 1)
    if phase == "under a stream":
        stream.body["model"] = OTHER
        stream.start()
        until("a token", lambda: stream.events, SOON_S)
    assert left(fresh)[0] != before[0], "it has a process"
    ask(fresh, lambda client: client.undeploy(OTHER))
    until("it to be forgotten", lambda: not states(fresh), SOON_S)
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
