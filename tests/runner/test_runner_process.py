"""The runner as a process: how it starts, how it is told to stop, and what it finds after kill -9."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runner import little_model
from runner.little_runner import PREPARED, Little, free_port, read_settings
from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.errors import Draining, Unreachable
from thunderline.process.home import socket_path
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.runner import rank_process
from thunderline.v1 import cluster_pb2, runner_pb2, runner_pb2_grpc

PROGRAM = Path(__file__).parent / "runner_with_stand_ins.py"
S = cluster_pb2


class Process:
    """One runner on a home; its rank processes are ended with the test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = read_settings(home)
        little_model.make(self.settings.models / "little")
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    def start(self, behave: str = "", port: int = 0, **limits: float) -> "subprocess.Popen[str]":
        variables = {f"THUNDERLINE_LIMITS_{key.upper()}": str(value) for key, value in limits.items()}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
        tests = str(PROGRAM.parent.parent)
        with (self.home / "runner.err").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), behave, "--home", str(self.home), "--port", str(port or self.port)],
                env={**inherited, **variables, "PYTHONPATH": tests},
                stderr=errors,
                text=True,
            )
        return self.process

    def errors(self) -> str:
        return (self.home / "runner.err").read_text()

    def ranks(self) -> list[int]:
        """Pids of this home's rank processes."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            living = process.info["status"] != psutil.STATUS_ZOMBIE
            if "stand_in_rank.py" in line and str(self.home) in line and living:
                found.append(process.pid)
        return found

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Little]:
        async with dial(f"127.0.0.1:{self.port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 15)
            yield Little(self.settings, None, runner_pb2_grpc.RunnerServiceStub(channel))  # type: ignore[arg-type]

    async def complete(self, little: Little, timeout_s: float = 15) -> runner_pb2.WatchRanksResponse:
        async with asyncio.timeout(timeout_s):
            async for view in little.stub.WatchRanks(runner_pb2.WatchRanksRequest()):
                if view.complete:
                    return view
        raise AssertionError("the watch ended")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait(5)
    for pid in made.ranks():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until_gone(pid: int, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not gone(pid):
            await asyncio.sleep(0.02)


async def test_ctrl_c_ends_ranks_streams_and_itself_within_three_seconds(runner: Process) -> None:
    process = runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
        call = little.generate(max_tokens=190)
        await anext(aiter(call))
        begun_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert from_call(caught.value).resumable
        assert process.wait(5) == 0
        assert time.monotonic() - begun_s < 3
    assert gone(pid)
    assert runner.ranks() == []


async def test_ctrl_c_kills_a_rank_that_ignores_sigterm(runner: Process) -> None:
    process = runner.start("ignores_sigterm")
    async with runner.client() as little:
        pid = (await little.ready()).pid
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
    assert gone(pid)


async def test_sigterm_lets_streams_end_and_leaves_the_rank(runner: Process) -> None:
    process = runner.start(rank_without_runner_s=60)
    async with runner.client() as little:
        pid = (await little.ready()).pid
        watch = little.stub.WatchRanks(runner_pb2.WatchRanksRequest())
        await anext(aiter(watch))
        call = little.generate(max_tokens=60)
        await anext(aiter(call))
        process.send_signal(signal.SIGTERM)
        answer = [response.delta async for response in call]
        assert answer[-1].finish_reason == S.FINISH_REASON_LENGTH
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in watch:
                pass
        assert isinstance(from_call(caught.value), Draining | Unreachable)
        assert process.wait(5) == 0
    assert not gone(pid), "the rank stays, for the next runner"


async def test_sigterm_with_nothing_to_wait_for_is_quick(runner: Process) -> None:
    process = runner.start()
    async with runner.client() as little:
        await little.ready()
        begun_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert time.monotonic() - begun_s < 1


async def test_after_kill_minus_nine_the_next_runner_waits_for_the_old_ranks(runner: Process) -> None:
    process = runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
    process.kill()
    process.wait(5)
    runner.start()
    async with runner.client() as little:
        view = await runner.complete(little)
        assert gone(pid)
        assert list(view.ranks) == []
        assert view.store_id == "store"
        assert list((runner.home / "run" / "ranks").iterdir()) == []
        # The epoch was started once; the next one serves.
        assert (await little.set_rank(PREPARED)).state == S.RANK_STATE_ABSENT
        await little.ready(epoch=2)
        assert [delta.text for delta in await little.deltas(epoch=2, text="the", max_tokens=1) if delta.text]


async def test_an_old_rank_that_is_stuck_is_killed_in_the_end(runner: Process) -> None:
    process = runner.start("never_dials", rank_without_runner_s=0.1)
    async with runner.client() as little:
        await little.set_rank(PREPARED)
        pid = (await little.until(S.RANK_STATE_STARTING, look=lambda report: report.pid > 0)).pid
        async with asyncio.timeout(10):
            while not any(rank_process.map_path(runner.settings, RankId(InstanceId("i1"), 1, 0)).read_bytes()):
                await asyncio.sleep(0.02)
    process.kill()
    process.wait(5)
    runner.start(rank_without_runner_s=0.1)
    async with runner.client() as little:
        async for first in little.stub.WatchRanks(runner_pb2.WatchRanksRequest()):
            assert not first.complete
            break
        assert not gone(pid)
        await runner.complete(little)
        await until_gone(pid, 1)


async def test_a_second_runner_on_the_same_home_is_refused_in_one_line(runner: Process) -> None:
    runner.start()
    async with runner.client():
        second = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "thunderline.runner", "--home", str(runner.home), "--port", str(free_port())],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert second.returncode == 1
    assert second.stderr == f"thunderline runner: another runner serves {runner.home}\n"


def test_a_taken_port_is_refused_in_one_line(runner: Process) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        process = runner.start(port=holder.getsockname()[1])
        assert process.wait(20) == 1
    # gRPC's C core may say it in its own words before.
    ours = [line for line in runner.errors().splitlines() if line.startswith("thunderline runner: ")]
    assert len(ours) == 1
    assert "cannot listen on 127.0.0.1:" in ours[0]


def test_a_socket_that_another_process_answers_on_is_refused(runner: Process) -> None:
    path = socket_path(runner.home, "runner.sock")
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(str(path))
        holder.listen()
        assert runner.start().wait(20) == 1
    assert "answers" in runner.errors()
    assert path.exists()


async def test_health_serves_once_it_works(runner: Process) -> None:
    process = runner.start()
    async with dial(f"127.0.0.1:{runner.port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 15)
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "thunderline.v1.RunnerService"):
            answer = await stub.Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(service=service), timeout=5
            )
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0


async def test_its_log_is_one_json_object_a_line(runner: Process) -> None:
    process = runner.start()
    async with runner.client() as little:
        await little.ready()
    process.send_signal(signal.SIGTERM)
    process.wait(5)
    assert all(json.loads(line)["role"] == "runner" for line in runner.errors().splitlines())
