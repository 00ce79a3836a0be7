"""The real gateway over HTTP, in front of a small scheduler that behaves as a story needs."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import openai
import pytest
import uvicorn
from prometheus_client import REGISTRY

from thunderline.client import SchedulerClient
from thunderline.cluster.errors import CrashLoop, EngineReset, Full, InstanceFailed, NoReadyInstance
from thunderline.cluster.limits import Limits
from thunderline.gateway.__main__ import Server, listen
from thunderline.gateway.app import Gateway
from thunderline.gateway.keys import AsksForKey
from thunderline.rpc.errors import ErrorInterceptor
from thunderline.v1 import cluster_pb2, scheduler_pb2, scheduler_pb2_grpc

Delta = cluster_pb2.GenerationDelta
USAGE = cluster_pb2.Usage(prompt_tokens=3, completion_tokens=2)
END = Delta(token_ids=[2], text="!", finish_reason=cluster_pb2.FINISH_REASON_STOP, usage=USAGE)


class LittleScheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Says what the script holds: deltas, an error, or "endless"; a resume gets what `resumes` holds."""

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.resumes: list[Any] = script
        self.wishes: list[cluster_pb2.Generation] = []
        self.cancelled = asyncio.Event()

    async def Generate(
        self, request: scheduler_pb2.SchedulerServiceGenerateRequest, context: Any
    ) -> AsyncIterator[scheduler_pb2.SchedulerServiceGenerateResponse]:
        self.wishes.append(request.generation)
        try:
            for step in self.resumes if request.generation.resume else self.script:
                if isinstance(step, Exception):
                    raise step
                if step == "endless":
                    await asyncio.Event().wait()
                yield scheduler_pb2.SchedulerServiceGenerateResponse(delta=step)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def ListDeployments(
        self, request: scheduler_pb2.ListDeploymentsRequest, context: Any
    ) -> scheduler_pb2.ListDeploymentsResponse:
        ready = cluster_pb2.Deployment(
            spec=cluster_pb2.DeploymentSpec(name="m"), state=cluster_pb2.DEPLOYMENT_STATE_READY
        )
        return scheduler_pb2.ListDeploymentsResponse(deployments=[ready])

    # No story asks for these.
    Deploy: Any = None
    Undeploy: Any = None
    PlanPlacement: Any = None
    GetCluster: Any = None
    DrainNode: Any = None
    WatchCluster: Any = None
    WatchEvents: Any = None
    AdoptRunners: Any = None


@dataclass
class Door:
    url: str
    scheduler: LittleScheduler
    body: dict[str, Any] = field(default_factory=lambda: {"model": "m", "prompt": "a", "stream": True})

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=10)


@asynccontextmanager
async def door(*script: Any, api_keys: Sequence[str] = (), **limits: float) -> AsyncIterator[Door]:
    scheduler = LittleScheduler(list(script))
    grpc_server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(scheduler, grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    listener = listen("127.0.0.1", 0)
    async with SchedulerClient(f"127.0.0.1:{port}") as client:
        gateway = Gateway(client, Limits(**limits))  # type: ignore[arg-type]
        app = AsksForKey(gateway.app(), api_keys)
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        server = Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield Door(f"http://127.0.0.1:{listener.getsockname()[1]}", scheduler)
        finally:
            server.should_exit = True
            await serving
            listener.close()
    await grpc_server.stop(0)


async def lines(one: Door) -> list[str]:
    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream("POST", f"{one.url}/v1/completions", json=one.body) as answer,
    ):
        return [line async for line in answer.aiter_lines() if line]


async def test_a_stream_ends_with_done() -> None:
    async with door(Delta(prompt_token_ids=[1, 2, 3]), Delta(token_ids=[5], text="Hi"), END) as one:
        found = await lines(one)
    assert found[-1] == "data: [DONE]"
    assert "".join(json.loads(line[6:])["choices"][0]["text"] for line in found[:-1]) == "Hi!"


async def test_an_error_after_the_first_token_is_an_event_and_the_last_one() -> None:
    async with door(Delta(token_ids=[5], text="Hi"), CrashLoop("the rank died")) as one:
        found = await lines(one)
        async with one.client() as client:
            with pytest.raises(openai.APIError, match="the rank died"):
                async for _ in await client.completions.create(model="m", prompt="a", stream=True):
                    pass
    assert json.loads(found[-1][6:])["error"]["code"] == "crash_loop"
    assert "data: [DONE]" not in found


BREAKS: dict[str, list[Any]] = {
    "the rank died": [InstanceFailed("it died")],
    "the stream ended without a finish": [],
}


@pytest.mark.parametrize("end", BREAKS.values(), ids=BREAKS.keys())
@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "in one piece"])
async def test_a_broken_stream_goes_on_and_its_client_sees_no_seam(stream: bool, end: list[Any]) -> None:
    before = resumes()
    async with door(Delta(prompt_token_ids=[1, 2, 3], token_ids=[5], text="Hi"), *end) as one, one.client() as client:
        one.scheduler.resumes = [Delta(prompt_token_ids=[1, 2, 3]), END]
        if stream:
            chunks = [chunk async for chunk in await client.completions.create(model="m", prompt="a", n=2, stream=True)]
            texts = ["".join(one.choices[0].text for one in chunks if one.choices[0].index == i) for i in (0, 1)]
        else:
            answer = await client.completions.create(model="m", prompt="a", n=2)
            texts = [choice.text for choice in answer.choices]
            assert answer.usage and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4)
    assert texts == ["Hi!", "Hi!"]
    asked = [wish for wish in one.scheduler.wishes if wish.resume]
    assert [(list(wish.prompt_token_ids.ids), list(wish.resume_token_ids)) for wish in asked] == [([1, 2, 3], [5])] * 2
    assert len({wish.request_id for wish in one.scheduler.wishes}) == 2
    assert resumes() == (before[0] + 2, before[1] + 2)


def resumes() -> tuple[float, float]:
    """Streams that broke, and pauses that ended."""
    broke = REGISTRY.get_sample_value("thunderline_resumes_total", {"reason": "INSTANCE_FAILED"}) or 0.0
    return broke, REGISTRY.get_sample_value("thunderline_resume_pause_seconds_count") or 0.0


async def test_a_request_that_resets_every_engine_is_poisoned() -> None:
    async with door(EngineReset("it raised")) as one, httpx.AsyncClient(timeout=10) as client:
        answer = await client.post(f"{one.url}/v1/completions", json=one.body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "request_poisoned")
        assert [wish.lost_rank_count for wish in one.scheduler.wishes] == [0, 1, 2]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        pytest.param(Full("full", retry_after_s=1.0), 429, "1", id="a full queue"),
        pytest.param(NoReadyInstance("m is STARTING", retry_after_s=2.0), 503, "2", id="nothing READY"),
    ],
)
async def test_an_error_before_the_first_token_has_a_status_of_its_own(
    error: Exception, status: int, retry: str
) -> None:
    async with door(error) as one, httpx.AsyncClient(timeout=10) as client:
        answer = await client.post(f"{one.url}/v1/completions", json=one.body)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, retry)


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "in one piece"])
async def test_a_client_that_leaves_cancels_the_generation(stream: bool) -> None:
    async with door(Delta(token_ids=[5], text="Hi"), "endless") as one:
        one.body["stream"] = stream
        async with httpx.AsyncClient(timeout=10) as client:
            asking = asyncio.create_task(client.post(f"{one.url}/v1/completions", json=one.body))
            async with asyncio.timeout(5):
                while not one.scheduler.wishes:
                    await asyncio.sleep(0.01)
            asking.cancel()
        await asyncio.wait_for(one.scheduler.cancelled.wait(), 5)


async def test_silence_is_filled_with_comments() -> None:
    async with (
        door(Delta(token_ids=[5], text="Hi"), "endless", sse_keep_alive_s=0.05) as one,
        httpx.AsyncClient(timeout=10) as client,
        client.stream("POST", f"{one.url}/v1/completions", json=one.body) as answer,
    ):
        seen = 0
        async for line in answer.aiter_lines():
            seen += line == ": keep-alive"
            if seen == 3:
                break
    assert seen == 3


async def test_several_choices_have_seeds_in_a_row() -> None:
    async with door(END) as one, one.client() as client:
        await client.completions.create(model="m", prompt="a", n=3, seed=2**63 - 1)
        seeds = sorted(wish.sampling.seed for wish in one.scheduler.wishes)
        assert seeds == [2**63 - 1, 2**63, 2**63 + 1]
        one.scheduler.wishes.clear()
        await client.completions.create(model="m", prompt="a", n=2)
        first, second = sorted(wish.sampling.seed for wish in one.scheduler.wishes)
        assert second == first + 1


async def test_an_answer_can_be_sent_back_as_it_came() -> None:
    async with door(END) as one, one.client() as client:
        messages: list[Any] = [{"role": "user", "content": "Hello"}]
        answer = await client.chat.completions.create(model="m", messages=messages)
        messages += [answer.choices[0].message, {"role": "user", "content": "And?"}]
        await client.chat.completions.create(model="m", messages=messages)
    assert [message.role for message in one.scheduler.wishes[-1].chat.messages] == ["user", "assistant", "user"]


def token(text: str, sent: str) -> cluster_pb2.GenerationDelta:
    """A token with its log-probability, and the text that is certain with it."""
    one = cluster_pb2.TokenLogprob(token_id=5, token=text, token_bytes=text.encode(), logprob=-1.0)
    return Delta(token_ids=[5], text=sent, logprobs=[one])


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "in one piece"])
@pytest.mark.parametrize("kind", ["chat", "legacy"])
async def test_a_stop_string_does_not_show_in_the_logprobs(kind: str, stream: bool) -> None:
    end = Delta(finish_reason=cluster_pb2.FINISH_REASON_STOP, usage=USAGE)
    end.MergeFrom(token(" there", ""))
    async with door(token("Hi", "Hi"), token(" y", ""), token("ou", " you"), end) as one:
        asks: dict[str, Any] = {"model": "m", "n": 2, "stream": stream, "stop": [" there"]}
        if kind == "chat":
            path, asks = "chat/completions", asks | {"messages": [{"role": "user", "content": "a"}], "logprobs": True}
        else:
            path, asks = "completions", asks | {"prompt": "a", "logprobs": 0}
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.post(f"{one.url}/v1/{path}", json=asks)
    assert "there" not in answer.text
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")] if stream else [answer.text]
    for index in (0, 1):
        choices = [choice for body in events for choice in json.loads(body)["choices"] if choice["index"] == index]
        found = [choice["logprobs"] for choice in choices if choice["logprobs"]]
        if kind == "chat":
            assert [entry["token"] for one in found for entry in one["content"]] == ["Hi", " y", "ou"]
        else:
            assert [token for one in found for token in one["tokens"]] == ["Hi", " y", "ou"]
            assert [offset for one in found for offset in one["text_offset"]] == [0, 2, 4]
