"""A seed means the same alone, in a batch that others join and leave, and after a restart of the rank (float32).

Each sequence is asked alone by gRPC, and in company once by gRPC and once over HTTP, where only its text can be seen.
"""

import asyncio
import os
import random
import signal
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from e2e.questions import QUESTIONS
from installation import DEMO, Installation, until
from thunderline.client import SchedulerClient
from thunderline.v1 import cluster_pb2

# 48 sampled and 32 greedy in `make prove`, a tenth in `make test`.
SAMPLED, GREEDY, TOKENS = (48, 32, 64) if os.environ.get("PROVE") else (5, 3, 32)
ALL = range(SAMPLED + GREEDY)
AT_ONCE = 8
DEADLINE_S = 300
# HTTP has no `ignore_eos`: the end tokens never come, so that all are as long.
NO_END = {0: -100.0, 2: -100.0}


@dataclass(frozen=True)
class Answer:
    """`token_ids` is None over HTTP."""

    text: str
    token_ids: tuple[int, ...] | None = None

    def equals(self, alone: "Answer") -> bool:
        return self.text == alone.text and self.token_ids in (None, alone.token_ids)


def wish(number: int) -> cluster_pb2.Generation:
    """Every sequence is another prompt with another sampling; all are as long."""
    found = cluster_pb2.Generation(
        model=DEMO, text=f"{number}. {QUESTIONS[number % len(QUESTIONS)]}", max_tokens=TOKENS, ignore_eos=True
    )
    found.sampling.logit_bias.update(NO_END)
    draw = random.Random(number)
    found.sampling.seed = draw.getrandbits(64)
    if number < SAMPLED:
        found.sampling.temperature = draw.choice([0.5, 0.8, 1.0])
        found.sampling.top_p = draw.choice([0.0, 0.8, 0.95])
        found.sampling.top_k = draw.choice([0, 0, 40])
        found.sampling.min_p = draw.choice([0.0, 0.0, 0.05])
        found.sampling.presence_penalty = draw.choice([0.0, 0.5])
    return found


def body(number: int) -> dict[str, Any]:
    """The same over HTTP."""
    same = wish(number)
    sampling = same.sampling
    fields = ("top_p", "top_k", "min_p", "presence_penalty")
    return {
        "model": same.model,
        "prompt": same.text,
        "max_tokens": same.max_tokens,
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()},
        **{field: value for field in fields if (value := getattr(sampling, field))},
    }


async def by_grpc(client: SchedulerClient, number: int) -> Answer:
    token_ids: list[int] = []
    text = ""
    async for delta in client.generate(wish(number), deadline_s=DEADLINE_S):
        token_ids.extend(delta.token_ids)
        text += delta.text
    return Answer(text, tuple(token_ids))


async def over_http(client: httpx.AsyncClient, number: int) -> Answer:
    response = await client.post("/v1/completions", json=body(number))
    assert response.status_code == 200, response.text
    whole = response.json()
    assert whole["usage"]["completion_tokens"] == TOKENS
    return Answer(whole["choices"][0]["text"])


async def one_by_one(target: str) -> list[Answer]:
    async with SchedulerClient(target) as client:
        return [await by_grpc(client, number) for number in ALL]


async def stranger(client: SchedulerClient, draw: random.Random) -> None:
    """Joins for some tokens and leaves."""
    other = cluster_pb2.Generation(model=DEMO, text=f"{draw.random()} Once", max_tokens=60, ignore_eos=True)
    other.sampling.temperature = 1.0
    left = draw.randint(1, 30)
    deltas = client.generate(other, deadline_s=DEADLINE_S)
    async for delta in deltas:
        left -= len(delta.token_ids)
        if left <= 0:
            break
    await deltas.aclose()  # type: ignore[attr-defined]


async def in_company(fresh: Installation, seed: int, http: range) -> list[Answer]:
    """Eight at a time in an order of its own, those of `http` over HTTP; strangers come and go beside them."""
    draw = random.Random(seed)
    order = draw.sample(ALL, k=len(ALL))
    room = asyncio.Semaphore(AT_ONCE)
    found: dict[int, Answer] = {}
    async with (
        SchedulerClient(fresh.target("scheduler")) as client,
        httpx.AsyncClient(base_url=fresh.url, timeout=DEADLINE_S) as http_client,
    ):

        async def one(number: int) -> None:
            async with room:
                await asyncio.sleep(draw.random())
                asked = over_http(http_client, number) if number in http else by_grpc(client, number)
                found[number] = await asked

        async def strangers() -> None:
            while len(found) < len(ALL):
                await stranger(client, draw)

        async with asyncio.TaskGroup() as group:
            group.create_task(strangers())
            for number in order:
                group.create_task(one(number))
    return [found[number] for number in ALL]


# 80 sequences one by one take six minutes on two cores.
@pytest.mark.timeout(1800)
def test_a_seed_means_the_same_in_any_company_and_after_a_restart(
    fresh: Installation, evidence: dict[str, Any]
) -> None:
    alone = asyncio.run(one_by_one(fresh.target("scheduler")))
    assert all(one.token_ids is not None and len(one.token_ids) == TOKENS for one in alone)
    assert len({one.text for one in alone}) > 1

    def equal(company: list[Answer], http: bool) -> int:
        """How many were equal of those that came this way; fails when one was not."""
        pairs = [(one, wanted) for one, wanted in zip(company, alone, strict=True) if (one.token_ids is None) is http]
        assert not [(one, wanted) for one, wanted in pairs if not one.equals(wanted)]
        return len(pairs)

    before = asyncio.run(in_company(fresh, seed=1, http=ALL[1::2]))
    ids_before, texts_before = equal(before, http=False), equal(before, http=True)
    pid = fresh.pid("rank")
    os.kill(pid, signal.SIGKILL)
    fresh.pid("rank", other_than=pid, timeout_s=60)
    until("a good answer", fresh.answers, 60)
    # Now the others over HTTP: each was asked both ways.
    after = asyncio.run(in_company(fresh, seed=2, http=ALL[::2]))
    ids_after, texts_after = equal(after, http=False), equal(after, http=True)
    assert ids_before + ids_after == texts_before + texts_after == len(alone)
    evidence.update(sampled=SAMPLED, greedy=GREEDY, tokens_each=min(len(one.token_ids or ()) for one in alone))
    evidence.update(equal_in_company=ids_before + texts_before, of_these_as_text_over_http=texts_before)
    evidence["equal_after_a_restart_of_the_rank"] = ids_after + texts_after
    evidence["after_a_restart_as_text_over_http"] = texts_after
