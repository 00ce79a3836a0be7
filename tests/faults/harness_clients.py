"""Eight clients that never stop asking, by gRPC, with httpx and with the openai client; each answer is compared."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import openai

from faults.followers import COUNT, DEADLINE_S, Follower, by_grpc, by_http, http_body
from installation import Installation
from thunderline.client import SchedulerClient

# The first half of the questions is for gRPC.
VARIANTS = 8
GRPC, HTTPX, OPENAI = "grpc", "httpx", "openai"
WAYS = (GRPC, HTTPX, GRPC, OPENAI)
BY_HTTP = {number for number in range(COUNT) if WAYS[number % len(WAYS)] != GRPC}
# Shorter silences are those between tokens.
GAP_MIN_S = 0.5
AGAIN_S = 0.2


@dataclass(frozen=True)
class Gap:
    """A silence of a stream: until its first token, between two, or from the last to its end."""

    begun_s: float
    ended_s: float

    @property
    def length_s(self) -> float:
        return self.ended_s - self.begun_s

    def overlaps(self, begun_s: float, ended_s: float) -> bool:
        return self.begun_s <= ended_s and begun_s <= self.ended_s


async def by_openai(up: Installation, number: int, follower: Follower) -> None:
    """The official client, as `Installation.openai` makes it: it does not retry."""
    made = openai.AsyncOpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0, timeout=DEADLINE_S)
    try:
        async with made as client:
            chunks: Any = await client.completions.create(**http_body(number))
            async for chunk in chunks:
                follower.got(chunk.choices[0].text)
                follower.finish = chunk.choices[0].finish_reason or follower.finish
    except openai.APIConnectionError as error:
        follower.error = f"broken: {type(error.__cause__).__name__}"
    except openai.APIStatusError as error:
        follower.error = f"status {error.status_code}: {error.response.text}"
    except openai.APIError as error:
        # The error event of a stream.
        follower.error = f"{error.code}: {error.message}"


async def ask(up: Installation, way: str, variant: int, follower: Follower) -> None:
    if way == OPENAI:
        await by_openai(up, variant, follower)
    elif way == HTTPX:
        await by_http(up.url, variant, follower)
    else:
        async with SchedulerClient(up.target("scheduler")) as client:
            await by_grpc(client, variant, follower)


async def undisturbed(up: Installation) -> dict[int, object]:
    """The right answer to each question."""
    followers = [Follower() for _ in range(VARIANTS)]
    ways = [GRPC if variant < VARIANTS // 2 else HTTPX for variant in range(VARIANTS)]
    await asyncio.gather(
        *(ask(up, way, variant, one) for variant, (way, one) in enumerate(zip(ways, followers, strict=True)))
    )
    assert not any(one.error for one in followers), followers
    return {variant: one.answer for variant, one in enumerate(followers)}


@dataclass(frozen=True)
class Excused:
    """A request that a dead or draining gateway has not answered. `pieces`: of its answer, before it was closed."""

    begun_s: float
    ended_s: float
    pieces: int


class Load:
    """`streams` gets each client's newest one. `is_excused`: whether a request of that time met a dead gateway."""

    def __init__(
        self,
        up: Installation,
        right: Mapping[int, object],
        streams: dict[int, Follower],
        is_excused: Callable[[float, float], bool],
    ) -> None:
        self._up = up
        self._right = right
        self._streams = streams
        self._is_excused = is_excused
        self.answers = dict.fromkeys((GRPC, HTTPX, OPENAI), 0)
        self.excused: list[Excused] = []
        self.wrong: list[str] = []
        self.gaps: list[Gap] = []

    async def run(self, enough: asyncio.Event) -> None:
        """All clients; each ends with the answer that it has under way when it is enough."""
        async with asyncio.TaskGroup() as clients:
            for number in range(COUNT):
                clients.create_task(self._client(number, enough))

    async def _client(self, number: int, enough: asyncio.Event) -> None:
        draw, way = random.Random(number), WAYS[number % len(WAYS)]
        while not enough.is_set():
            variant = draw.randrange(VARIANTS // 2) + (0 if way == GRPC else VARIANTS // 2)
            follower = self._streams[number] = Follower()
            begun_s = time.monotonic()
            await ask(self._up, way, variant, follower)
            ended_s = time.monotonic()
            silences = itertools.pairwise([begun_s, *follower.times_s, ended_s])
            self.gaps += [Gap(a, b) for a, b in silences if b - a >= GAP_MIN_S]
            if follower.answer == self._right[variant]:
                self.answers[way] += 1
            elif way != GRPC and _is_of_gateway(follower.error) and self._is_excused(begun_s, ended_s):
                self.excused.append(Excused(begun_s, ended_s, len(follower.pieces)))
                if not _is_beginning(follower, self._right[variant]):
                    self.wrong.append(f"{way}, {variant}, cut off: {follower.answer} is no beginning")
            else:
                when = f"{begun_s:.2f} to {ended_s:.2f} s"
                self.wrong.append(f"{way}, {variant}, {when}: {follower.answer} instead of {self._right[variant]}")
            if follower.error:
                await asyncio.sleep(AGAIN_S)


def _is_beginning(follower: Follower, right: Any) -> bool:
    """Whether what came before an answer was cut off is what it begins with."""
    return not follower.pieces or bool(right[0].startswith("".join(map(str, follower.pieces))))


def _is_of_gateway(error: str) -> bool:
    """Its connection was closed, or one that is stopping has refused it by name."""
    return error.startswith("broken") or (error.startswith("status 503") and "draining" in error)
