"""Requests by gRPC straight to a runner: what lies between a rank and its runner, and nothing else."""

import asyncio
import itertools
import time
import uuid
from collections.abc import Sequence

from thunderline.cli.bench.cells import NEW_TOKENS, Run, percentile
from thunderline.cli.bench.load import WrongAnswer
from thunderline.client.runner import RunnerClient
from thunderline.client.scheduler import SchedulerClient
from thunderline.v1 import cluster_pb2


async def streams(scheduler: str, runner: str, prompts: Sequence[Sequence[int]]) -> Run:
    """All prompts at once, at the only rank that there is. Raises ClusterError, WrongAnswer."""
    async with SchedulerClient(scheduler) as cluster, RunnerClient(runner) as client:
        (target,) = [rank.id for one in (await cluster.cluster()).deployments for rank in one.ranks]
        begun = time.monotonic()
        stamps = await asyncio.gather(*(_stream(client, target, ids) for ids in prompts))
    wall_s = max(times[-1] for times in stamps) - begun
    gaps = [after - before for times in stamps for before, after in itertools.pairwise(times)]
    return Run(
        tokens=NEW_TOKENS * len(prompts),
        wall_s=wall_s,
        first_token_s=tuple(times[0] - begun for times in stamps),
        gap_p95_s=percentile(gaps, 0.95),
        gap_max_s=max(gaps),
    )


async def _stream(client: RunnerClient, target: cluster_pb2.RankId, ids: Sequence[int]) -> list[float]:
    wish = cluster_pb2.Generation(request_id=str(uuid.uuid4()), max_tokens=NEW_TOKENS, ignore_eos=True)
    wish.prompt_token_ids.ids.extend(ids)
    times, tokens = [], 0
    async for delta in client.generate(target, wish):
        tokens += len(delta.token_ids)
        if delta.token_ids:
            times.append(time.monotonic())
    if tokens != NEW_TOKENS:
        raise WrongAnswer(f"{tokens} tokens instead of {NEW_TOKENS}")
    return times
