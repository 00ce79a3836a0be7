"""Two deployments of one model, over real sockets: who answers, under whose name it is counted, where a resume goes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from scheduler.little_client import answered, calling
from scheduler.little_runner import FIRST, LAST, READY, finished, first_then
from scheduler.little_scheduler import NAMES, ROOM, House, Life, served
from thunderline.cluster.errors import NotFound
from thunderline.v1 import cluster_pb2

DEAD = cluster_pb2.ExitCause(name="SIGNAL", detail="SIGKILL", state=READY)


async def states(life: Life) -> dict[str, str]:
    return {one.spec.name: NAMES[one.state] for one in await life.client.deployments()}


@contextlib.asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[House, Life]]:
    """ "m", which bears its model's name, in epoch 1, and "n" in epoch 2; both READY."""
    async with served(folder, ROOM) as (home, life):
        await life.client.deploy(cluster_pb2.DeploymentSpec(name="n", model="org/m"))
        async with asyncio.timeout(10):
            while await states(life) != {"m": "READY", "n": "READY"}:
                await asyncio.sleep(0.01)
        yield home, life


def ended(deployment: str, outcome: str) -> float:
    labels = {"deployment": deployment, "outcome": outcome}
    return REGISTRY.get_sample_value("thunderline_generations_total", labels) or 0.0


async def test_a_dead_one_is_passed_over_also_when_it_bears_the_models_name(tmp_path: Path) -> None:
    async with two(tmp_path) as (home, life):
        home.runner.holds_loading = True
        home.runner.move(1, cluster_pb2.RANK_STATE_FAILED, DEAD)
        async with asyncio.timeout(10):
            while (await states(life))["m"] == "READY":
                await asyncio.sleep(0.01)
        at_m, at_n = ended("m", "finished"), ended("n", "finished")
        for _ in range(3):
            assert await answered(life, life.generation()) == [FIRST, LAST]
        assert (ended("m", "finished"), ended("n", "finished")) == (at_m, at_n + 3)
        assert await answered(life, life.generation(model="n")) == [FIRST, LAST]
        assert set(await states(life)) == {"m", "n"}, "what is listed are deployments"


async def test_a_models_name_is_answered_also_when_no_deployment_bears_it(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, life):
        await life.client.undeploy("m")
        async with asyncio.timeout(10):
            while set(await states(life)) != {"n"}:
                await asyncio.sleep(0.01)
        assert await answered(life, life.generation(model="m")) == [FIRST, LAST]
        with pytest.raises(NotFound):
            await answered(life, life.generation(model="org/m"))


async def test_a_resume_goes_back_to_where_its_client_says_it_was(tmp_path: Path) -> None:
    def wish(max_tokens: int) -> cluster_pb2.Generation:
        found = life.generation()
        found.max_tokens = max_tokens
        return found

    async with two(tmp_path) as (home, life), contextlib.AsyncExitStack() as busy:

        async def keep_busy(max_tokens: int) -> None:
            home.runner.answer = first_then(asyncio.Event().wait)
            call: Any = await busy.enter_async_context(calling(life, wish(max_tokens)))
            assert await call.read() == FIRST

        await keep_busy(100)
        # More is under way at n than at m: this scheduler has never heard of those that come back there.
        await keep_busy(5000)
        at_m = ended("m", "finished")
        at_n = next(one.ranks[0].id.instance for one in await life.client.deployments() if one.spec.name == "n")
        parked, new, lost, unknown = (wish(10) for _ in range(4))
        for one in (parked, new, lost):
            one.instance = at_n
        unknown.instance = "of a deployment that is gone"
        home.runner.answer = finished
        before = ended("n", "finished")
        parked.resume_token_ids.append(3)
        assert await answered(life, parked) == [FIRST, LAST]
        assert (ended("m", "finished"), ended("n", "finished")) == (at_m, before + 1)
        assert await answered(life, new) == [FIRST, LAST]
        assert ended("m", "finished") == at_m + 1, "a new one goes where less is under way"
        lost.resume_token_ids.append(3)
        lost.lost_rank_count = 1
        assert await answered(life, lost) == [FIRST, LAST]
        assert ended("m", "finished") == at_m + 2, "with a rank all is lost that it had parked"
        unknown.resume_token_ids.append(3)
        assert await answered(life, unknown) == [FIRST, LAST]
        assert ended("m", "finished") == at_m + 3
