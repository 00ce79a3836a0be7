"""An exception in an engine step: its requests go on, nobody's tokens change, the next request works."""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from faults import hooked_rank
from installation import DEMO, Installation
from thunderline.client import SchedulerClient
from thunderline.v1 import cluster_pb2

# Ten exceptions in `make prove`, one in `make test`.
ROUNDS = 10 if os.environ.get("PROVE") else 1
TOKENS = 80 if os.environ.get("PROVE") else 40
# Its prompt takes some steps, in which nothing of it can be sent.
LONG_PROMPT = "All work and no play makes Jack a dull boy. " * 100
NO_END = {"0": -100, "2": -100}
WAIT_S = 60


@dataclass(eq=False)
class Stream:
    """One request, what came of it, and how it ended."""

    number: int
    # Ids by gRPC, texts over HTTP.
    pieces: list[Any] = field(default_factory=list)
    finished: bool = False
    status: int = 0
    error: str = ""
    cached_tokens: int = 0

    @property
    def whole(self) -> Any:
        return "".join(self.pieces) if self.status else self.pieces

    @property
    def is_under_way(self) -> bool:
        return not (self.finished or self.error)


def sampling(number: int) -> dict[str, Any]:
    """Every other one is greedy."""
    return {"temperature": 0.9 * (number % 2), "seed": 1000 + number}


def prompt(number: int) -> str:
    """Long enough for the prefix cache."""
    beginning = f"Story number {number}, which is about a king and his {number + 1} daughters, who lived in a castle"
    return f"{beginning} on a hill by the sea, long before anybody had heard of trains and telephones:"


async def by_grpc(client: SchedulerClient, stream: Stream) -> Stream:
    wish = cluster_pb2.Generation(model=DEMO, text=prompt(stream.number), max_tokens=TOKENS, ignore_eos=True)
    wish.sampling.temperature = sampling(stream.number)["temperature"]
    wish.sampling.seed = sampling(stream.number)["seed"]
    async for delta in client.generate(wish, deadline_s=WAIT_S):
        stream.pieces += delta.token_ids
        stream.finished = stream.finished or bool(delta.finish_reason)
        stream.cached_tokens = max(stream.cached_tokens, delta.usage.cached_tokens)
    return stream


async def over_http(client: httpx.AsyncClient, one: Stream, **more: Any) -> Stream:
    body = {"model": DEMO, "prompt": prompt(one.number), "max_tokens": TOKENS, "logit_bias": NO_END, "stream": True}
    async with client.stream("POST", "completions", json={**body, **sampling(one.number), **more}) as answer:
        one.status = answer.status_code
        if "event-stream" not in answer.headers["Content-Type"]:
            found = json.loads(await answer.aread())
            one.error = found["error"]["code"] if "error" in found else ""
            one.pieces += [choice["text"] for choice in found.get("choices", ())]
            one.finished = bool(one.pieces)
            return one
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                one.finished = True
            elif line.startswith("data: "):
                found = json.loads(line.removeprefix("data: "))
                one.error = found["error"]["code"] if "error" in found else ""
                one.pieces += [choice["text"] for choice in found.get("choices", ())]
    return one


async def until(what: str, look: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not look():
        assert time.monotonic() < end_s, f"not within {WAIT_S} s: {what}"
        await asyncio.sleep(0.01)


@dataclass
class Round:
    """The streams of one injected exception: two by gRPC, two over HTTP, and two of which nothing has been sent."""

    by_grpc: Sequence[Stream]
    over_http: Sequence[Stream]
    unsent: Sequence[Stream]
    ended_within_s: float = 0.0


async def broken(up: Installation, after: int) -> Round:
    """Raises in a step once each stream has `after` pieces and the unsent are at work in the rank."""
    this = Round([Stream(0), Stream(1)], [Stream(2), Stream(3)], [Stream(4), Stream(5)])
    streams, unsent = [*this.by_grpc, *this.over_http], this.unsent
    trigger = up.home / hooked_rank.FOLDER / "raise"

    def running() -> set[int]:
        return set(hooked_rank.held(up.home)[-1].running)

    async with (
        SchedulerClient(up.target("scheduler")) as scheduler,
        httpx.AsyncClient(base_url=f"{up.url}/v1", timeout=WAIT_S) as http,
        asyncio.TaskGroup() as group,
    ):
        for one in this.by_grpc:
            group.create_task(by_grpc(scheduler, one))
        for one in this.over_http:
            group.create_task(over_http(http, one))
        group.create_task(over_http(http, unsent[0], stream=False))
        await until("tokens on each", lambda: all(len(one.pieces) >= after for one in streams))
        group.create_task(over_http(http, unsent[1], prompt=f"{random.random()} {LONG_PROMPT}"))
        await until("the unsent at the rank", lambda: {1004, 1005} <= running())
        assert all(one.is_under_way for one in [*streams, *unsent]), "the fault came too late"
        trigger.touch()
        begun_s = time.monotonic()
        await until("an end of each", lambda: not any(one.is_under_way for one in [*streams, *unsent]))
        this.ended_within_s = time.monotonic() - begun_s
    assert not trigger.exists(), "nothing was raised"
    return this


async def undisturbed(up: Installation) -> list[Stream]:
    """The same four streams when nothing happens."""
    async with (
        SchedulerClient(up.target("scheduler")) as scheduler,
        httpx.AsyncClient(base_url=f"{up.url}/v1", timeout=WAIT_S) as http,
    ):
        return list(
            await asyncio.gather(
                *(by_grpc(scheduler, Stream(number)) for number in (0, 1)),
                *(over_http(http, Stream(number)) for number in (2, 3)),
            )
        )


@pytest.mark.timeout(900)
def test_after_an_exception_in_a_step_its_requests_go_on_and_nobodys_tokens_change(
    hooked: Installation, evidence: dict[str, Any]
) -> None:
    rank = hooked.pid("rank")
    right = asyncio.run(undisturbed(hooked))
    assert all(one.finished and len(one.pieces) >= TOKENS // 2 for one in right)
    draw = random.Random(5)
    slowest_s, went_on, equal = 0.0, 0, 0
    for _ in range(ROUNDS):
        this = asyncio.run(broken(hooked, after=draw.randint(2, TOKENS // 3)))
        for one in [*this.by_grpc, *this.over_http, *this.unsent]:
            assert (one.finished, one.error) == (True, ""), one
        for one, whole in zip([*this.by_grpc, *this.over_http], right, strict=True):
            assert one.whole == whole.whole
        assert [one.status for one in [*this.over_http, *this.unsent]] == [200] * 4
        assert hooked.answers()
        for _again in range(2 if os.environ.get("PROVE") else 1):
            again = asyncio.run(undisturbed(hooked))
            assert [one.whole for one in again] == [one.whole for one in right]
            equal += len(again)
        assert all(one.cached_tokens for one in again[:2]), "the prefix cache went with the engine, and is back"
        slowest_s = max(slowest_s, this.ended_within_s)
        went_on += len(this.by_grpc) + len(this.over_http) + len(this.unsent)
    assert hooked.pid("rank") == rank
    evidence.update(
        exceptions_injected=ROUNDS,
        requests_that_went_on=went_on,
        slowest_end_after_the_exception_s=round(slowest_s, 2),
        answers_equal_afterwards=equal,
        rank_kept_its_pid=True,
    )
