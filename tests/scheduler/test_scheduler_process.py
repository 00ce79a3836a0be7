"""`thunderline scheduler` as a process: how it is told to stop under streams."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest

from scheduler.little_runner import first_then
from scheduler.little_scheduler import free_address, house
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import Draining, Unreachable
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2, scheduler_pb2, scheduler_pb2_grpc

READY_S = 40.0


def start(home: Path, address: str, discovery: str) -> "subprocess.Popen[bytes]":
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
    ports = {"SCHEDULER": address, "DISCOVERY": discovery}
    variables = {f"THUNDERLINE_{role}_PORT": at.rpartition(":")[2] for role, at in ports.items()}
    program = Path(sys.executable).parent / "thunderline"
    with (home / "scheduler.err").open("w") as errors:
        return subprocess.Popen(
            [str(program), "scheduler", "--home", str(home)], env={**inherited, **variables}, stderr=errors
        )


async def ready(client: SchedulerClient) -> None:
    """Its start, a deployment "m", and that it is READY."""
    async with asyncio.timeout(READY_S):
        while True:
            try:
                await client.deploy(cluster_pb2.DeploymentSpec(name="m", model="org/m"))
                break
            except Unreachable:
                await asyncio.sleep(0.1)
        async for cluster in client.watch_cluster():
            if any(one.state == cluster_pb2.DEPLOYMENT_STATE_READY for one in cluster.deployments):
                return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
async def test_it_stops_within_two_seconds_and_its_streams_go_on_elsewhere(
    tmp_path: Path, number: signal.Signals
) -> None:
    address = free_address()
    async with house(tmp_path) as home, dial(address) as channel:
        home.runner.answer = first_then(asyncio.Event().wait)
        process = start(tmp_path, address, home.discovery)
        try:
            async with SchedulerClient(address) as client:
                await ready(client)
            wish = cluster_pb2.Generation(request_id=str(uuid.uuid4()), model="m", text="one two")
            request = scheduler_pb2.SchedulerServiceGenerateRequest(generation=wish)
            call = scheduler_pb2_grpc.SchedulerServiceStub(channel).Generate(request, timeout=READY_S)
            first: Any = await call.read()
            assert first.delta.token_ids
            begun_s = time.monotonic()
            process.send_signal(number)
            with pytest.raises(grpc.aio.AioRpcError) as broken:
                await call.read()
            assert time.monotonic() - begun_s < 1
            assert isinstance(from_call(broken.value), Draining)
            assert await asyncio.to_thread(process.wait, 5) == 0
            assert time.monotonic() - begun_s < 2
        finally:
            process.kill()
            await asyncio.to_thread(process.wait, 5)
        assert (home.runner.broken, home.runner.cancelled) == ([wish.request_id], [])
