"""`thunderline runner` as a process on a home of its own, its ranks stand-ins: for tests to signal and kill."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from runner import little_model
from runner.little_runner import Little, free_port, read_settings
from thunderline.cluster import InstanceId, RankId
from thunderline.rpc.channel import dial
from thunderline.runner import rank_process
from thunderline.v1 import runner_pb2, runner_pb2_grpc

PROGRAM = Path(__file__).parent / "runner_with_stand_ins.py"


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
            if "--map" in line and str(self.home) in line and living:
                found.append(process.pid)
        return found

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """As nobody expects it; its ranks stay."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(5)

    def end(self) -> None:
        """With its ranks."""
        if self.is_running:
            self.kill()
        for pid in self.ranks():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def map(self, epoch: int = 1) -> Path:
        return rank_process.map_path(self.settings, RankId(InstanceId("i1"), epoch, 0))

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


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until_gone(pid: int, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not gone(pid):
            await asyncio.sleep(0.02)
