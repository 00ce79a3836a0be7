"""Requests that kill other servers get a typed refusal or a right answer, and nobody else notices."""

import asyncio
import json
import os
import random
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from gateway.malformed import BOTH, CHAT, COMPLETIONS
from installation import DEMO, Installation, until
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError, InvalidRequest
from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2, runner_pb2, runner_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc

# All in `make prove`, a tenth in `make test`.
COUNT = 300 if os.environ.get("PROVE") else 30
HELLO = [{"role": "user", "content": "Hello"}]

# Each of these ends the generation thread of mlx-lm's own server, or makes it answer wrongly.
KILLERS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "an_empty_prompt": ("completions", {"prompt": ""}, "prompt"),
    "a_list_of_prompts": ("completions", {"prompt": ["One,", "Two,"], "max_tokens": 2}, None),
    "a_stop_with_null": ("completions", {"prompt": "a", "stop": [None]}, "stop"),
    "a_top_k_above_the_vocabulary": ("completions", {"prompt": "a", "temperature": 1, "top_k": 60000}, "top_k"),
    "a_token_id_just_above_the_vocabulary": ("completions", {"prompt": [49152]}, "prompt"),
    "a_token_id_far_above_the_vocabulary": ("completions", {"prompt": [2**31]}, "prompt"),
    "a_negative_token_id": ("completions", {"prompt": [-1]}, "prompt"),
    "an_empty_list_of_ids": ("completions", {"prompt": []}, "prompt"),
    "a_prompt_of_numbers_as_text": ("completions", {"prompt": [1.5]}, "prompt"),
    "no_messages": ("chat/completions", {"messages": []}, "messages"),
    "an_image": (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
        "messages",
    ),
    "another_model_to_load": ("chat/completions", {"model": "/etc", "messages": HELLO}, "model"),
    "an_end_token_as_prompt": ("completions", {"prompt": [2], "max_tokens": 2}, None),
    "a_bias_on_a_token_that_is_not_there": ("completions", {"prompt": "a", "logit_bias": {"60000": 1}}, "logit_bias"),
}


class Neighbours:
    """Four streams that run all the while; their tokens must be those of an undisturbed run."""

    def __init__(self, target: str) -> None:
        self._target = target

    async def tokens(self) -> list[list[int]]:
        async with SchedulerClient(self._target) as client:
            return list(await asyncio.gather(*(self._one(client, number) for number in range(4))))

    async def _one(self, client: SchedulerClient, number: int) -> list[int]:
        wish = cluster_pb2.Generation(model=DEMO, text=f"Story number {number}:", max_tokens=100, ignore_eos=True)
        wish.sampling.temperature = 0.8 * (number % 2)
        wish.sampling.seed = 100 + number
        return [token async for delta in client.generate(wish, deadline_s=180) for token in delta.token_ids]


@pytest.fixture(scope="module")
def undisturbed(fresh: Installation) -> list[list[int]]:
    return asyncio.run(Neighbours(fresh.target("scheduler")).tokens())


def bodies(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Malformed bodies: the corpus, then mixtures of two of its faults."""
    corpus = [("chat/completions", {"messages": HELLO, **fields}) for fields, _ in (*CHAT.values(), *BOTH.values())]
    corpus += [("completions", {"prompt": "a", **fields}) for fields, _ in (*COMPLETIONS.values(), *BOTH.values())]
    draw = random.Random(7)
    draw.shuffle(corpus)
    for number in range(count):
        path, fields = corpus[number % len(corpus)]
        if number >= len(corpus):
            other = draw.choice([more for kind, more in corpus if kind == path])
            fields = {**fields, **other}
        yield path, {"model": DEMO, "max_tokens": 2, **fields}


async def post_all(url: str, count: int) -> list[str]:
    """What was answered wrongly."""
    wrong = []
    async with httpx.AsyncClient(timeout=60) as client:
        for path, fields, param in KILLERS.values():
            answer = await client.post(f"{url}/v1/{path}", json={"model": DEMO, **fields})
            fine = answer.status_code == 200 if param is None else answer.json().get("error", {}).get("param") == param
            if not fine:
                wrong.append(f"{fields}: {answer.status_code} {answer.text[:200]}")
        for path, body in bodies(count):
            answer = await client.post(f"{url}/v1/{path}", content=json.dumps(body).encode())
            if answer.status_code != 200 and not (
                400 <= answer.status_code < 500 and answer.json()["error"]["message"]
            ):
                wrong.append(f"{path} {body}: {answer.status_code} {answer.text[:200]}")
    return wrong


def strange(draw: random.Random) -> cluster_pb2.Generation:
    """A generation with something wrong in it, drawn."""
    wish = cluster_pb2.Generation(
        request_id=str(uuid.UUID(int=draw.getrandbits(128))), model=DEMO, text="a", max_tokens=2
    )
    wish.sampling.seed = 1
    faults = {
        "request_id": lambda: setattr(wish, "request_id", draw.choice(["", "x", "0" * 40])),
        "temperature": lambda: setattr(wish.sampling, "temperature", draw.choice([-1, 3, float("nan"), float("inf")])),
        "top_p": lambda: setattr(wish.sampling, "top_p", draw.choice([-0.1, 1.5, float("nan")])),
        "top_k": lambda: setattr(wish.sampling, "top_k", draw.choice([-1, 49152, 2**31 - 1])),
        "min_p": lambda: setattr(wish.sampling, "min_p", draw.choice([-0.1, 2, float("nan")])),
        "presence_penalty": lambda: setattr(wish.sampling, "presence_penalty", draw.choice([-3, float("nan")])),
        "repetition_penalty": lambda: setattr(wish.sampling, "repetition_penalty", draw.choice([-1, float("nan")])),
        "logit_bias": lambda: wish.sampling.logit_bias.update({2**32 - 1: 1.0}),
        "max_tokens": lambda: setattr(wish, "max_tokens", draw.choice([-1, 2**31 - 1])),
        "stop": lambda: wish.stop.extend(draw.choice([[""], ["x"] * 17, ["y" * 257]])),
        "top_logprobs": lambda: setattr(wish, "top_logprob_count", draw.choice([-1, 21])),
        "prompt": lambda: wish.prompt_token_ids.ids.extend(draw.choice([[], [49152], [2**32 - 1]])),
        "resume_token_ids": lambda: wish.resume_token_ids.extend([2**32 - 1]),
        "messages": lambda: wish.chat.CopyFrom(cluster_pb2.Chat()),
    }
    faults[draw.choice(sorted(faults))]()
    return wish


async def call_all(fresh: Installation, count: int) -> list[str]:
    """The same by gRPC, straight to the scheduler and to the runner; what was answered wrongly."""
    wrong = []
    draw = random.Random(11)
    async with (
        grpc.aio.insecure_channel(fresh.target("scheduler")) as scheduling,
        grpc.aio.insecure_channel(fresh.target("runner")) as running,
    ):
        scheduler: Any = scheduler_pb2_grpc.SchedulerServiceStub(scheduling)
        runner: Any = runner_pb2_grpc.RunnerServiceStub(running)
        listed = await scheduler.ListDeployments(scheduler_pb2.ListDeploymentsRequest(), timeout=10)
        target = next(one.ranks[0].id for one in listed.deployments if one.spec.name == DEMO)
        for number in range(count):
            wish = strange(draw)
            if number % 2:
                call = runner.Generate(
                    runner_pb2.RunnerServiceGenerateRequest(generation=wish, target=target), timeout=60
                )
            else:
                call = scheduler.Generate(scheduler_pb2.SchedulerServiceGenerateRequest(generation=wish), timeout=60)
            problem = await outcome(call)
            if not isinstance(problem, InvalidRequest) or not problem.param:
                wrong.append(f"{wish}: {problem!r}")
    return wrong


async def outcome(call: Any) -> ClusterError | None:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return from_call(error)
    return None


def test_hostile_requests_disturb_nobody(
    fresh: Installation, undisturbed: list[list[int]], evidence: dict[str, Any]
) -> None:
    rank = fresh.pid("rank")

    async def work() -> tuple[list[list[int]], list[str], list[str]]:
        neighbours = asyncio.create_task(Neighbours(fresh.target("scheduler")).tokens())
        over_http = await post_all(fresh.url, COUNT)
        by_grpc = await call_all(fresh, COUNT)
        return await neighbours, over_http, by_grpc

    tokens, over_http, by_grpc = asyncio.run(work())
    evidence["malformed_over_http"], evidence["malformed_by_grpc"] = COUNT + len(KILLERS), COUNT
    assert not over_http
    assert not by_grpc
    assert tokens == undisturbed
    assert fresh.pid("rank") == rank
    until("a good answer", fresh.answers, 30)


def test_a_prompt_equal_to_a_cached_sequence_is_answered(fresh: Installation) -> None:
    """mlx-lm's server dies of an exact hit: nothing would be left to process."""
    client = fresh.openai()
    first = client.completions.create(
        model=DEMO, prompt="Once upon a time there was a king who", max_tokens=20, temperature=0
    )
    both = "Once upon a time there was a king who" + first.choices[0].text
    again = client.completions.create(model=DEMO, prompt=both, max_tokens=5, temperature=0)
    once_more = client.completions.create(model=DEMO, prompt=both, max_tokens=5, temperature=0)
    assert again.choices[0].text == once_more.choices[0].text
    assert once_more.usage is not None and once_more.usage.prompt_tokens_details is not None
    details: Any = once_more.usage.prompt_tokens_details
    assert details.cached_tokens == once_more.usage.prompt_tokens - 1
