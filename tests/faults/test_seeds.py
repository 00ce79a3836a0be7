"""A seed means the same alone, in a batch that others join and leave, and after a restart of the rank (float32)."""

import asyncio
import os
import random
import signal
from typing import Any

import httpx
import pytest

from e2e.questions import QUESTIONS
from installation import DEMO, Installation, until
from thunderline.client import SchedulerClient
from thunderline.v1 import cluster_pb2

# 48 sampled and 32 greedy in `make prove`, a tenth in `make test`.
SAMPLED, GREEDY = (48, 32) if os.environ.get("PROVE") else (5, 3)
TOKENS = 64
AT_ONCE = 8


def wish(number: int) -> cluster_pb2.Generation:
    """Every sequence is another prompt with another sampling; all are 64 tokens long."""
    found = cluster_pb2.Generation(
        model=DEMO, text=f"{number}. {QUESTIONS[number % len(QUESTIONS)]}", max_tokens=TOKENS, ignore_eos=True
    )
    draw = random.Random(number)
    found.sampling.seed = draw.getrandbits(64)
    if number < SAMPLED:
        found.sampling.temperature = draw.choice([0.5, 0.8, 1.0])
        found.sampling.top_p = draw.choice([0.0, 0.8, 0.95])
        found.sampling.top_k = draw.choice([0, 0, 40])
        found.sampling.min_p = draw.choice([0.0, 0.0, 0.05])
        found.sampling.presence_penalty = draw.choice([0.0, 0.5])
    return found


async def answer(client: SchedulerClient, number: int) -> tuple[int, ...]:
    deltas = client.generate(wish(number), deadline_s=300)
    return tuple([token async for delta in deltas for token in delta.token_ids])


async def one_by_one(target: str) -> list[tuple[int, ...]]:
    async with SchedulerClient(target) as client:
        return [await answer(client, number) for number in range(SAMPLED + GREEDY)]


async def stranger(client: SchedulerClient, draw: random.Random) -> None:
    """Joins for some tokens and leaves."""
    other = cluster_pb2.Generation(model=DEMO, text=f"{draw.random()} Once", max_tokens=60, ignore_eos=True)
    other.sampling.temperature = 1.0
    left = draw.randint(1, 30)
    deltas = client.generate(other, deadline_s=300)
    async for delta in deltas:
        left -= len(delta.token_ids)
        if left <= 0:
            break
    await deltas.aclose()  # type: ignore[attr-defined]


async def in_company(target: str, seed: int) -> list[tuple[int, ...]]:
    """Eight at a time in an order of its own; strangers come and go beside them."""
    draw = random.Random(seed)
    order = draw.sample(range(SAMPLED + GREEDY), k=SAMPLED + GREEDY)
    room = asyncio.Semaphore(AT_ONCE)
    found: dict[int, tuple[int, ...]] = {}
    async with SchedulerClient(target) as client:

        async def one(number: int) -> None:
            async with room:
                await asyncio.sleep(draw.random())
                found[number] = await answer(client, number)

        async def strangers() -> None:
            while len(found) < SAMPLED + GREEDY:
                await stranger(client, draw)

        async with asyncio.TaskGroup() as group:
            group.create_task(strangers())
            for number in order:
                group.create_task(one(number))
    return [found[number] for number in range(SAMPLED + GREEDY)]


# 80 sequences one by one take six minutes on two cores.
@pytest.mark.timeout(1800)
def test_a_seed_means_the_same_in_any_company_and_after_a_restart(
    fresh: Installation, evidence: dict[str, Any]
) -> None:
    target = fresh.target("scheduler")
    alone = asyncio.run(one_by_one(target))
    assert all(len(tokens) == TOKENS for tokens in alone)
    assert asyncio.run(in_company(target, seed=1)) == alone
    pid = fresh.pid("rank")
    os.kill(pid, signal.SIGKILL)
    fresh.pid("rank", other_than=pid, timeout_s=60)
    until("a good answer", fresh.answers, 60)
    assert asyncio.run(in_company(target, seed=2)) == alone
    evidence.update(sampled=SAMPLED, greedy=GREEDY, tokens_each=TOKENS, equal_in_company=len(alone))
    evidence["equal_after_a_restart_of_the_rank"] = len(alone)


def test_the_text_of_a_seed_over_http_is_the_same_alone_and_together(fresh: Installation) -> None:
    def body(number: int) -> dict[str, Any]:
        return {"model": DEMO, "prompt": f"{number} Tell me", "seed": number, "max_tokens": 24, "temperature": 0.9}

    async def ask(numbers: list[int]) -> list[str]:
        async with httpx.AsyncClient(timeout=120) as client:
            answers = await asyncio.gather(
                *(client.post(f"{fresh.url}/v1/completions", json=body(number)) for number in numbers)
            )
        return [one.json()["choices"][0]["text"] for one in answers]

    alone = [asyncio.run(ask([number]))[0] for number in range(3)]
    assert asyncio.run(ask([0, 1, 2])) == alone
