"""Requests to an OpenAI-compatible /v1/completions, measured from outside."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx

from thunderline.cli.bench.cells import NEW_TOKENS, TEMPERATURE, TOP_P, Run, Streams, percentile

STREAM_DEADLINE_S = 600.0
# A neighbour has settled when it has so many tokens.
SETTLED_TOKENS = 8
NEIGHBOUR_TOKENS = 4000


class WrongAnswer(Exception):
    """A contender did not do what the cell asks; its figure would mean nothing."""


@asynccontextmanager
async def _client(count: int) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(timeout=STREAM_DEADLINE_S, limits=limits) as client:
        yield client


async def streams(url: str, model: str, load: Streams, prompts: Sequence[str]) -> Run:
    """All prompts at once. Raises WrongAnswer, httpx.HTTPError."""
    async with _client(len(prompts)) as client:
        begun = time.monotonic()
        all_streams = [_stream(client, url, _body(model, load, prompt, seed)) for seed, prompt in enumerate(prompts, 1)]
        stamps = await asyncio.gather(*all_streams)
        wall_s = max(times[-1] for times, _ in stamps) - begun
    gaps = [after - before for times, _ in stamps for before, after in itertools.pairwise(times)]
    return Run(
        tokens=sum(tokens for _, tokens in stamps),
        wall_s=wall_s,
        first_token_s=tuple(times[0] - begun for times, _ in stamps),
        gap_p95_s=percentile(gaps, 0.95),
        gap_max_s=max(gaps, default=0.0),
    )


async def beside(url: str, model: str, neighbours: Sequence[str], prompts: Sequence[Sequence[int]]) -> Run:
    """Prompts of token ids beside streams that are being answered: until each prompt has its first token."""
    async with _client(len(neighbours) + len(prompts)) as client:
        stamps: list[list[float]] = [[] for _ in neighbours]
        async with asyncio.TaskGroup() as tasks:
            reading = [
                tasks.create_task(_read(client, url, _plain(model, text, NEIGHBOUR_TOKENS), times))
                for text, times in zip(neighbours, stamps, strict=True)
            ]
            while any(len(times) < SETTLED_TOKENS for times in stamps):
                await asyncio.sleep(0.01)
            begun = time.monotonic()
            found = await asyncio.gather(*(_stream(client, url, _plain(model, ids, 2), 2) for ids in prompts))
            ended = time.monotonic()
            for task in reading:
                task.cancel()
    gaps = [
        after - before
        for times in stamps
        for before, after in itertools.pairwise([*times, ended])
        if after > begun and before < ended
    ]
    firsts = tuple(times[0] - begun for times, _ in found)
    return Run(len(prompts), max(firsts), firsts, percentile(gaps, 0.95), max(gaps))


async def again(url: str, model: str, ids: Sequence[int]) -> Run:
    """The same prompt twice, one after the other."""
    firsts = []
    async with _client(1) as client:
        for _ in range(2):
            begun = time.monotonic()
            times, _ = await _stream(client, url, _plain(model, ids, 2), 2)
            firsts.append(times[0] - begun)
    return Run(2, sum(firsts), tuple(firsts), 0.0)


def _body(model: str, load: Streams, prompt: str, seed: int) -> dict[str, object]:
    body = _plain(model, prompt, NEW_TOKENS)
    if load.sampled:
        body |= {"temperature": TEMPERATURE, "top_p": TOP_P}
    return {**body, "seed": seed} if load.seeded else body


def _plain(model: str, prompt: str | Sequence[int], max_tokens: int) -> dict[str, object]:
    whole = {"model": model, "prompt": prompt if isinstance(prompt, str) else list(prompt), "max_tokens": max_tokens}
    return {**whole, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.0, "top_p": 1.0}


async def _read(client: httpx.AsyncClient, url: str, body: dict[str, object], times: list[float]) -> int:
    """Arrival times of the events that carry text, noted as they come; the completion tokens that `usage` counts."""
    tokens = 0
    async with client.stream("POST", f"{url}/completions", json=body) as answer:
        if answer.status_code != 200:
            raise WrongAnswer(f"{url}: {answer.status_code} {(await answer.aread())[:300]!r}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise WrongAnswer(f"{url}: {event['error']}")
            if any(choice.get("text") for choice in event["choices"]):
                times.append(time.monotonic())
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
    return tokens


async def _stream(
    client: httpx.AsyncClient, url: str, body: dict[str, object], wanted: int = NEW_TOKENS
) -> tuple[list[float], int]:
    times: list[float] = []
    tokens = await _read(client, url, body, times)
    if not times or tokens < wanted:
        raise WrongAnswer(f"{url}: {tokens} tokens instead of {wanted}")
    return times, tokens
