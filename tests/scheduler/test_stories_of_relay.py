"""Generate through the scheduler, over real sockets: bytes as they are, typed ends, cancels, and places given back."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from scheduler.little_client import answered, calling, resume_of, until
from scheduler.little_runner import FIRST, LAST, LOST, at_once, first_then, message
from scheduler.little_scheduler import LIMITS, house, served
from thunderline.cluster.errors import (
    RANK_LOST_FACT,
    ClusterError,
    DeadlinePassed,
    Draining,
    EngineReset,
    InstanceFailed,
    InvalidRequest,
    NotFound,
    RankHung,
    Superseded,
    Unreachable,
)
from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2

# A field that this version does not know, and one delta in two parts, the later field first: no serializer of ours
# would write it so.
ODD = b"\x9a\x06\x05later" + b"\x0a\x02\x20\x01" + b"\x0a\x07\x1a\x05three"


def outcomes(outcome: str) -> float:
    labels = {"deployment": "m", "outcome": outcome}
    return REGISTRY.get_sample_value("thunderline_generations_total", labels) or 0.0


async def test_bytes_pass_unchanged_and_in_order(tmp_path: Path) -> None:
    async def odd(_: cluster_pb2.Generation, __: Any) -> AsyncIterator[bytes]:
        yield FIRST
        for _number in range(100):
            yield ODD
        yield b""
        yield LAST

    async with served(tmp_path) as (home, life):
        home.runner.answer = odd
        before = outcomes("finished")
        assert await answered(life) == [FIRST, *[ODD] * 100, b"", LAST]
        assert outcomes("finished") == before + 1
        await life.until("the epoch to be no crash", lambda: life.wish.epochs[0].answered)
        assert (home.runner.cancelled, home.runner.broken) == ([], [])


async def test_the_request_arrives_as_it_was_sent(tmp_path: Path) -> None:
    arrived: list[cluster_pb2.Generation] = []

    async def keep(wish: cluster_pb2.Generation, _: Any) -> AsyncIterator[bytes]:
        arrived.append(wish)
        yield LAST

    async with served(tmp_path) as (home, life):
        home.runner.answer = keep
        sent = life.generation()
        sent.sampling.seed = 7
        sent.stop.append("\n")
        sent.resume_token_ids.extend([1, 2])
        await answered(life, sent)
        assert arrived == [sent]


async def test_a_message_is_passed_on_before_the_next_one_comes(tmp_path: Path) -> None:
    more = asyncio.Event()
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(more.wait)
        async with calling(life, life.generation()) as call:
            assert await call.read() == FIRST
            more.set()
            assert await call.read() == LAST


async def test_a_runner_that_dies_in_the_middle_ends_the_stream_with_a_typed_error(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        async with calling(life, life.generation()) as call:
            assert await call.read() == FIRST
            begun_s = time.monotonic()
            await home.stop_runner()
            with pytest.raises(grpc.aio.AioRpcError) as broken:
                await call.read()
            error = from_call(broken.value)
            assert isinstance(error, InstanceFailed) and error.resumable
            assert "the runner of the instance was lost" in error.message
            assert RANK_LOST_FACT not in error.facts, "the rank may well live"
            assert time.monotonic() - begun_s < 5
        assert not life.task.done()


async def test_after_the_runner_came_back_the_next_request_is_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        ending = asyncio.create_task(answered(life))
        await asyncio.sleep(0.1)
        await home.stop_runner()
        with pytest.raises(InstanceFailed):
            await ending
        home.runner.begin_afresh()
        home.runner.answer = first_then(at_once)
        await home.start_runner()
        assert await answered(life) == [FIRST, LAST], "the one place of the instance was given back"


@pytest.mark.parametrize(
    "error",
    [EngineReset("reset"), RankHung("hung"), LOST, Superseded("newer"), InvalidRequest("no", param="stop")],
    ids=lambda error: error.reason,
)
async def test_a_runners_typed_error_is_passed_on_and_nothing_is_cancelled(tmp_path: Path, error: ClusterError) -> None:
    async def fail() -> None:
        raise error

    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(fail)
        before = outcomes(error.reason)
        with pytest.raises(type(error), match=error.message) as told:
            await answered(life)
        assert told.value.facts == error.facts
        assert outcomes(error.reason) == before + 1
        home.runner.answer = first_then(at_once)
        assert await answered(life) == [FIRST, LAST]
        assert home.runner.cancelled == []


async def test_a_caller_that_leaves_is_cancelled_at_the_runner_by_name(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        wish = life.generation()
        before = outcomes("cancelled")
        async with calling(life, wish) as call:
            assert await call.read() == FIRST
        async with asyncio.timeout(5):
            await home.runner.cancel_seen.wait()
        assert home.runner.cancelled == [wish.request_id]
        home.runner.answer = first_then(at_once)
        assert await answered(life) == [FIRST, LAST], "the one place of the instance was given back"
        assert home.runner.broken == [wish.request_id]
        assert outcomes("cancelled") == before + 1


async def test_a_caller_that_leaves_at_the_last_message_was_answered(tmp_path: Path) -> None:
    async def lingers(_: cluster_pb2.Generation, __: Any) -> AsyncIterator[bytes]:
        yield FIRST
        yield LAST
        await asyncio.Event().wait()

    async with served(tmp_path) as (home, life):
        home.runner.answer = lingers
        before = outcomes("finished"), outcomes("cancelled")
        wish = life.generation()
        async with calling(life, wish) as call:
            assert [await call.read(), await call.read()] == [FIRST, LAST]
        await life.until("the epoch to be no crash", lambda: life.wish.epochs[0].answered)
        assert (outcomes("finished"), outcomes("cancelled")) == (before[0] + 1, before[1])
        await until(lambda: home.runner.broken == [wish.request_id])
        assert home.runner.cancelled == [], "nothing is left to be cancelled"


async def test_a_caller_that_leaves_the_queue_is_not_sent_to_the_runner(tmp_path: Path) -> None:
    more = asyncio.Event()
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(more.wait)
        async with calling(life, life.generation()) as first:
            assert await first.read() == FIRST
            async with calling(life, life.generation()):
                await until(lambda: life.admission.depth("m") == 1)
            await until(lambda: life.admission.depth("m") == 0)
            more.set()
            assert await first.read() == LAST
            assert await first.read() is grpc.aio.EOF
        assert (home.runner.cancelled, home.runner.broken) == ([], [])


async def test_a_second_request_waits_for_the_place_of_the_first(tmp_path: Path) -> None:
    more = asyncio.Event()
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(more.wait)
        first, second = (asyncio.create_task(answered(life)) for _ in range(2))
        await until(lambda: life.admission.depth("m") == 1)
        more.set()
        assert await first == await second == [FIRST, LAST]


async def test_a_runner_that_says_nothing_is_left_at_the_deadline(tmp_path: Path) -> None:
    async with served(tmp_path, replace(LIMITS, request_deadline_s=0.8)) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        begun_s = time.monotonic()
        with pytest.raises(DeadlinePassed):
            await answered(life, timeout_s=None)
        assert 0.4 < time.monotonic() - begun_s < 5


async def test_a_request_waits_while_its_model_loads(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        home.runner.holds_loading = True
        await life.deploy()
        await life.until_state("STARTING")
        waiting = asyncio.create_task(answered(life))
        await life.until("a request in the queue", lambda: life.admission.depth("m") == 1)
        await life.until("LOADING", lambda: 1 in home.runner.states())
        await life.until("the command", lambda: ("READY", 1) in home.runner.commands)
        home.runner.move(1, cluster_pb2.RANK_STATE_READY)
        assert await waiting == [FIRST, LAST]


REFUSED = {
    "a request id that is none": ({"request_id": "x" * 36}, InvalidRequest),
    "a model that is not deployed": ({"model": "n"}, NotFound),
}


@pytest.mark.parametrize(("changes", "kind"), REFUSED.values(), ids=REFUSED.keys())
async def test_refused_before_the_runner(tmp_path: Path, changes: dict[str, str], kind: type[ClusterError]) -> None:
    async with served(tmp_path) as (home, life):
        with pytest.raises(kind):
            await answered(life, life.generation(**changes))
        assert (home.runner.cancelled, home.runner.broken) == ([], [])


async def test_a_stream_that_ends_with_the_role_leaves_nothing_behind(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        async with calling(life, life.generation()) as call:
            assert await call.read() == FIRST
            life.task.cancel()
            await asyncio.wait({life.task})
        await until(lambda: len(home.runner.broken) == 1)


async def test_a_role_that_stops_breaks_its_streams_at_once_and_cancels_none(tmp_path: Path) -> None:
    """They are parked at the runner, and go on at the next scheduler."""
    async with served(tmp_path, replace(LIMITS, rank_request_count_max=2)) as (home, life):
        home.runner.answer = first_then(asyncio.Event().wait)
        streams = [life.generation() for _ in range(2)]
        async with contextlib.AsyncExitStack() as callers:
            calls = [await callers.enter_async_context(calling(life, wish)) for wish in streams]
            for call in calls:
                assert await call.read() == FIRST
            waiting = [asyncio.create_task(answered(life, wish)) for wish in (life.generation(), resume_of(life, 1))]
            await until(lambda: life.admission.depth("m") == 2)
            begun_s = time.monotonic()
            life.relay.stop()
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError) as broken:
                    await call.read()
                assert isinstance(from_call(broken.value), Draining)
            for task in waiting:
                with pytest.raises(Unreachable):
                    await task
            with pytest.raises(Unreachable):
                await answered(life)
            assert time.monotonic() - begun_s < 1
        await until(lambda: len(home.runner.broken) == 2)
        await asyncio.sleep(0.1)
        assert home.runner.cancelled == []


async def test_whose_call_ends_while_the_role_stops_is_not_taken_for_one_that_left(tmp_path: Path) -> None:
    """It does not read, so its stream cannot break at once: gRPC ends it."""
    more = message(text="x" * 100_000)

    async def endless(_: cluster_pb2.Generation, __: Any) -> AsyncIterator[bytes]:
        while True:
            yield more

    async with served(tmp_path) as (home, life):
        home.runner.answer = endless
        before = outcomes("cancelled")
        async with calling(life, life.generation()) as call:
            assert await call.read() == more
            await asyncio.sleep(0.3)
            life.relay.stop()
        await until(lambda: outcomes("cancelled") == before + 1)
        await asyncio.sleep(0.1)
        assert home.runner.cancelled == []
