"""Concurrent streams against an OpenAI-compatible /v1/completions, measured from outside."""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence

import httpx

from thunderline.cli.bench.cells import NEW_TOKENS, TEMPERATURE, TOP_P, Cell, Run, percentile

STREAM_DEADLINE_S = 600.0


class WrongAnswer(Exception):
    """A contender did not do what the cell asks; its figure would mean nothing."""


async def load(url: str, model: str, cell: Cell, prompts: Sequence[str]) -> Run:
    """All prompts at once. Raises WrongAnswer, httpx.HTTPError."""
    limits = httpx.Limits(max_connections=len(prompts), max_keepalive_connections=len(prompts))
    async with httpx.AsyncClient(timeout=STREAM_DEADLINE_S, limits=limits) as client:
        begun = time.monotonic()
        streams = [_stream(client, url, _body(model, cell, prompt, seed)) for seed, prompt in enumerate(prompts, 1)]
        stamps = await asyncio.gather(*streams)
        wall_s = max(times[-1] for times, _ in stamps) - begun
    gaps = [after - before for times, _ in stamps for before, after in itertools.pairwise(times)]
    return Run(
        tokens=sum(tokens for _, tokens in stamps),
        wall_s=wall_s,
        first_token_s=tuple(times[0] - begun for times, _ in stamps),
        gap_p95_s=percentile(gaps, 0.95),
    )


def _body(model: str, cell: Cell, prompt: str, seed: int) -> dict[str, object]:
    body: dict[str, object] = {
        "model": model,
        "prompt": prompt,
        "max_tokens": NEW_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": TEMPERATURE if cell.sampled else 0.0,
        "top_p": TOP_P if cell.sampled else 1.0,
    }
    return {**body, "seed": seed} if cell.seeded else body


async def _stream(client: httpx.AsyncClient, url: str, body: dict[str, object]) -> tuple[list[float], int]:
    """Arrival times of the events that carry text, and the completion tokens that `usage` counts."""
    times: list[float] = []
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
    if not times or tokens < NEW_TOKENS:
        raise WrongAnswer(f"{url}: {tokens} tokens instead of {NEW_TOKENS}")
    return times, tokens
