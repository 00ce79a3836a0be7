"""Ranks outlive their runner: stories of a runner killed or stopped, and of the next one on the same home."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from dataclasses import replace
from typing import Any

import grpc
import psutil
import pytest

from runner.little_requests import FOX, LENGTH
from runner.little_runner import ABSENT, PREPARED, READY, Little, ids_of, text_of
from runner.runner_process import Process, until_gone
from thunderline.cluster.errors import StaleEpoch
from thunderline.cluster.rank_map import SIZE_BYTES, RankMark, decode, encode
from thunderline.cluster.ranks import RankState
from thunderline.process.boot import boot_id
from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2, runner_pb2

S = cluster_pb2
LONG: dict[str, Any] = {"text": FOX, "max_tokens": 150}


async def attached(little: Little) -> cluster_pb2.RankReport:
    return await little.until(S.RANK_STATE_READY, look=lambda report: report.attached)


async def read_until_it_breaks(call: Any, enough: int, then: Any) -> list[cluster_pb2.GenerationDelta]:
    """What a client has got when its runner dies: `then` is called at so many tokens."""
    got: list[cluster_pb2.GenerationDelta] = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for response in call:
            got.append(response.delta)
            if then is not None and len(ids_of(got)) >= enough:
                then()
                then = None
    assert not got[-1].finish_reason, "it was under way"
    return got


async def test_the_next_runner_adopts_a_serving_rank_and_its_streams_go_on(runner: Process) -> None:
    runner.start()
    async with runner.client() as little:
        before = await little.ready()
        whole = await little.deltas(**LONG)
        wish = {**LONG, "request_id": str(uuid.uuid4())}
        got = await read_until_it_breaks(little.generate(**wish), 20, runner.kill)
    runner.start()
    async with runner.client() as little:
        view = await runner.complete(little)
        assert [rank.pid for rank in view.ranks] == [before.pid]
        after = await attached(little)
        assert (after.pid, after.engine, after.placement) == (before.pid, before.engine, before.placement)
        assert after.step_count > 0
        rest = await little.deltas(**wish, resume_token_ids=ids_of(got))
        assert ids_of(got) + ids_of(rest) == ids_of(whole)
        assert text_of(got) + text_of(rest) == text_of(whole)
        assert rest[-1].usage == whole[-1].usage or rest[-1].usage.completion_tokens == 150
        assert little.log().count("load ") == 1
        assert "taken from parking" in little.log()
        # It obeys as any rank.
        assert (await little.set_rank(READY)).pid == before.pid
        await little.set_rank(ABSENT)
        assert (await little.until(S.RANK_STATE_ABSENT)).cause.name == "STOPPED"
        await until_gone(before.pid, 1)
        assert not runner.map().exists()
        await little.ready(epoch=2)


async def test_the_runner_after_a_sigterm_adopts_too(runner: Process) -> None:
    process = runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    runner.start()
    async with runner.client() as little:
        assert (await attached(little)).pid == pid
        assert (await little.deltas(text="the", max_tokens=3))[-1].finish_reason == LENGTH


async def test_ctrl_c_ends_an_adopted_rank(runner: Process) -> None:
    runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
    runner.kill()
    process = runner.start()
    async with runner.client() as little:
        await attached(little)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
    await until_gone(pid, 1)
    assert not runner.map().exists()
    runner.start()
    async with runner.client() as little:
        (told,) = (await runner.complete(little, 5)).ranks
        assert (told.state, told.cause.name) == (S.RANK_STATE_ABSENT, "STOPPED"), "the next runner knows that it was us"


async def test_a_rank_that_loads_is_adopted_and_becomes_ready(runner: Process) -> None:
    runner.start("load_waits")
    async with runner.client() as little:
        await little.set_rank(PREPARED)
        await little.set_rank(READY)
        pid = (await little.until(S.RANK_STATE_LOADING)).pid
    runner.kill()
    # It goes on while nobody looks, and the news of it is lost.
    (runner.home / "go").touch()
    runner.start("load_waits")
    async with runner.client() as little:
        ready = await attached(little)
        assert (ready.pid, ready.engine.vocabulary_size) == (pid, 420)
        assert (await little.deltas(text="the", max_tokens=3))[-1].finish_reason == LENGTH
        assert little.log().count("load ") == 1


async def test_a_prepared_rank_is_adopted_and_loads_when_it_should(runner: Process) -> None:
    runner.start()
    async with runner.client() as little:
        await little.set_rank(PREPARED)
        pid = (await little.until(S.RANK_STATE_PREPARED)).pid
    runner.kill()
    runner.start()
    async with runner.client() as little:
        await little.until(S.RANK_STATE_PREPARED, look=lambda report: report.attached)
        await little.set_rank(READY)
        assert (await attached(little)).pid == pid


@pytest.mark.parametrize(
    ("number", "name", "words"),
    [
        pytest.param(signal.SIGKILL, "KILLED", "without a word while READY", id="killed"),
        pytest.param(signal.SIGABRT, "SIGNAL", "SIGABRT", id="aborted"),
        pytest.param(signal.SIGSEGV, "SIGNAL", "SIGSEGV", id="crashed"),
    ],
)
@pytest.mark.parametrize("while_away", [False, True], ids=["under its new runner", "while there was none"])
async def test_an_adopted_rank_that_dies_has_a_cause(
    runner: Process, number: signal.Signals, name: str, words: str, while_away: bool
) -> None:
    runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
    runner.kill()
    if while_away:
        os.kill(pid, number)
        await until_gone(pid, 5)
    runner.start()
    async with runner.client() as little:
        if not while_away:
            await attached(little)
            os.kill(pid, number)
        ended = await little.until(S.RANK_STATE_ABSENT)
        assert (ended.pid, ended.cause.name, ended.cause.state) == (pid, name, S.RANK_STATE_READY)
        assert words in ended.cause.detail
        assert (await runner.complete(little, 2)).complete
        assert not runner.map().exists()
        assert (await little.set_rank(PREPARED)).state == S.RANK_STATE_ABSENT, "an epoch is started once"
        await little.ready(epoch=2)


async def test_an_adopted_rank_that_ignores_sigterm_is_killed_after_the_grace(runner: Process) -> None:
    runner.start("ignores_sigterm", rank_stop_grace_s=0.3)
    async with runner.client() as little:
        pid = (await little.ready()).pid
    runner.kill()
    runner.start("ignores_sigterm", rank_stop_grace_s=0.3)
    async with runner.client() as little:
        await attached(little)
        await little.set_rank(ABSENT)
        assert (await little.until(S.RANK_STATE_ABSENT)).cause.name == "STOPPED"
        await until_gone(pid, 1)


async def test_a_rank_that_never_dials_in_is_adopted_and_fails_at_its_deadline(runner: Process) -> None:
    runner.start("never_dials")
    async with runner.client() as little:
        await little.set_rank(PREPARED)
        async with asyncio.timeout(10):
            while not runner.map().exists() or not any(runner.map().read_bytes()):
                await asyncio.sleep(0.02)
        pid = runner.ranks()[0]
    runner.kill()
    runner.start(prepare_s=3)
    async with runner.client() as little:
        async for view in little.stub.WatchRanks(runner_pb2.WatchRanksRequest()):
            assert [(rank.pid, rank.attached) for rank in view.ranks] == [(pid, False)]
            assert not view.complete
            break
        mark = decode(runner.map().read_bytes())
        assert mark is not None
        # It has come further since, and says so where it can.
        later_s = time.monotonic() + 1
        runner.map().write_bytes(encode(replace(mark, entered_s=later_s), 40))
        ended = await little.until(S.RANK_STATE_ABSENT)
        assert (ended.cause.name, ended.cause.state) == ("PHASE_DEADLINE", S.RANK_STATE_STARTING)
        assert time.monotonic() > later_s + 3
        await until_gone(pid, 1)


async def test_a_rank_of_an_older_epoch_is_told_to_end(runner: Process) -> None:
    runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
        newer = await little.ready(epoch=2)
    runner.kill()
    runner.start()
    async with runner.client() as little:
        ended = await little.until(S.RANK_STATE_ABSENT)
        assert (ended.pid, ended.cause.name) == (pid, "STOPPED")
        assert (await little.until(S.RANK_STATE_READY, epoch=2)).pid == newer.pid
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await little.set_rank(READY)
        assert isinstance(from_call(caught.value), StaleEpoch)


async def test_a_rank_that_nobody_comes_back_for_ends_itself(runner: Process) -> None:
    runner.start(rank_without_runner_s=1)
    async with runner.client() as little:
        pid = (await little.ready()).pid
    runner.kill()
    await until_gone(pid, 5)
    runner.start()
    async with runner.client() as little:
        ended = await little.until(S.RANK_STATE_ABSENT)
        assert (ended.cause.name, ended.pid) == ("RUNNER_GONE", pid)


def dead(**changes: Any) -> bytes:
    """The map of a process that is none any more: our own pid, of another start."""
    mark = RankMark(os.getpid(), 1.0, boot_id(), RankState.WARMING)
    return encode(RankMark(**{name: getattr(mark, name) for name in RankMark.__slots__} | changes), 2)


# contents -> cause of the rank that is reported, words in it
DEAD: dict[str, tuple[bytes, str, str]] = {
    "a_dead_process": (dead(), "KILLED", "while WARMING"),
    "one_whose_deadline_has_passed": (dead(deadline_s=time.monotonic()), "RANK_HUNG", "timer"),
    "one_that_left_its_exit_code": (dead(exit_code=4), "ENGINE_EXCEPTION", "raised"),
    "one_of_before_a_reboot": (dead(boot_id="another"), "REBOOTED", "the machine was restarted while it was WARMING"),
}


@pytest.mark.parametrize("case", DEAD)
async def test_the_map_of_a_dead_process_is_reported_and_removed(runner: Process, case: str) -> None:
    contents, name, words = DEAD[case]
    runner.map(epoch=3).parent.mkdir(parents=True)
    runner.map(epoch=3).write_bytes(contents)
    runner.start()
    async with runner.client() as little:
        view = await runner.complete(little, 5)
        (rank,) = view.ranks
        assert (rank.state, rank.id.epoch, rank.cause.state) == (S.RANK_STATE_ABSENT, 3, S.RANK_STATE_WARMING)
        assert rank.cause.name == name
        assert words in rank.cause.detail
    assert not runner.map(epoch=3).exists()
    assert psutil.pid_exists(os.getpid())


async def test_strange_files_among_the_maps_do_no_harm(runner: Process) -> None:
    folder = runner.map().parent
    folder.mkdir(parents=True)
    strange = {"notes.map": b"", "i1-7-0.map": b"x" * 5000, "i1-8-0.log": dead(), "a-b-c.map": bytes(SIZE_BYTES)}
    for name, contents in strange.items():
        (folder / name).write_bytes(contents)
    # Of our name and size, and old: made for a process that never came.
    for name, contents in (("i1-9-0.map", bytes(SIZE_BYTES)), ("i1-10-0.map", b"\xff" * SIZE_BYTES)):
        (folder / name).write_bytes(contents)
        os.utime(folder / name, (1, 1))
    (folder / "i1-11-0.map").mkdir()
    runner.start()
    async with runner.client() as little:
        view = await runner.complete(little, 5)
        assert {rank.id.epoch for rank in view.ranks} == {9, 10}
        await little.ready()
    assert {path.name for path in folder.iterdir()} == {*strange, "i1-11-0.map", "i1-1-0.map"}


async def test_a_map_that_is_not_written_yet_is_waited_for(runner: Process) -> None:
    runner.map(epoch=3).parent.mkdir(parents=True)
    runner.map(epoch=3).write_bytes(bytes(SIZE_BYTES))
    os.utime(runner.map(epoch=3), (time.time(), time.time() - 3))
    runner.start()
    async with runner.client() as little:
        async for view in little.stub.WatchRanks(runner_pb2.WatchRanksRequest()):
            assert not view.complete
            break
        view = await runner.complete(little, 12)
        assert view.ranks[0].state == S.RANK_STATE_ABSENT
    assert not runner.map(epoch=3).exists()
