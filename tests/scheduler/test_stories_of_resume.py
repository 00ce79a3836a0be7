"""Resumes through the scheduler, over real sockets: who runs alone, what is refused, and who cancels whom."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scheduler.little_client import answered, calling, resume_of, until
from scheduler.little_runner import FIRST, LAST, LOST, PROMPT, at_once, first_then
from scheduler.little_scheduler import LIMITS, ROOM, house, served
from thunderline.cluster.errors import DeadlinePassed, InstanceFailed, NoReadyInstance, RequestPoisoned, Superseded
from thunderline.v1 import cluster_pb2


async def test_a_resume_with_nothing_delivered_outlasts_the_queue_wait(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler(replace(LIMITS, queue_wait_s=0.1)) as life:
        home.runner.holds_loading = True
        await life.deploy()
        await life.until("the command", lambda: ("READY", 1) in home.runner.commands)
        resume = asyncio.create_task(answered(life, resume_of(life, 1)))
        with pytest.raises(NoReadyInstance):
            await answered(life)
        home.runner.move(1, cluster_pb2.RANK_STATE_READY)
        assert await resume == [FIRST, LAST]


async def test_one_that_ranks_were_lost_under_runs_alone_until_its_first_token(tmp_path: Path) -> None:
    arrived: list[str] = []
    neighbour_ends, speaks, ends = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(wish: cluster_pb2.Generation, _: Any) -> AsyncIterator[bytes]:
        arrived.append(wish.request_id)
        yield PROMPT
        if wish.lost_rank_count:
            await speaks.wait()
            yield FIRST
            await ends.wait()
        elif len(arrived) == 1:
            await neighbour_ends.wait()
        yield LAST

    async with served(tmp_path, ROOM) as (home, life), asyncio.TaskGroup() as group:
        home.runner.answer = answer
        wishes = [life.generation(), resume_of(life, 2), life.generation()]
        for wish in wishes:
            group.create_task(answered(life, wish))
            await until(lambda: len(arrived) == 1)
            await asyncio.sleep(0.05)
        assert (len(arrived), life.admission.depth("m")) == (1, 2)
        neighbour_ends.set()
        await until(lambda: len(arrived) == 2)
        await asyncio.sleep(0.05)
        assert arrived == [wish.request_id for wish in wishes[:2]], "its prompt is no new token"
        speaks.set()
        await until(lambda: len(arrived) == 3)
        ends.set()


async def test_the_rank_that_one_ends_alone_is_its_last_and_is_told(tmp_path: Path) -> None:
    async def fail() -> None:
        raise LOST

    async with served(tmp_path, ROOM) as (home, life):
        home.runner.answer = first_then(fail, PROMPT)
        wish = resume_of(life, 2)
        with pytest.raises(InstanceFailed):
            await answered(life, wish)
        async with asyncio.timeout(5):
            async for event in life.client.watch_events():
                if event.kind == "REQUEST_POISONED":
                    break
        assert wish.request_id in event.text and event.subject == "m"
        home.runner.answer = first_then(at_once)
        assert await answered(life) == [FIRST, LAST]


async def test_one_that_three_ranks_were_lost_under_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        with pytest.raises(RequestPoisoned) as refused:
            await answered(life, resume_of(life, 3))
        assert not refused.value.resumable
        assert home.runner.broken == []


async def test_the_end_of_an_older_call_does_not_cancel_the_resume_that_took_over(tmp_path: Path) -> None:
    """Its stream broke at the client first, and here only later."""
    async with served(tmp_path, ROOM) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        wish = life.generation()
        async with contextlib.AsyncExitStack() as newer:
            async with calling(life, wish) as older:
                assert await older.read() == FIRST
                call = await newer.enter_async_context(calling(life, wish))
                assert await call.read() == FIRST
            await until(lambda: len(home.runner.broken) == 1)
            assert home.runner.cancelled == []
        await asyncio.wait_for(home.runner.cancel_seen.wait(), 5)
        assert home.runner.cancelled == [wish.request_id]


async def test_an_older_call_that_leaves_the_queue_last_does_not_take_over_from_the_newer_one(tmp_path: Path) -> None:
    more = asyncio.Event()
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(more.wait)
        wish = life.generation()
        async with calling(life, life.generation()) as first:
            assert await first.read() == FIRST
            older = asyncio.create_task(answered(life, wish))
            await until(lambda: life.admission.depth("m") == 1)
            newer = asyncio.create_task(answered(life, wish))
            await until(lambda: life.admission.depth("m") == 2)
            more.set()
            assert await newer == [FIRST, LAST]
            with pytest.raises(Superseded):
                await older
        assert home.runner.cancelled == []


async def test_a_resume_is_not_overtaken_by_the_cancel_of_the_call_before(tmp_path: Path) -> None:
    async with served(tmp_path, ROOM) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        wish = life.generation()
        home.runner.cancels.clear()
        async with calling(life, wish) as call:
            assert await call.read() == FIRST
        await asyncio.wait_for(home.runner.cancel_seen.wait(), 5)
        home.runner.answer = first_then(at_once)
        resume = asyncio.create_task(answered(life, wish))
        done, _ = await asyncio.wait({resume}, timeout=0.1)
        assert not done
        home.runner.cancels.set()
        assert await resume == [FIRST, LAST]
        assert home.runner.cancelled == [wish.request_id]


async def test_a_resume_that_leaves_the_queue_is_dropped_where_it_is_parked(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        resume = resume_of(life, 0)
        async with calling(life, life.generation()) as first:
            assert await first.read() == FIRST
            async with calling(life, resume):
                await until(lambda: life.admission.depth("m") == 1)
            await asyncio.wait_for(home.runner.cancel_seen.wait(), 5)
            assert home.runner.cancelled == [resume.request_id]


async def test_a_resume_whose_time_is_over_in_the_queue_is_dropped_too(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        resume = resume_of(life, 0)
        async with calling(life, life.generation()) as first:
            assert await first.read() == FIRST
            with pytest.raises(DeadlinePassed):
                await answered(life, resume, timeout_s=0.6)
            await asyncio.wait_for(home.runner.cancel_seen.wait(), 5)
            assert home.runner.cancelled == [resume.request_id]
