"""Requests that kill other servers get a typed refusal or a right answer, and nobody else notices."""

import asyncio
import json
import os
import random
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import psutil
import pytest

from e2e import neighbours
from e2e.hostile_requests import KILLERS, TEXTS, Case, corpus, drawn, faults, oddities, pairs, wrong_wishes
from e2e.neighbours import Neighbours
from installation import DEMO, Installation, until
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError, InvalidRequest
from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2, runner_pb2, runner_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc

# All in `make prove`, a tenth in `make test`.
COUNT = 300 if os.environ.get("PROVE") else 30
NEIGHBOUR_TOKENS = 100 if os.environ.get("PROVE") else 24
# Of a sequence that is in the cache, and what is asked beyond it.
CACHED_TOKENS, BEYOND_TOKENS = 12, 4


@dataclass
class Told:
    """A greedy answer."""

    prompt_token_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    text: str = ""


async def told(target: str, max_tokens: int) -> Told:
    wish = cluster_pb2.Generation(model=DEMO, text="Once upon a time there was a king who", max_tokens=max_tokens)
    found = Told()
    async with SchedulerClient(target) as client:
        async for delta in client.generate(wish, deadline_s=60):
            found.prompt_token_ids.extend(delta.prompt_token_ids)
            found.token_ids.extend(delta.token_ids)
            found.text += delta.text
    return found


def cases(count: int) -> list[Case]:
    """So many malformed: the corpus, up to half of them, then drawn ones, some with two faults; and odd right ones."""
    fixed = corpus()
    random.Random(7).shuffle(fixed)
    fixed = fixed[: count // 2]
    rest = count - len(fixed)
    some = rest // 5
    return [*fixed, *drawn(faults(), rest - some), *drawn(pairs(), some), *drawn(oddities(), some)]


@dataclass(frozen=True)
class Answer:
    """What must be equal of two right answers. Choices: text, finish, log-probabilities."""

    choices: list[tuple[str, str, Any]]
    prompt_tokens: int
    completion_tokens: int

    def __add__(self, other: "Answer") -> "Answer":
        return Answer(
            self.choices + other.choices,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


def answer_of(body: Mapping[str, Any]) -> Answer:
    choices = [
        (one["text"] if "text" in one else one["message"]["content"], one["finish_reason"], one["logprobs"])
        for one in body["choices"]
    ]
    return Answer(choices, body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])


def is_refusal(response: httpx.Response, params: frozenset[str | None]) -> bool:
    """A typed 4xx that names the field."""
    if not 400 <= response.status_code < 500:
        return False
    error = response.json().get("error", {})
    typed = error.get("type") == "invalid_request_error" and error.get("code") and error.get("message")
    return bool(typed) and error.get("param") in params


@dataclass
class Siege:
    """Sends one hostile request after the other, and notes what was answered wrongly."""

    client: httpx.AsyncClient
    url: str
    rank: psutil.Process
    neighbours: Neighbours
    wrong: list[str] = field(default_factory=list)
    malformed_over_http: int = 0
    odd_over_http: int = 0
    malformed_by_grpc: int = 0
    cached_prompts: int = 0
    # How many neighbours had a token already and not their last, as each killer was sent.
    beside_killers: list[int] = field(default_factory=list)
    plain: dict[str, Answer] = field(default_factory=dict)

    async def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return await self.client.post(f"{self.url}/v1/{path}", content=json.dumps(body).encode())

    async def _plain(self, path: str, body: Mapping[str, Any]) -> Answer:
        key = json.dumps([path, body])
        if key not in self.plain:
            response = await self._post(path, body)
            assert response.status_code == 200, f"a good request: {body}: {response.text[:200]}"
            self.plain[key] = answer_of(response.json())
        return self.plain[key]

    async def post(self, case: Case) -> None:
        response = await self._post(case.path, case.body)
        wanted: object = set(case.params)
        if case.params:
            self.malformed_over_http += 1
            fine = is_refusal(response, case.params)
        else:
            self.odd_over_http += 1
            answers = [await self._plain(case.path, body) for body in case.plain]
            wanted = sum(answers[1:], start=answers[0])
            fine = response.status_code == 200 and answer_of(response.json()) == wanted
        if not fine:
            shown = f"{response.status_code} {response.text[:300]}"
            self.wrong.append(f"{case.path} {str(case.body)[:300]}: {shown}, not {wanted}")

    async def kill(self, case: Case) -> None:
        await self._ready()
        await self.post(case)
        self._look(str(case.body))

    async def ask_what_is_cached(self, cached: Told) -> str:
        """A prompt equal to a cached sequence: to mlx-lm's server nothing is left to process. What it says next."""
        await self._ready()
        prompt = [*cached.prompt_token_ids, *cached.token_ids]
        body = {"model": DEMO, "prompt": prompt, "max_tokens": BEYOND_TOKENS, "temperature": 0}
        response = await self._post(TEXTS, body)
        self.cached_prompts += 1
        self._look("a prompt equal to a cached sequence")
        assert response.status_code == 200, response.text
        usage = response.json()["usage"]
        if (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) != (len(prompt), len(prompt) - 1):
            self.wrong.append(f"not all but one of {len(prompt)} tokens came from the cache: {usage}")
        return str(response.json()["choices"][0]["text"])

    async def _ready(self) -> None:
        await self.neighbours.all_under_way()
        self.beside_killers.append(self.neighbours.under_way_count)

    def _look(self, what: str) -> None:
        assert self.rank.is_running() and self.rank.status() != psutil.STATUS_ZOMBIE, f"the rank died of {what}"

    async def call_all(self, fresh: Installation, count: int, cached: Told) -> list[str]:
        """By gRPC, straight to the scheduler and straight to the runner: each malformed wish; what follows a cached
        sequence, which is returned.
        """
        async with (
            grpc.aio.insecure_channel(fresh.target("scheduler")) as scheduling,
            grpc.aio.insecure_channel(fresh.target("runner")) as running,
        ):
            scheduler: Any = scheduler_pb2_grpc.SchedulerServiceStub(scheduling)
            runner: Any = runner_pb2_grpc.RunnerServiceStub(running)
            listed = await scheduler.ListDeployments(scheduler_pb2.ListDeploymentsRequest(), timeout=10)
            target = next(one.ranks[0].id for one in listed.deployments if one.spec.name == DEMO)

            def calls(wish: cluster_pb2.Generation) -> Iterator[Any]:
                routed = scheduler_pb2.SchedulerServiceGenerateRequest(generation=wish)
                yield scheduler.Generate(routed, timeout=60)
                direct = runner_pb2.RunnerServiceGenerateRequest(generation=wish, target=target)
                yield runner.Generate(direct, timeout=60)

            wish = cluster_pb2.Generation(request_id=str(uuid.uuid4()), model=DEMO, max_tokens=BEYOND_TOKENS)
            wish.prompt_token_ids.ids.extend([*cached.prompt_token_ids, *cached.token_ids])
            beyond = []
            for call in calls(wish):
                await self._ready()
                beyond.append("".join([response.delta.text async for response in call]))
                self.cached_prompts += 1
                self._look("a prompt equal to a cached sequence, by gRPC")
            for wish, param in drawn(wrong_wishes(), count):
                self.malformed_by_grpc += 1
                for call in calls(wish):
                    problem = await outcome(call)
                    if not isinstance(problem, InvalidRequest) or problem.param != param:
                        self.wrong.append(f"{wish}: {problem!r}, not {param}")
            return beyond


async def outcome(call: Any) -> ClusterError | None:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return from_call(error)
    return None


async def besieged(fresh: Installation, rank: psutil.Process) -> tuple[Siege, list[str], str]:
    """The siege, what followed a cached sequence each time, and what follows it in an answer of its own."""
    target = fresh.target("scheduler")
    cached = await told(target, CACHED_TOKENS)
    async with (
        httpx.AsyncClient(timeout=60) as client,
        neighbours.neighbours(target, NEIGHBOUR_TOKENS) as beside,
    ):
        siege = Siege(client, fresh.url, rank, beside)
        # An exact hit first; then the entry is longer than the prompt.
        beyond = [await siege.ask_what_is_cached(cached) for _ in range(2)]
        for case in KILLERS.values():
            await siege.kill(case)
        for case in cases(COUNT):
            await siege.post(case)
        beyond += await siege.call_all(fresh, COUNT, cached)
    whole = await told(target, CACHED_TOKENS + BEYOND_TOKENS)
    assert whole.text.startswith(cached.text)
    return siege, beyond, whole.text.removeprefix(cached.text)


# 1,000 requests beside four streams; a whole installation may have to be made first.
@pytest.mark.timeout(900)
def test_hostile_requests_disturb_nobody(fresh: Installation, evidence: dict[str, Any]) -> None:
    rank = psutil.Process(fresh.pid("rank"))
    wanted = asyncio.run(neighbours.undisturbed(fresh.target("scheduler"), NEIGHBOUR_TOKENS))
    siege, beyond, right = asyncio.run(besieged(fresh, rank))
    assert not siege.wrong, "\n".join(siege.wrong)
    assert right and set(beyond) == {right}
    assert (
        siege.malformed_over_http >= COUNT and siege.odd_over_http >= COUNT // 10 and siege.malformed_by_grpc == COUNT
    )
    assert len(siege.beside_killers) == len(KILLERS) + siege.cached_prompts
    assert min(siege.beside_killers) >= neighbours.COUNT
    for one, tokens in zip(siege.neighbours.each, wanted, strict=True):
        assert len(tokens) == NEIGHBOUR_TOKENS
        assert one.answers and all(answer == tokens for answer in one.answers)
        assert one.tokens == tokens[: len(one.tokens)], "the answer that was under way at the end"
        assert one.broke_count == 0
    assert fresh.pid("rank") == rank.pid
    until("a good answer", fresh.answers, 30)
    evidence["malformed_over_http"] = siege.malformed_over_http
    evidence["odd_but_right_over_http"] = siege.odd_over_http
    evidence["malformed_by_grpc"] = siege.malformed_by_grpc
    evidence["prompts_equal_to_a_cached_sequence"] = siege.cached_prompts
    evidence["killers"] = len(siege.beside_killers)
    evidence["neighbours_under_way_at_each_killer"] = min(siege.beside_killers)
    evidence["neighbours_answers_compared"] = sum(len(one.answers) for one in siege.neighbours.each)
