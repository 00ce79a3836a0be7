"""The runner as a process: how it starts, how it is told to stop, and that it is alone."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runner.little_runner import free_port
from runner.runner_process import Process, gone
from thunderline.cluster.errors import Draining, Unreachable
from thunderline.process.home import socket_path
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.v1 import runner_pb2


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


async def test_sigterm_breaks_streams_soon_and_leaves_the_rank(runner: Process) -> None:
    process = runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
        watch = little.stub.WatchRanks(runner_pb2.WatchRanksRequest())
        await anext(aiter(watch))
        call = little.generate(max_tokens=190)
        await anext(aiter(call))
        begun_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            async for _ in call:
                pass
        assert from_call(broken.value).resumable, "it goes on at the next runner"
        assert time.monotonic() - begun_s < 3
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
