"""`thunderline runner`: one rank of each instance on this node, its model files, text in and out."""

import asyncio
import signal
import sys
from collections.abc import Sequence

import grpc

from thunderline.cluster.addresses import target
from thunderline.cluster.errors import Draining
from thunderline.process import metrics, stopping
from thunderline.process.entry import run_role
from thunderline.process.home import node_id, socket_path
from thunderline.process.settings import Settings
from thunderline.process.trust import Wallet
from thunderline.process.version import VERSION
from thunderline.rpc.server import serving
from thunderline.runner import rank_process
from thunderline.runner.attach import RankService
from thunderline.runner.home_lock import alone, free_socket
from thunderline.runner.models import Models
from thunderline.runner.ranks import Command, Ranks
from thunderline.runner.service import RunnerService
from thunderline.v1 import rank_pb2_grpc, runner_pb2_grpc

RUNNER, RANK = "thunderline.v1.RunnerService", "thunderline.v1.RankService"
# Ctrl-C ends ranks within this time, or kills them; `up` allows four seconds for everything.
INTERRUPT_GRACE_S = 2.0
# Streams that failed with their ranks get this long to say so.
INTERRUPT_DRAIN_S = 0.5
# At SIGTERM the ranks stay and keep what they were about, and nobody can be served meanwhile: it is short.
HAND_OVER_S = 0.5


async def serve(settings: Settings, command: Command = rank_process.command) -> None:
    """Until SIGTERM (ranks stay, for the next runner, and streams go on there) or SIGINT (they are ended).

    Raises CannotStart.
    """
    with alone(settings.home):
        socket = socket_path(settings.home, "runner.sock")
        free_socket(socket)
        models = Models(settings)
        ranks = Ranks(settings, models, socket, command)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(ranks.run())
            await ranks.started.wait()
            service = RunnerService(node_id(settings.home), ranks, models, settings.limits)

            def register(server: grpc.aio.Server) -> None:
                runner_pb2_grpc.add_RunnerServiceServicer_to_server(service, server)

            def register_ranks(server: grpc.aio.Server) -> None:
                rank_pb2_grpc.add_RankServiceServicer_to_server(RankService(ranks), server)

            address = target(settings.node.bind, settings.runner.port)
            async with (
                serving(f"unix:{socket}", [RANK], register_ranks),
                serving(address, [RUNNER], register, Wallet(settings.home, settings.cluster.name)) as server,
            ):
                with metrics.served("runner", VERSION, settings.node.metrics_bind, settings.runner.port):
                    await server.serving()
                    why = await stopping.stop_asked()
                    ranks.refusal = Draining("the runner is stopping")
                    ranks.changes.stop()
                    if why is signal.SIGINT:
                        await ranks.end_all(INTERRUPT_GRACE_S)
                        await server.drain(INTERRUPT_DRAIN_S)
                    else:
                        await server.drain(min(settings.limits.drain_s, HAND_OVER_S))
            watching.cancel()
        socket.unlink(missing_ok=True)


def main(argv: Sequence[str]) -> int:
    return run_role("runner", __doc__ or "", argv, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
