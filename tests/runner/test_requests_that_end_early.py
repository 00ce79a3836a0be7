"""Stories of requests that are left, cancelled, superseded, late, or lose their rank."""

import asyncio
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest

from runner.little_requests import FOX, LENGTH, first, idle, parked, removed
from runner.little_runner import PREPARED, ids_of, running, stand_in
from runner.stand_in_rank import POISON
from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.errors import (
    RANK_LOST_FACT,
    DeadlinePassed,
    EngineReset,
    Full,
    InstanceFailed,
    Superseded,
)
from thunderline.rpc.errors import from_call
from thunderline.runner import requests as requests_module
from thunderline.runner.requests import Requests, Running
from thunderline.v1 import cluster_pb2, runner_pb2

S = cluster_pb2


async def test_a_stream_that_breaks_parks_its_sequence(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        call = little.generate(max_tokens=190)
        await first(call)
        call.cancel()
        await parked(little)
        await idle(little)
        assert "operation remove" not in little.log()


async def test_a_client_that_never_reads_frees_its_place_when_it_leaves(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        call = little.generate(max_tokens=190)
        async with asyncio.timeout(5):
            while "operation insert" not in little.log():
                await asyncio.sleep(0.01)
        call.cancel()
        await parked(little)
        await idle(little)


async def test_a_cancel_that_comes_after_the_break_drops_what_was_parked(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        request_id = str(uuid.uuid4())
        call = little.generate(request_id=request_id, max_tokens=190)
        await first(call)
        call.cancel()
        await parked(little)
        await little.stub.CancelGeneration(runner_pb2.CancelGenerationRequest(request_id=request_id), timeout=5)
        await removed(little)


async def test_cancel_generation_drops_the_sequence_and_ends_the_stream(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        request_id = str(uuid.uuid4())
        call = little.generate(request_id=request_id, max_tokens=190)
        await first(call)
        await little.stub.CancelGeneration(runner_pb2.CancelGenerationRequest(request_id=request_id), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert not from_call(caught.value).resumable
        await removed(little)
        for unknown in (request_id, "never was"):
            await little.stub.CancelGeneration(runner_pb2.CancelGenerationRequest(request_id=unknown), timeout=5)


async def test_the_same_request_id_again_takes_over(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        request_id = str(uuid.uuid4())
        older = little.generate(request_id=request_id, max_tokens=190)
        await first(older)
        newer = asyncio.create_task(little.deltas(request_id=request_id, text="the", max_tokens=20))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in older:
                pass
        assert isinstance(from_call(caught.value), Superseded)
        assert (await newer)[-1].finish_reason == LENGTH
        assert little.log().count("operation remove") == 1


async def fox(requests: Requests, left_s: float = 20.0) -> Running:
    """A long one that nobody reads."""
    wish = S.Generation(request_id=str(uuid.uuid4()), text=FOX, max_tokens=190)
    return await requests.begin(RankId(InstanceId("i1"), 1, 0), wish, left_s)


async def test_a_takeover_frees_the_older_sequence_though_nobody_reads_it(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        requests = Requests(little.ranks, little.settings.limits)
        wish = S.Generation(request_id=str(uuid.uuid4()), text=FOX, max_tokens=190)
        target = RankId(InstanceId("i1"), 1, 0)
        older = await requests.begin(target, wish, 20.0)
        newer = await requests.begin(target, wish, 20.0)
        assert list(older.rank.generations) == [newer.key]
        older.end()
        requests.cancel(wish.request_id)
        assert older.rank.generations == {}


async def test_a_resume_that_takes_over_goes_on_with_what_the_older_call_had(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        request_id = str(uuid.uuid4())
        older = little.generate(request_id=request_id, text=FOX, max_tokens=190)
        await first(older)
        whole = await little.deltas(request_id=request_id, text=FOX, resume=True, max_tokens=40)
        assert whole[-1].finish_reason == LENGTH
        await parked(little)
        assert "operation remove" not in little.log()


async def test_what_is_parked_is_remembered_as_long_as_the_rank_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_module, "PARKED_S", 0.1)
    async with running(tmp_path) as little:
        await little.ready()
        requests = Requests(little.ranks, little.settings.limits)
        for waited_s in (0.0, 0.2):
            begun = await fox(requests)
            begun.lost()
            await asyncio.sleep(waited_s)
            requests.cancel(begun.generation.wish.request_id)
        await removed(little)
        await asyncio.sleep(0.1)
        assert little.log().count("operation remove") == 1


async def test_a_cancel_drops_what_was_parked_by_a_break_before_it(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        begun = await fox(Requests(little.ranks, little.settings.limits))
        begun.rank.park(begun.key)
        begun.generation.is_parked = True
        begun.requests.cancel(begun.generation.wish.request_id)
        await removed(little)


async def test_a_rank_that_is_gone_keeps_no_tokenizer(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        rank = little.ranks.find(RankId(InstanceId("i1"), 1, 0))
        assert rank is not None
        assert rank.words is not None
        os.kill(pid, signal.SIGKILL)
        await little.until(S.RANK_STATE_ABSENT)
        assert rank.words is None


@pytest.mark.parametrize(("left_s", "then"), [(0.05, "remove"), (20.0, "park")], ids=["at its deadline", "before it"])
async def test_a_stream_that_breaks_is_parked_but_not_at_its_deadline(tmp_path: Path, left_s: float, then: str) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        (await fox(Requests(little.ranks, little.settings.limits), left_s)).lost()
        async with asyncio.timeout(5):
            while f"operation {then}" not in little.log():
                await asyncio.sleep(0.01)


async def test_a_deadline_ends_it_typed_and_drops_the_sequence(tmp_path: Path) -> None:
    async with running(tmp_path, request_deadline_s=1.0) as little:
        await little.ready()
        # Without a deadline of the call's own: the limit holds.
        error = await little.refused(max_tokens=190, timeout_s=None)
        assert isinstance(error, DeadlinePassed)
        await removed(little)
        # Longer than the limit: a call's own deadline counts. It must have reached the rank by then.
        own = await little.refused(max_tokens=190, timeout_s=1.5)
        assert isinstance(own, DeadlinePassed)
        await removed(little, 2)


async def test_a_rank_that_dies_ends_its_streams_resumably(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        calls = [little.generate(max_tokens=190) for _ in range(4)]
        for call in calls:
            await first(call)
        os.kill(pid, signal.SIGKILL)
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            error = from_call(caught.value)
            assert isinstance(error, InstanceFailed)
            assert error.resumable
            assert error.facts == {RANK_LOST_FACT: "1"}
        late = await little.refused()
        assert isinstance(late, InstanceFailed)


async def test_a_rank_that_is_not_ready_takes_no_requests(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        assert isinstance(await little.refused(), InstanceFailed)
        await little.set_rank(PREPARED)
        await little.until(S.RANK_STATE_PREPARED)
        assert isinstance(await little.refused(), InstanceFailed)


async def test_an_engine_reset_ends_what_was_running_and_the_next_request_works(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        neighbour = asyncio.create_task(little.refused(text=FOX, max_tokens=190))
        async with asyncio.timeout(5):
            while "operation insert" not in little.log():
                await asyncio.sleep(0.01)
        poisoned = await little.refused(prompt_token_ids=S.TokenIds(ids=[5, POISON]))
        assert isinstance(poisoned, EngineReset)
        assert isinstance(await neighbour, EngineReset)
        assert (await little.deltas(text="the", max_tokens=2))[-1].finish_reason == LENGTH


async def test_more_requests_than_the_limit_are_refused_with_when_to_come_back(tmp_path: Path) -> None:
    async with running(tmp_path, rank_request_count_max=2) as little:
        await little.ready()
        calls = [little.generate(max_tokens=190) for _ in range(2)]
        for call in calls:
            await first(call)
        error = await little.refused()
        assert isinstance(error, Full)
        assert error.retry_after_s is not None
        for resumed in ({"resume": True}, {"resume_token_ids": [5]}):
            calls.append(little.generate(max_tokens=190, **resumed))
            await first(calls[-1])
        assert isinstance(await little.refused(resume=True), Full), "resumes are let in too, up to twice the limit"
        for call in calls:
            call.cancel()
        await idle(little)
        assert (await little.deltas(max_tokens=2))[-1].finish_reason == LENGTH


async def test_a_broken_attach_stream_ends_its_requests_and_the_rank_comes_back_with_them_parked(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        wish: dict[str, Any] = {"request_id": str(uuid.uuid4()), "text": FOX, "max_tokens": 100}
        left: dict[str, Any] = {"request_id": str(uuid.uuid4()), "text": FOX, "max_tokens": 190}
        calls = [little.generate(**wish), little.generate(**left)]
        for call in calls:
            await first(call)
        rank = little.ranks.find(RankId(InstanceId("i1"), 1, 0))
        assert rank is not None
        assert rank.outbox is not None
        rank.detach(rank.outbox)
        assert not (await little.set_rank(PREPARED)).attached
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            error = from_call(caught.value)
            assert isinstance(error, InstanceFailed)
            assert RANK_LOST_FACT not in error.facts
        await little.until(S.RANK_STATE_READY, look=lambda report: report.attached)
        assert "operation remove" not in little.log()
        answer = await little.deltas(**wish)
        assert "taken from parking" in little.log()
        assert len(ids_of(answer)) == 100
        # The other's client has left for good.
        await little.stub.CancelGeneration(runner_pb2.CancelGenerationRequest(request_id=left["request_id"]), timeout=5)
        await removed(little)
        assert rank.pid == pid


async def test_a_rank_whose_load_crashes_has_no_streams_left_hanging(tmp_path: Path) -> None:
    async with running(tmp_path, stand_in("load_crashes")) as little:
        await little.set_rank(PREPARED)
        await little.set_rank(2)
        await little.until(S.RANK_STATE_ABSENT)
        assert isinstance(await little.refused(), InstanceFailed)
