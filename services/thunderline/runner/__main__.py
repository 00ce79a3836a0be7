"""`thunderline runner`: one rank of each instance on this node, its model files, text in and out."""

import asyncio
import contextlib
import fcntl
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc

from thunderline.cluster.errors import Draining
from thunderline.process import metrics, stopping
from thunderline.process.entry import CannotStart, run_role
from thunderline.process.home import node_id, socket_path
from thunderline.process.settings import Settings
from thunderline.process.version import VERSION
from thunderline.rpc.server import serving
from thunderline.runner.attach import RankService
from thunderline.runner.models import Models
from thunderline.runner.ranks import Ranks
from thunderline.runner.service import RunnerService
from thunderline.v1 import rank_pb2_grpc, runner_pb2_grpc

RUNNER, RANK = "thunderline.v1.RunnerService", "thunderline.v1.RankService"
# Ctrl-C ends ranks within this time; `up` allows four seconds for everything.
INTERRUPT_GRACE_S = 1.5


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Holds the home's runner lock. Raises CannotStart when another runner has it."""
    path = home / "run" / "runner.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"another runner serves {home}") from None
        yield


async def serve(settings: Settings) -> None:
    """Until SIGTERM (ranks stay, for the next runner) or SIGINT (they are ended)."""
    with alone(settings.home):
        socket = socket_path(settings.home, "runner.sock")
        socket.unlink(missing_ok=True)
        models = Models(settings)
        ranks = Ranks(settings, models, socket)
        service = RunnerService(node_id(settings.home), ranks, models, settings.limits.rank_request_count_max)

        def register(server: grpc.aio.Server) -> None:
            runner_pb2_grpc.add_RunnerServiceServicer_to_server(service, server)

        def register_ranks(server: grpc.aio.Server) -> None:
            rank_pb2_grpc.add_RankServiceServicer_to_server(RankService(ranks), server)

        address = f"{settings.node.bind}:{settings.runner.port}"
        bind = settings.node.metrics_bind
        async with serving(address, [RUNNER], register) as server, serving(f"unix:{socket}", [RANK], register_ranks):
            with metrics.served("runner", VERSION, bind, settings.runner.port):
                watching = asyncio.create_task(ranks.run())
                await server.serving()
                stop = asyncio.create_task(stopping.stop_asked())
                await asyncio.wait({stop, watching}, return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    watching.result()
                ranks.refusal = Draining("the runner is stopping")
                ranks.changes.stop()
                if stop.result() is signal.SIGINT:
                    await ranks.end_all(INTERRUPT_GRACE_S)
                    await server.drain(0)
                else:
                    await server.drain(settings.limits.drain_s)
                watching.cancel()
        socket.unlink(missing_ok=True)


def main(argv: Sequence[str]) -> int:
    return run_role("runner", __doc__ or "", argv, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
