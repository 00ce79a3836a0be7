"""Eight streams, half of them by gRPC and half by HTTP, that note every token and when it came."""

import asyncio
import itertools
import json
import math
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx

from installation import DEMO, Installation, until
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError
from thunderline.v1 import cluster_pb2

COUNT = 8
TOKENS = 96
DEADLINE_S = 240.0
BEGIN_S = 60.0


@dataclass
class Follower:
    """What one client got. `pieces`: token ids, or texts of events; `times_s` of the monotonic clock."""

    pieces: list[int | str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    finish: str = ""
    error: str = ""

    def got(self, *pieces: int | str) -> None:
        self.pieces += pieces
        self.times_s.append(time.monotonic())

    @property
    def answer(self) -> object:
        """To be compared: ids as they are, text whole, since its events may be cut elsewhere."""
        texts = [one for one in self.pieces if isinstance(one, str)]
        return ("".join(texts) if texts else tuple(self.pieces), self.finish, self.error)

    @property
    def is_under_way(self) -> bool:
        """It has a token, and is unfinished."""
        return bool(self.pieces and not self.finish and not self.error)

    def first_difference(self, undisturbed: Any) -> str:
        """Where its answer leaves the undisturbed one, in words; nothing when they are equal."""
        if self.answer == undisturbed:
            return ""
        ours: Any = self.answer
        if ours[2]:
            return f"error {ours[2]}"
        pairs = enumerate(itertools.zip_longest(ours[0], undisturbed[0]))
        place, (found, expected) = next(((at, pair) for at, pair in pairs if pair[0] != pair[1]), (-1, ("", "")))
        return f"piece {place}: {found!r} for {expected!r}" if place >= 0 else f"{ours[1:]} for {undisturbed[1:]}"

    def pause_s(self, after_s: float) -> float:
        """The longest silence that ended after a moment."""
        silences = zip(self.times_s, self.times_s[1:], strict=False)
        return max((end - begin for begin, end in silences if end > after_s), default=0.0)


def sampling(number: int) -> dict[str, float]:
    """Every second one is greedy."""
    return {"temperature": 0.0} if number % 2 else {"temperature": 0.9, "top_p": 0.9}


async def by_grpc(client: SchedulerClient, number: int, follower: Follower) -> None:
    wish = cluster_pb2.Generation(model=DEMO, text=f"{number}. Tell me of rivers.", max_tokens=TOKENS, ignore_eos=True)
    wish.sampling.seed = 70 + number
    wish.sampling.temperature = sampling(number)["temperature"]
    wish.sampling.top_p = sampling(number).get("top_p", 0.0)
    try:
        async for delta in client.generate(wish, DEADLINE_S):
            follower.prompt += delta.prompt_token_ids
            if delta.token_ids:
                follower.got(*delta.token_ids)
            if delta.finish_reason:
                follower.finish = f"{delta.finish_reason} {delta.usage.prompt_tokens} {delta.usage.completion_tokens}"
    except ClusterError as error:
        follower.error = f"{error.reason}: {error.message}"


def http_body(number: int) -> dict[str, Any]:
    return {
        "model": DEMO,
        "prompt": f"{number}. Tell me of mountains.",
        "max_tokens": TOKENS,
        "seed": 70 + number,
        "logit_bias": {"0": -100, "2": -100},
        "stream": True,
        **sampling(number),
    }


async def by_http(url: str, number: int, follower: Follower) -> None:
    try:
        async with (
            httpx.AsyncClient(timeout=DEADLINE_S) as client,
            client.stream("POST", f"{url}/v1/completions", json=http_body(number)) as answer,
        ):
            if answer.status_code != 200:
                follower.error = f"status {answer.status_code}: {(await answer.aread()).decode()}"
                return
            async for line in answer.aiter_lines():
                if line.startswith('data: {"error"'):
                    follower.error = line
                elif line.startswith("data: {"):
                    choice = json.loads(line.removeprefix("data: "))["choices"][0]
                    follower.got(choice["text"])
                    follower.finish = choice["finish_reason"] or follower.finish
    except httpx.TransportError as error:
        follower.error = f"broken: {type(error).__name__}"


async def follow(
    up: Installation, fault: Callable[[], Coroutine[Any, Any, None] | None] | None, wait_s: float = 0.0
) -> tuple[list[Follower], float]:
    """All eight to their ends; the moment of the fault. It comes `wait_s` after each has begun, and none has ended.

    What the fault returns runs beside them.
    """
    followers = [Follower() for _ in range(COUNT)]
    async with SchedulerClient(up.target("scheduler")) as client, asyncio.TaskGroup() as tasks:
        for number, follower in enumerate(followers):
            way = by_http(up.url, number, follower) if number >= COUNT // 2 else by_grpc(client, number, follower)
            tasks.create_task(way)
        async with asyncio.timeout(BEGIN_S):
            while not all(follower.pieces or follower.error for follower in followers):
                await asyncio.sleep(0.02)
        if fault is None:
            return followers, 0.0
        await asyncio.sleep(wait_s)
        assert all(follower.is_under_way for follower in followers), "too late"
        begun_s = time.monotonic()
        if (more := fault()) is not None:
            tasks.create_task(more)
    return followers, begun_s


def undisturbed_answers(up: Installation) -> list[object]:
    """Of all eight, when nothing goes wrong: what the other runs are compared with."""
    until("a good answer", up.answers, 60)
    followers, _ = asyncio.run(follow(up, None))
    assert not any(follower.error for follower in followers)
    return [follower.answer for follower in followers]


def first_differences(followers: list[Follower], undisturbed: list[object]) -> list[str]:
    """By stream. A near tie, which protocols F would let pass for a greedy one, counts as any other."""
    found = [follower.first_difference(whole) for follower, whole in zip(followers, undisturbed, strict=True)]
    return [f"stream {number}, {sampling(number)}: {words}" for number, words in enumerate(found) if words]


def p95(values: list[float]) -> float:
    """The nearest rank: of 160 the 152nd."""
    return round(sorted(values)[math.ceil(0.95 * len(values)) - 1], 2)


async def prefill_s(up: Installation, followers: list[Follower]) -> float:
    """What the contexts of all streams cost, when nothing of them is cached."""
    lengths = [len(one.prompt) + len(one.pieces) // 2 for one in followers]

    async def one(client: SchedulerClient, number: int, length: int) -> None:
        wish = cluster_pb2.Generation(model=DEMO, max_tokens=1)
        wish.prompt_token_ids.ids.extend(
            random.Random(time.monotonic_ns() + number).choices(range(1000, 9000), k=length)
        )
        async for _ in client.generate(wish, DEADLINE_S):
            pass

    begun_s = time.monotonic()
    async with SchedulerClient(up.target("scheduler")) as client, asyncio.TaskGroup() as tasks:
        for number, length in enumerate(lengths):
            tasks.create_task(one(client, number, length))
    return time.monotonic() - begun_s
