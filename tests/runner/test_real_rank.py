"""The runner with a real rank: a tiny random llama through MLX, started as a user's node starts it."""

import asyncio
import contextlib
import json
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest

from runner.little_model import make
from runner.little_runner import Little, ids_of, running, text_of
from runner.runner_process import Process
from thunderline.cluster.errors import InstanceFailed
from thunderline.rpc.errors import from_call
from thunderline.runner import rank_process, tokenizing
from thunderline.runner.models import Models, Verdict
from thunderline.v1 import cluster_pb2, runner_pb2

S = cluster_pb2
GREEDY: dict[str, Any] = {"text": "the quick brown fox", "max_tokens": 24, "ignore_eos": True}
READY_S = 60


async def ready(little: Little) -> cluster_pb2.RankReport:
    await little.set_rank(1)
    await little.set_rank(2)
    return await little.until(S.RANK_STATE_READY, timeout_s=READY_S)


async def test_a_real_rank_loads_answers_resumes_and_ends(tmp_path: Path) -> None:
    async with running(tmp_path, rank_process.command, rank_stop_grace_s=5) as little:
        report = await ready(little)
        assert report.engine.vocabulary_size == 420
        assert report.load.loaded_bytes == report.load.total_bytes > 0
        whole = await little.deltas(**GREEDY)
        made = ids_of(whole)
        assert (len(made), whole[-1].finish_reason) == (24, S.FINISH_REASON_LENGTH)
        words = tokenizing.read(little.settings.models / "little")
        assert text_of(whole) == words.decode(made)
        # Float32 and greedy: a resume from any token goes on as if nothing had happened.
        for count in (1, 7, 23, 24):
            rest = await little.deltas(**GREEDY, resume_token_ids=made[:count])
            assert made[:count] + ids_of(rest) == made
            assert rest[-1].usage.completion_tokens == 24
        four = await asyncio.gather(*(little.deltas(**GREEDY) for _ in range(4)))
        assert [ids_of(answer) for answer in four] == [made] * 4
        with_logprobs = await little.deltas(**GREEDY, logprobs=True, top_logprob_count=2)
        found = [one for delta in with_logprobs for one in delta.logprobs]
        assert [one.token_id for one in found] == made
        assert all(one.logprob <= 0 and len(one.top) == 2 for one in found)
        await little.set_rank(3)
        absent = await little.until(S.RANK_STATE_ABSENT)
        assert absent.cause.name == "STOPPED"


async def test_a_prepared_rank_waits_for_its_goal_for_longer_than_it_would_without_a_runner(tmp_path: Path) -> None:
    async with running(tmp_path, rank_process.command, rank_without_runner_s=0.5) as little:
        await little.set_rank(1)
        await little.until(S.RANK_STATE_PREPARED, timeout_s=READY_S)
        with pytest.raises(TimeoutError):
            await little.until(S.RANK_STATE_ABSENT, timeout_s=1.5)
        await little.set_rank(2)
        await little.until(S.RANK_STATE_READY, timeout_s=READY_S)


async def test_a_real_rank_drops_what_is_cancelled_and_dies_with_its_streams_told(tmp_path: Path) -> None:
    async with running(tmp_path, rank_process.command) as little:
        pid = (await ready(little)).pid
        request_id = str(uuid.uuid4())
        call = little.generate(**{**GREEDY, "max_tokens": 190}, request_id=request_id, timeout_s=60)
        await anext(aiter(call))
        await little.stub.CancelGeneration(runner_pb2.CancelGenerationRequest(request_id=request_id), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call:
                pass
        assert ids_of(await little.deltas(**GREEDY))
        call = little.generate(**{**GREEDY, "max_tokens": 190}, timeout_s=60)
        await anext(aiter(call))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert isinstance(from_call(caught.value), InstanceFailed)
        gone = await little.until(S.RANK_STATE_ABSENT)
        assert gone.cause.detail.startswith("SIGKILL")


async def test_the_engines_audit_knows_its_architectures(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        models = Models(little.settings)
        assert (await models.audit("little")).verdict is Verdict.USABLE
        folder = make(little.settings.models / "strange")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "frobnicator"}))
        audit = await models.audit("strange")
        assert audit.verdict is Verdict.UNUSABLE
        assert "frobnicator" in audit.problems[0]


async def test_an_architecture_that_the_engine_does_not_know_fails_the_load_for_good(tmp_path: Path) -> None:
    async with running(tmp_path, rank_process.command) as little:
        folder = little.settings.models / "little"
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "frobnicator"}))
        await little.set_rank(1)
        await little.set_rank(2)
        gone = await little.until(S.RANK_STATE_ABSENT, timeout_s=READY_S)
        assert (gone.cause.name, gone.cause.permanent) == ("LOAD_FAILED", True)
        assert "frobnicator" in gone.cause.detail


async def test_a_real_rank_outlives_its_runner_and_its_streams_go_on(runner: Process) -> None:
    wish = {**GREEDY, "max_tokens": 180, "request_id": str(uuid.uuid4()), "timeout_s": 60}
    runner.start("real")
    async with runner.client() as little:
        before = await ready(little)
        undisturbed = ids_of(await little.deltas(**{**wish, "request_id": str(uuid.uuid4())}))
        got: list[int] = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for response in little.generate(**wish):
                got += response.delta.token_ids
                if got and runner.is_running:
                    # It must not be done before its runner is dead.
                    os.kill(before.pid, signal.SIGSTOP)
                    runner.kill()
        os.kill(before.pid, signal.SIGCONT)
        assert 0 < len(got) < 180
    runner.start("real")
    async with runner.client() as little:
        after = await little.until(S.RANK_STATE_READY, look=lambda report: report.attached)
        assert (after.pid, after.engine) == (before.pid, before.engine)
        rest = await little.deltas(**wish, resume_token_ids=got)
        assert got + ids_of(rest) == undisturbed
        os.kill(after.pid, signal.SIGABRT)
        gone = await little.until(S.RANK_STATE_ABSENT)
        assert (gone.cause.name, gone.cause.state) == ("SIGNAL", S.RANK_STATE_READY)
        assert gone.cause.detail.startswith("SIGABRT: ")
        assert gone.cause.detail.endswith("Fatal Python error: Aborted")
