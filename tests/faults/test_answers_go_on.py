"""kill -9 and worse under eight streams: every stream equals the undisturbed one, and the pause is short."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Coroutine
from typing import Any

import psutil
import pytest

from faults.followers import Follower, first_differences, follow, p95, prefill_s, undisturbed_answers
from installation import Installation
from patience import PATIENCE
from thunderline.client import SchedulerClient
from thunderline.v1 import cluster_pb2

# Of the rank, and of each role.
ROUNDS = 20 if os.environ.get("PROVE") else 1
CONTROL = ("discovery", "topology", "scheduler", "runner")
PAUSE_MAX_S = 2.0 * PATIENCE
RANK_MARGIN_S = 1.0 * PATIENCE
READY_S = 60.0


@pytest.fixture(scope="module")
def undisturbed(fresh: Installation) -> list[object]:
    return undisturbed_answers(fresh)


@pytest.mark.timeout(3600)
def test_roles_that_are_killed_cost_a_pause_and_nothing_else(
    fresh: Installation, undisturbed: list[object], evidence: dict[str, Any]
) -> None:
    draw = random.Random(5)
    rank, pauses = fresh.pid("rank"), {role: list[float]() for role in CONTROL}
    differences = list[str]()
    rounds = draw.sample(CONTROL, k=len(CONTROL) * ROUNDS, counts=[ROUNDS] * len(CONTROL))
    for number, role in enumerate(rounds):
        pid = fresh.pid(role)
        followers, killed_s = asyncio.run(
            follow(fresh, lambda pid=pid: os.kill(pid, signal.SIGKILL), draw.random())  # type: ignore[misc]
        )
        differences += first_differences(followers, undisturbed)
        assert not differences, f"round {number}, {role}: {differences}"
        assert fresh.pid("rank") == rank, "the model was loaded again"
        assert fresh.pid(role, other_than=pid) != pid
        pauses[role] += [follower.pause_s(killed_s) for follower in followers]
    for role, found in pauses.items():
        evidence[f"pause_p95_s_{role}"] = p95(found)
        evidence[f"kills_{role}"] = rounds.count(role)
    everything = [pause for found in pauses.values() for pause in found]
    evidence["pause_p95_s_roles"] = p95(everything)
    evidence["streams_equal_roles"] = len(everything)
    evidence["first_differences_roles"] = len(differences)
    late = {role: sorted(found) for role, found in pauses.items() if p95(found) > PAUSE_MAX_S}
    assert not late, late


async def ready_again(up: Installation, pid: int, starts_s: list[float]) -> None:
    """Notes the seconds from the exec of the next rank until the deployment is READY again."""
    async with asyncio.timeout(READY_S), SchedulerClient(up.target("scheduler")) as client:
        async for cluster in client.watch_cluster():
            for one in cluster.deployments:
                ranks = [rank for rank in one.ranks if rank.pid not in (0, pid)]
                if one.state == cluster_pb2.DEPLOYMENT_STATE_READY and ranks:
                    starts_s.append(time.time() - psutil.Process(ranks[0].pid).create_time())
                    return
    raise AssertionError("the watch ended")


@pytest.mark.timeout(1800)
def test_a_rank_that_is_killed_costs_its_start_and_a_prefill_and_nothing_else(
    fresh: Installation, undisturbed: list[object], evidence: dict[str, Any]
) -> None:
    draw = random.Random(6)
    over, pauses, starts, prefills = list[float](), list[float](), list[float](), list[float]()
    differences = list[str]()
    for number in range(ROUNDS):
        how = (signal.SIGKILL, signal.SIGABRT)[number % 2]
        pid = fresh.pid("rank")

        def fault(pid: int = pid, how: signal.Signals = how) -> Coroutine[Any, Any, None]:
            os.kill(pid, how)
            return ready_again(fresh, pid, starts)

        followers, killed_s = asyncio.run(follow(fresh, fault, draw.random()))
        differences += first_differences(followers, undisturbed)
        assert not differences, f"round {number}, {how.name}: {differences}"
        assert fresh.pid("rank", other_than=pid) != pid
        prefills.append(asyncio.run(prefill_s(fresh, followers)))
        pauses += [follower.pause_s(killed_s) for follower in followers]
        over += [follower.pause_s(killed_s) - starts[-1] - prefills[-1] for follower in followers]
        # Five crashes in a row would open the circuit: each epoch has answered by now.
    evidence["rank_pause_p95_s"] = p95(pauses)
    evidence["rank_start_s"] = round(sorted(starts)[len(starts) // 2], 2)
    evidence["rank_prefill_s"] = round(sorted(prefills)[len(prefills) // 2], 2)
    evidence["rank_pause_beyond_start_and_prefill_p95_s"] = p95(over)
    evidence["streams_equal_rank"] = len(pauses)
    evidence["first_differences_rank"] = len(differences)
    assert p95(over) <= RANK_MARGIN_S, sorted(over)


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (8, 8), (20, 19), (21, 20), (160, 152), (640, 608)])
def test_p95_is_the_nearest_rank(count: int, rank: int) -> None:
    assert p95([float(value) for value in range(count, 0, -1)]) == rank


@pytest.mark.parametrize(
    ("pieces", "finish", "error", "expected"),
    [
        ([1, 2, 3], "stop 1 3", "", []),
        ([1, 9, 3], "stop 1 3", "", ["piece 1: 9 for 2"]),
        ([1, 2], "stop 1 3", "", ["piece 2: None for 3"]),
        ([1, 2, 3], "length 1 3", "", ["('length 1 3', '') for ('stop 1 3', '')"]),
        ([1, 2], "", "LOST: why", ["error LOST: why"]),
    ],
)
def test_a_stream_that_differs_is_named(pieces: list[int | str], finish: str, error: str, expected: list[str]) -> None:
    equal, other = Follower([1], finish="stop"), Follower(pieces, finish=finish, error=error)
    found = first_differences([equal, other], [equal.answer, ((1, 2, 3), "stop 1 3", "")])
    assert found == [f"stream 1, {{'temperature': 0.0}}: {words}" for words in expected]
