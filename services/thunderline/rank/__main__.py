"""`thunderline rank`: the engine process of one rank. Started by a runner; dials it and serves nothing.

Exit codes: 0 stopped as asked, 2 usage, 3 the model cannot be loaded, 4 an exception, 5 it had no runner.
"""

import argparse
import asyncio
import faulthandler
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.limits import DEFAULTS
from thunderline.cluster.ranks import RankState
from thunderline.process import logs, tethered
from thunderline.process.entry import DONE, USAGE, refuse
from thunderline.rank import alarm, blas, text_half
from thunderline.rank.mark import Mark

BUG, RUNNER_GONE = 4, 5
FLUSH_S = 1.0
STOP_WAIT_S = 3.0

log = logging.getLogger(__name__)


async def attend(
    arguments: argparse.Namespace, computes: blas.Blas, mark: Mark, on_step: Callable[[Any], Any] | None
) -> int:
    """From hello to the end. Returns the exit code."""
    from thunderline.rank.attach import Attachment
    from thunderline.rank.worker import Worker

    loop = asyncio.get_running_loop()
    rank = RankId(InstanceId(arguments.instance), arguments.epoch, arguments.rank)
    attachment = Attachment(rank, mark, arguments.socket, os.getpid())
    ended: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def end_soon(code: int) -> None:
        loop.call_soon_threadsafe(end, code)

    def ready() -> None:
        # Until READY the default action ends us even inside C++; from then on the step under way may end.
        loop.call_soon_threadsafe(loop.add_signal_handler, signal.SIGTERM, end, DONE)

    worker = Worker(mark, str(computes), attachment.post, attachment.unsent_count, ready, end_soon, on_step)

    async def watch() -> None:
        """A rank whose runner stays away ends itself; one that is not wanted too."""
        while True:
            await asyncio.sleep(0.1)
            since_s = attachment.unattended_since_s
            if attachment.refused:
                log.warning("the runner does not want this rank: it ends")
                return end(RUNNER_GONE)
            if since_s is not None and loop.time() - since_s > arguments.runner_gone_s:
                log.warning("no runner came back within %g s: the rank ends", arguments.runner_gone_s)
                return end(RUNNER_GONE)

    tasks: set[asyncio.Future[Any]] = {
        ended,
        asyncio.ensure_future(attachment.run(worker)),
        asyncio.ensure_future(watch()),
    }
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done - {ended}:
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.critical("the rank ended by a bug", exc_info=bug)
            end(BUG)
        # The runner does not know this rank.
        end(RUNNER_GONE)
    code = ended.result()
    if code not in (DONE, RUNNER_GONE):
        await attachment.flushed(FLUSH_S)
    worker.stop(STOP_WAIT_S if code == DONE else 0.0)
    return code


def probe(computes: blas.Blas) -> dict[str, object]:
    """What MLX can do on this node."""
    import mlx.core as mx

    gpu = mx.default_device() == mx.Device(mx.gpu)
    return {
        "device": "gpu" if gpu else "cpu",
        "backends": [name for name in ("ring", "jaccl", "nccl", "mpi") if mx.distributed.is_available(name)],
        # What Metal recommends to keep at once; a CPU says nothing.
        "working_set_bytes": int(mx.device_info().get("max_recommended_working_set_size", 0)),
        "blas": str(computes),
        "blas_is_fast": computes.is_fast,
        "mlx": version("mlx"),
    }


def main(argv: Sequence[str], on_step: Callable[[Any], Any] | None = None) -> int:
    """`on_step` is the engine's hook (rank/engine.py): a test build's `thunderline` gives one."""
    parser = argparse.ArgumentParser(prog="thunderline rank", description=__doc__)
    parser.add_argument("--probe", action="store_true", help="print what MLX can do here, as JSON")
    parser.add_argument("--audit", type=Path, metavar="FOLDER", help="print what may be done with a model, as JSON")
    parser.add_argument("--without-splits", action="store_true", help="audit only what one rank needs to know")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--instance")
    parser.add_argument("--epoch", type=int)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--map", type=Path)
    parser.add_argument("--socket", type=Path)
    parser.add_argument("--runner-gone-s", type=float, default=DEFAULTS.rank_without_runner_s)
    parser.add_argument("--prepare-s", type=float, default=DEFAULTS.prepare_s)
    parser.add_argument("--load-stall-s", type=float, default=DEFAULTS.load_stall_s)
    parser.add_argument("--warm-up-s", type=float, default=DEFAULTS.warm_up_s)
    arguments = parser.parse_args(argv)
    if arguments.probe or arguments.audit:
        # Asked by somebody who waits; a rank proper outlives its runner.
        tethered.end_with_parent()
    computes = blas.load()
    text_half.leave_out()
    if arguments.probe:
        print(json.dumps(probe(computes)))
        return DONE
    if arguments.audit:
        from thunderline.rank.audit import audit

        print(json.dumps(audit(arguments.audit, not arguments.without_splits)))
        return DONE
    if None in (arguments.instance, arguments.epoch, arguments.rank, arguments.map, arguments.socket):
        return refuse("rank", "is started by a runner: --instance --epoch --rank --map --socket are needed", USAGE)
    faulthandler.enable()
    logs.configure("rank", "info")
    # Locked before the slow imports: who looks for ranks to end has to find this one.
    allowed_s = {
        RankState.STARTING: arguments.prepare_s,
        RankState.LOADING: arguments.load_stall_s,
        RankState.WARMING: arguments.warm_up_s,
    }
    # Our own timer comes after the runner's judgement: only for a rank that has none.
    mark = Mark(arguments.map, allowed_s, alarm.arm)
    # The slow imports belong before PREPARED: all ranks of an epoch meet after them.
    import mlx.core  # noqa: F401
    import mlx_lm  # noqa: F401

    code = asyncio.run(attend(arguments, computes, mark, on_step))
    mark.leave(code)
    sys.stdout.flush()
    sys.stderr.flush()
    # The engine thread may be inside C++ for seconds; nobody waits for it.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
