"""A real runner on loopback for tests: its services, its socket, its ranks' processes; only the ranks are stand-ins."""

import asyncio
import contextlib
import json
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from runner import little_model
from thunderline.cluster import NodeId, RankId
from thunderline.cluster.errors import ClusterError
from thunderline.process import settings
from thunderline.process.home import socket_path
from thunderline.process.settings import Settings
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.rpc.server import serving
from thunderline.runner import rank_process
from thunderline.runner.attach import RankService
from thunderline.runner.models import Models
from thunderline.runner.ranks import Command, Ranks
from thunderline.runner.service import RunnerService
from thunderline.v1 import cluster_pb2, rank_pb2_grpc, runner_pb2, runner_pb2_grpc

STAND_IN = Path(__file__).parent / "stand_in_rank.py"
ENDS = Path(__file__).parent / "rank_that_ends.py"
PREPARED, READY, ABSENT = 1, 2, 3


def stand_in(behave: str = "") -> Command:
    def command(known: Settings, rank: RankId, path: Path) -> list[str]:
        return [sys.executable, str(STAND_IN), *rank_process.flags(known, rank, path), "--behave", behave]

    return command


def ends(known: Settings, rank: RankId, path: Path) -> list[str]:
    """A real rank that does in a step what it is told to."""
    return [sys.executable, str(ENDS), *rank_process.flags(known, rank, path)]


def supported(folder: Path) -> list[str]:
    """Instead of the engine's child."""
    told = {"supported": True, "splits": {"pipeline": True, "tensor_reason": "no"}}
    return [sys.executable, "-c", f"print({json.dumps(told)!r})"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_settings(home: Path, **limits: float) -> Settings:
    variables = {f"THUNDERLINE_LIMITS_{key.upper()}": str(value) for key, value in limits.items()}
    return settings.read(variables, home=home)


@dataclass
class Little:
    """A running runner and a client of it."""

    settings: Settings
    ranks: Ranks
    stub: "runner_pb2_grpc.RunnerServiceAsyncStub"
    model: str = "little"
    store: str = "store"
    instance: str = "i1"

    def rank_id(self, epoch: int = 1) -> cluster_pb2.RankId:
        return cluster_pb2.RankId(instance=self.instance, epoch=epoch, rank=0)

    def placement(self, epoch: int = 1, model: str = "") -> cluster_pb2.Placement:
        spec = cluster_pb2.DeploymentSpec(name="little", model=model or self.model)
        return cluster_pb2.Placement(deployment=spec, instance=self.instance, epoch=epoch, kv_budget_tokens=200)

    async def set_rank(self, goal: int, epoch: int = 1, **changes: object) -> cluster_pb2.RankReport:
        request = runner_pb2.SetRankRequest(
            store_id=self.store,
            id=self.rank_id(epoch),
            goal=goal,  # type: ignore[arg-type]
            placement=None if goal == ABSENT else self.placement(epoch),
        )
        request.MergeFrom(runner_pb2.SetRankRequest(**changes))  # type: ignore[arg-type]
        return (await self.stub.SetRank(request, timeout=10)).rank

    async def until(
        self,
        state: int,
        epoch: int = 1,
        timeout_s: float = 20,
        look: Callable[[cluster_pb2.RankReport], bool] | None = None,
    ) -> cluster_pb2.RankReport:
        """The first report of the rank in this state, from the watch."""
        seen: list[int] = []
        async with asyncio.timeout(timeout_s):
            async for view in self.stub.WatchRanks(runner_pb2.WatchRanksRequest()):
                for report in view.ranks:
                    if (report.id.instance, report.id.epoch) == (self.instance, epoch):
                        seen.append(report.state)
                        if report.state == state and (look is None or look(report)):
                            return report
        raise AssertionError(seen)

    async def ready(self, epoch: int = 1) -> cluster_pb2.RankReport:
        await self.set_rank(PREPARED, epoch)
        await self.set_rank(READY, epoch)
        return await self.until(cluster_pb2.RANK_STATE_READY, epoch)

    def generate(
        self, timeout_s: float | None = 20, epoch: int = 1, **wish: object
    ) -> "grpc.aio.UnaryStreamCall[runner_pb2.RunnerServiceGenerateRequest, runner_pb2.RunnerServiceGenerateResponse]":
        wish.setdefault("request_id", str(uuid.uuid4()))
        if not wish.keys() & {"chat", "text", "prompt_token_ids"}:
            wish["text"] = "the quick brown fox"
        generation = cluster_pb2.Generation(model="little", **wish)  # type: ignore[arg-type]
        request = runner_pb2.RunnerServiceGenerateRequest(generation=generation, target=self.rank_id(epoch))
        return self.stub.Generate(request, timeout=timeout_s)

    async def deltas(self, **wish: object) -> list[cluster_pb2.GenerationDelta]:
        return [response.delta async for response in self.generate(**wish)]  # type: ignore[arg-type]

    async def refused(self, **wish: object) -> ClusterError:
        """The error that a Generate ends with."""
        try:
            await self.deltas(**wish)
        except grpc.aio.AioRpcError as error:
            return from_call(error)
        raise AssertionError("it was not refused")

    def log(self, epoch: int = 1) -> str:
        """What the rank's process printed."""
        return (self.settings.logs / "ranks" / f"{self.instance}-{epoch}-0.log").read_text()


def text_of(deltas: Sequence[cluster_pb2.GenerationDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def ids_of(deltas: Sequence[cluster_pb2.GenerationDelta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


@contextlib.asynccontextmanager
async def running(home: Path, command: Command | None = None, **limits: float) -> AsyncIterator[Little]:
    """A runner with the model "little"; its ranks are ended with it."""
    known = read_settings(home, **{"rank_stop_grace_s": 1.0, **limits})
    if not (known.models / "little").exists():
        little_model.make(known.models / "little")
    path = socket_path(home, "runner.sock")
    path.unlink(missing_ok=True)
    models = Models(known, supported)
    ranks = Ranks(known, models, path, command or stand_in())
    service = RunnerService(NodeId("node"), ranks, models, known.limits)
    address = f"127.0.0.1:{free_port()}"

    def register(server: grpc.aio.Server) -> None:
        runner_pb2_grpc.add_RunnerServiceServicer_to_server(service, server)

    def register_ranks(server: grpc.aio.Server) -> None:
        rank_pb2_grpc.add_RankServiceServicer_to_server(RankService(ranks), server)

    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(ranks.run())
        await ranks.started.wait()
        async with (
            serving(f"unix:{path}", ["thunderline.v1.RankService"], register_ranks),
            serving(address, ["thunderline.v1.RunnerService"], register),
            dial(address) as channel,
        ):
            try:
                yield Little(known, ranks, runner_pb2_grpc.RunnerServiceStub(channel))
            finally:
                ranks.changes.stop()
                await ranks.end_all(1.0)
        keeping.cancel()
