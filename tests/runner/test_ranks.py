"""Stories of ranks: a real runner on loopback, real processes, only the engine is a stand-in."""

import asyncio
import os
import signal
from pathlib import Path

import grpc
import psutil
import pytest

from runner.little_model import HEADS
from runner.little_runner import ABSENT, PREPARED, READY, running, stand_in
from thunderline.cluster.errors import EpochConflict, InvalidRequest, StaleEpoch, WrongStore
from thunderline.rpc.errors import from_call
from thunderline.runner import rank_process
from thunderline.v1 import cluster_pb2, rank_pb2, rank_pb2_grpc, runner_pb2

S = cluster_pb2


async def test_a_rank_is_prepared_loaded_served_and_ended(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        first = await little.set_rank(PREPARED)
        assert first.state == S.RANK_STATE_STARTING
        assert (await little.until(S.RANK_STATE_PREPARED)).pid > 0
        assert (tmp_path / "run" / "ranks" / "i1-1-0.map").stat().st_size == 256
        await little.set_rank(READY)
        ready = await little.until(S.RANK_STATE_READY)
        assert ready.engine.vocabulary_size == 420
        assert ready.load == S.LoadProgress(loaded_bytes=100, total_bytes=100)
        assert ready.placement == little.placement()
        # The end token of config.json and of the tokenizer.
        assert "[2]" in little.log()
        await little.set_rank(ABSENT)
        absent = await little.until(S.RANK_STATE_ABSENT)
        assert absent.cause.name == "STOPPED"
        assert not psutil.pid_exists(ready.pid)
        assert not (tmp_path / "run" / "ranks" / "i1-1-0.map").exists()


async def test_ready_that_comes_before_prepared_is_remembered(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.set_rank(PREPARED)
        report = await little.set_rank(READY)
        assert report.state == S.RANK_STATE_STARTING
        await little.until(S.RANK_STATE_READY)


async def test_the_same_goal_again_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        for goal in (PREPARED, READY, READY, PREPARED):
            report = await little.set_rank(goal)
            assert (report.pid, report.state) == (pid, S.RANK_STATE_READY)
        assert little.log().count("load ") == 1


async def test_two_commands_at_once_start_one_process(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await asyncio.gather(*(little.set_rank(PREPARED) for _ in range(8)))
        pid = (await little.until(S.RANK_STATE_PREPARED)).pid
        ours = [child.pid for child in psutil.Process().children() if "stand_in_rank.py" in " ".join(child.cmdline())]
        assert ours == [pid]


async def test_a_rank_that_is_gone_is_only_reported_never_started_again(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        os.kill(pid, signal.SIGKILL)
        gone = await little.until(S.RANK_STATE_ABSENT)
        assert (gone.cause.name, gone.cause.detail.split(":")[0]) == ("SIGNAL", "SIGKILL")
        assert gone.cause.state == S.RANK_STATE_READY
        assert not gone.cause.permanent
        again = await little.set_rank(PREPARED)
        assert (again.state, again.pid) == (S.RANK_STATE_ABSENT, pid)
        assert (await little.ready(epoch=2)).pid != pid


async def test_what_a_rank_prints_is_bounded_while_it_lives(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready()
        log = tmp_path / "logs" / "ranks" / "i1-1-0.log"
        with log.open("ab") as output:
            output.write(b"a line of a library\n" * 150_000)
        async with asyncio.timeout(20):
            while log.stat().st_size > rank_process.LOG_BYTES_MAX:
                await asyncio.sleep(0.05)
        assert log.with_name("i1-1-0.log.1").stat().st_size == rank_process.LOG_BYTES_MAX


async def test_the_fence_holds_over_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready(epoch=3)
    async with running(tmp_path) as little:
        assert little.ranks.fence.store == "store"
        for goal, epoch, changes, expected in (
            (PREPARED, 2, {}, StaleEpoch),
            (PREPARED, 4, {"store_id": "other"}, WrongStore),
            (PREPARED, 3, {"placement": S.Placement(reasons=["another"])}, EpochConflict),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await little.set_rank(goal, epoch, **changes)
            error = from_call(caught.value)
            assert isinstance(error, expected)
            if expected is StaleEpoch:
                assert error.facts["highest"] == "3"
        # Started by the runner before this one: it only reports.
        assert (await little.set_rank(PREPARED, epoch=3)).state == S.RANK_STATE_ABSENT
        await little.ready(epoch=4)


BAD_COMMANDS: dict[str, tuple[int, dict[str, object], str]] = {
    "no_goal": (0, {}, "goal"),
    "a_goal_that_nobody_knows": (9, {}, "goal"),
    "no_instance": (PREPARED, {"id": S.RankId(instance="")}, "id"),
    "an_instance_that_is_a_path": (PREPARED, {"id": S.RankId(instance="../../etc/passwd")}, "id"),
    "a_store_id_of_a_megabyte": (PREPARED, {"store_id": "x" * 1_000_000}, "store_id"),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
async def test_a_malformed_command_names_its_field(tmp_path: Path, case: str) -> None:
    goal, changes, param = BAD_COMMANDS[case]
    async with running(tmp_path) as little:
        request = runner_pb2.SetRankRequest(
            store_id="store",
            id=None if "id" in changes else little.rank_id(),
            goal=goal,  # type: ignore[arg-type]
            placement=little.placement(),
        )
        request.MergeFrom(runner_pb2.SetRankRequest(**changes))  # type: ignore[arg-type]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await little.stub.SetRank(request, timeout=10)
        error = from_call(caught.value)
        assert isinstance(error, InvalidRequest)
        assert error.param == param
        assert list(tmp_path.glob("**/*.map")) == []


async def test_a_model_that_is_not_there_is_a_permanent_cause(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        little.model = "nowhere"
        report = await little.set_rank(PREPARED)
        assert report.state == S.RANK_STATE_ABSENT
        assert (report.cause.name, report.cause.permanent) == ("LOAD_FAILED", True)
        assert "nowhere" in report.cause.detail


async def test_a_broken_tokenizer_fails_the_rank_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        (little.settings.models / "little" / "tokenizer.json").write_text("{}")
        await little.set_rank(PREPARED)
        gone = await little.until(S.RANK_STATE_ABSENT)
        assert (gone.cause.name, gone.cause.permanent) == ("LOAD_FAILED", True)
        assert "tokenizer.json" in gone.cause.detail


# behaviour of the rank -> limits, cause, words in its detail, state it was in, permanent
FAILURES: dict[str, tuple[dict[str, float], str, str, int, bool]] = {
    "load_fails": ({}, "LOAD_FAILED", "no such architecture", S.RANK_STATE_LOADING, True),
    "load_crashes": ({}, "SIGNAL", "SIGABRT: load", S.RANK_STATE_LOADING, False),
    "load_stalls": ({"load_stall_s": 0.5}, "PHASE_DEADLINE", "LOADING", S.RANK_STATE_LOADING, False),
    "never_dials": ({"prepare_s": 0.5}, "PHASE_DEADLINE", "STARTING", S.RANK_STATE_STARTING, False),
}


@pytest.mark.parametrize("behave", FAILURES)
async def test_a_rank_that_does_not_become_ready_ends_with_its_cause(tmp_path: Path, behave: str) -> None:
    limits, name, words, state, permanent = FAILURES[behave]
    async with running(tmp_path, stand_in(behave), **limits) as little:
        await little.set_rank(PREPARED)
        await little.set_rank(READY)
        gone = await little.until(S.RANK_STATE_ABSENT)
        assert (gone.cause.name, gone.cause.state, gone.cause.permanent) == (name, state, permanent)
        assert words in gone.cause.detail
        assert gone.cause.uptime_s > 0
        assert not psutil.pid_exists(gone.pid)


async def test_a_command_that_cannot_be_started_is_a_cause(tmp_path: Path) -> None:
    async with running(tmp_path, lambda known, rank, path: ["/nowhere/python"]) as little:
        await little.set_rank(PREPARED)
        gone = await little.until(S.RANK_STATE_ABSENT)
        assert gone.cause.name == "SPAWN_FAILED"


async def test_a_rank_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    async with running(tmp_path, stand_in("ignores_sigterm"), rank_stop_grace_s=0.3) as little:
        await little.ready()
        await little.set_rank(ABSENT)
        gone = await little.until(S.RANK_STATE_ABSENT)
        assert gone.cause.name == "STOPPED"
        assert not psutil.pid_exists(gone.pid)


async def test_a_rank_that_nobody_wants_is_sent_away(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'run' / 'runner.sock'}") as channel:
            call = rank_pb2_grpc.RankServiceStub(channel).Attach()
            hello = rank_pb2.Hello(id=little.rank_id(epoch=9), pid=1, state=S.RANK_STATE_PREPARED)
            await call.write(rank_pb2.AttachRequest(hello=hello))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(call.read(), 10)
        assert isinstance(from_call(caught.value), StaleEpoch)


async def test_a_watcher_sees_the_load_progress_and_the_store(tmp_path: Path) -> None:
    async with running(tmp_path, stand_in("load_stalls")) as little:
        await little.set_rank(PREPARED)
        await little.set_rank(READY)
        loading = await little.until(S.RANK_STATE_LOADING, look=lambda report: report.load.total_bytes > 0)
        assert loading.load.total_bytes == 100
        async for view in little.stub.WatchRanks(runner_pb2.WatchRanksRequest(), timeout=10):
            assert (view.node_id, view.store_id, view.complete) == ("node", "store", True)
            break


async def test_only_fifty_logs_are_kept(tmp_path: Path) -> None:
    (tmp_path / "logs" / "ranks").mkdir(parents=True)
    for number in range(80):
        path = tmp_path / "logs" / "ranks" / f"old-{number}-0.log"
        path.touch()
        os.utime(path, (number, number))
    async with running(tmp_path) as little:
        await little.set_rank(PREPARED)
        await little.until(S.RANK_STATE_PREPARED)
        names = {path.name for path in (tmp_path / "logs" / "ranks").iterdir()}
    assert len(names) == 50
    assert {"i1-1-0.log", "old-79-0.log"} <= names
    assert "old-30-0.log" not in names


async def test_models_are_listed_and_audited_over_the_wire(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        listed = await little.stub.ListModels(runner_pb2.ListModelsRequest(), timeout=10)
        assert [(model.name, list(model.problems)) for model in listed.models] == [("little", [])]
        audit = await little.stub.AuditModel(runner_pb2.AuditModelRequest(model="little"), timeout=20)
        assert audit.verdict == runner_pb2.MODEL_VERDICT_USABLE
        assert audit.usable_memory_bytes > 0
        assert sum(layer.weight_bytes for layer in audit.facts.layers) + audit.facts.embedding_bytes > 0
        assert next((one.name, one.count) for one in audit.facts.tensor_divisors) == ("num_attention_heads", HEADS)
        assert (audit.splits.pipeline, audit.splits.tensor, audit.splits.tensor_reason) == (True, False, "no")
        missing = await little.stub.AuditModel(runner_pb2.AuditModelRequest(model="/nowhere"), timeout=20)
        assert missing.verdict == runner_pb2.MODEL_VERDICT_UNUSABLE
        fetched = [step async for step in little.stub.FetchModel(runner_pb2.FetchModelRequest(model="little"))]
        assert [step.done for step in fetched] == [True]


async def _status(call: object) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code()


async def test_what_a_later_version_fills_is_unimplemented(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        follow = little.stub.FollowOperations(runner_pb2.FollowOperationsRequest(), timeout=10)
        assert await _status(follow.read()) is grpc.StatusCode.UNIMPLEMENTED
        gather = little.stub.GatherBytes(runner_pb2.GatherBytesRequest(), timeout=10)
        assert await _status(gather) is grpc.StatusCode.UNIMPLEMENTED
