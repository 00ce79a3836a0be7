"""A runner and one rank, and nobody beyond them: what the way from rank to runner adds, for `thunderline bench serve`.

`python -m thunderline.runner.bare_runner FOLDER`: one JSON object a line in, {"prompts": [[ids]], "max_tokens"}, and
one out, as thunderline.rank.bare_loop. A token counts once the runner has made it text.
"""

import asyncio
import itertools
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from thunderline.cluster import InstanceId, RankId
from thunderline.process import settings
from thunderline.process.home import socket_path
from thunderline.rpc.server import serving
from thunderline.runner.attach import RankService
from thunderline.runner.fence import Goal
from thunderline.runner.models import Models
from thunderline.runner.ranks import Ranks
from thunderline.runner.requests import Requests
from thunderline.v1 import cluster_pb2, rank_pb2_grpc

STORE, RANK = "bench", RankId(InstanceId("bench"), 1, 0)
KV_TOKENS = 100_000
READY_S, RUN_S, END_S = 120.0, 600.0, 2.0


async def measure(requests: Requests, prompts: Sequence[Sequence[int]], max_tokens: int) -> dict[str, Any]:
    """All prompts at once, to their last tokens."""
    begun = time.monotonic()
    rows = await asyncio.gather(*(_times(requests, ids, max_tokens) for ids in prompts))
    gaps = sorted(after - before for row in rows for before, after in itertools.pairwise(row))
    return {
        "tokens": max_tokens * len(rows),
        "wall_s": max(row[-1] for row in rows) - begun,
        "first_token_s": [row[0] - begun for row in rows],
        "gap_p95_s": gaps[int(0.95 * len(gaps))],
        "gap_max_s": gaps[-1],
    }


async def _times(requests: Requests, ids: Sequence[int], max_tokens: int) -> list[float]:
    wish = cluster_pb2.Generation(request_id=str(uuid.uuid4()), max_tokens=max_tokens, ignore_eos=True)
    wish.prompt_token_ids.ids.extend(ids)
    running = await requests.begin(RANK, wish, RUN_S)
    times: list[float] = []
    async for delta in running.generation.deltas(running.deadline_s):
        times += [time.monotonic()] * len(delta.token_ids)
    running.end()
    return times


async def ready(ranks: Ranks, placement: cluster_pb2.Placement) -> str:
    """Its BLAS, once it is READY."""
    await ranks.command(STORE, RANK, Goal.PREPARED, placement)
    rank = await ranks.command(STORE, RANK, Goal.READY, placement)
    assert rank is not None
    async with asyncio.timeout(READY_S):
        while not rank.is_ready or rank.engine is None:
            version = ranks.changes.version
            await ranks.changes.after(version)
    return rank.engine.blas


async def serve(model: Path, home: Path) -> None:
    """Until the input ends."""
    known = settings.read({"THUNDERLINE_RUNNER_MODEL_ROOTS": str(model.parent)}, home=home)
    socket = socket_path(home, "runner.sock")
    ranks = Ranks(known, Models(known), socket)

    def register(server: grpc.aio.Server) -> None:
        rank_pb2_grpc.add_RankServiceServicer_to_server(RankService(ranks), server)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(ranks.run())
        await ranks.started.wait()
        async with serving(f"unix:{socket}", ["thunderline.v1.RankService"], register):
            spec = cluster_pb2.DeploymentSpec(name="bench", model=str(model))
            placement = cluster_pb2.Placement(
                deployment=spec, instance=RANK.instance, epoch=RANK.epoch, kv_budget_tokens=KV_TOKENS
            )
            print(json.dumps({"blas": await ready(ranks, placement)}), flush=True)
            requests = Requests(ranks, known.limits)
            while line := await asyncio.to_thread(sys.stdin.readline):
                wish = json.loads(line)
                print(json.dumps(await measure(requests, wish["prompts"], wish["max_tokens"])), flush=True)
            ranks.changes.stop()
            await ranks.end_all(END_S)
        watching.cancel()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="thunderline-bench-") as home:
        asyncio.run(serve(Path(sys.argv[1]).resolve(), Path(home)))


if __name__ == "__main__":
    main()
