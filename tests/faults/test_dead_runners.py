"""The report that started this: a rank aborts under many long prompts. None of them hangs, and nothing of it stays.

Field report: a dead instance that looked idle got every request, each hung for ever, and the zombie stayed.
"""

import asyncio
import os
import signal
from typing import Any

import psutil
import pytest

from installation import DEMO, Installation, until
from thunderline.client import SchedulerClient
from thunderline.v1 import cluster_pb2

COUNT = 24
PROMPT_TOKENS, TOKENS = (240 if os.environ.get("PROVE") else 100), 8
DEADLINE_S = 200.0


async def answer(client: SchedulerClient, number: int, events: list[str]) -> tuple[int, ...]:
    wish = cluster_pb2.Generation(model=DEMO, max_tokens=TOKENS, ignore_eos=True)
    wish.prompt_token_ids.ids.extend(1000 + (number * 997 + place * 31) % 9000 for place in range(PROMPT_TOKENS))
    wish.sampling.seed = number
    found: list[int] = []
    async for delta in client.generate(wish, DEADLINE_S):
        found += delta.token_ids
        if delta.token_ids:
            events.append("token")
    return tuple(found)


async def everybody(up: Installation, abort: bool) -> tuple[list[tuple[int, ...]], int]:
    """All answers, and how many had ended at the abort, which comes with the first token of anybody."""
    events, ended_before = list[str](), 0
    async with SchedulerClient(up.target("scheduler")) as client, asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(answer(client, number, events)) for number in range(COUNT)]
        if abort:
            while not events:
                await asyncio.sleep(0.02)
            os.kill(await asyncio.to_thread(up.pid, "rank"), signal.SIGABRT)
            ended_before = sum(one.done() for one in answers)
    return [one.result() for one in answers], ended_before


@pytest.mark.timeout(400)
def test_a_rank_that_aborts_under_24_long_prompts_loses_none_of_them(
    fresh: Installation, evidence: dict[str, Any]
) -> None:
    until("a good answer", fresh.answers, 60)
    pid = fresh.pid("rank")
    maps = set((fresh.home / "run/ranks").glob("*.map"))
    disturbed, ended_before = asyncio.run(everybody(fresh, abort=True))
    assert ended_before < COUNT, "the fault came too late"
    assert [len(one) for one in disturbed] == [TOKENS] * COUNT
    assert fresh.pid("rank", other_than=pid) != pid
    # Nothing of it is left: process, map, row.
    assert not psutil.pid_exists(pid)
    assert not maps & set((fresh.home / "run/ranks").glob("*.map"))
    ranks = [rank for one in fresh.deployments() for rank in one.get("ranks", [])]
    assert len(ranks) == 1 and ranks[0]["pid"] != pid, ranks
    undisturbed, _ = asyncio.run(everybody(fresh, abort=False))
    assert disturbed == undisturbed
    evidence["long_prompts_equal_after_an_abort"] = COUNT
