"""The client library against a scheduler that breaks: the caller sees every token, its text and its figures once."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from client.breaking_scheduler import AWAY_S, PROMPT_IDS, BreakingScheduler, Cut, Way, free_address, living
from runner.little_model import make
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import (
    RANK_LOST_FACT,
    ClusterError,
    CrashLoop,
    DeadlinePassed,
    Draining,
    EngineReset,
    InstanceFailed,
    RequestPoisoned,
)
from thunderline.runner import tokenizing
from thunderline.runner.tokenizing import ModelText
from thunderline.v1 import cluster_pb2

TEXT = "the quick 😀 brown fox, 你好 and the lazy dog; pull a cable, kill a process: the answer goes on"
EOS = 2
LOST = InstanceFailed("the rank died", retry_after_s=None, **{RANK_LOST_FACT: "SIGKILL"})
SOON_S = 20.0


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> ModelText:
    return tokenizing.read(make(tmp_path_factory.mktemp("resume") / "little"))


@dataclass
class Seen:
    """Everything that a caller got, and what an observer was told."""

    prompt_token_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[cluster_pb2.TokenLogprob] = field(default_factory=list)
    finish: int = 0
    usage: cluster_pb2.Usage = field(default_factory=cluster_pb2.Usage)
    breaks: list[str] = field(default_factory=list, compare=False)
    pauses_s: list[float] = field(default_factory=list, compare=False)

    def add(self, delta: cluster_pb2.GenerationDelta) -> None:
        assert not self.finish, "nothing comes after the finish"
        self.prompt_token_ids += delta.prompt_token_ids
        self.token_ids += delta.token_ids
        self.text += delta.text
        self.logprobs += delta.logprobs
        self.finish = delta.finish_reason
        self.usage = delta.usage

    def broke(self, error: ClusterError | None) -> None:
        self.breaks.append(error.reason if error else "")

    def went_on(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)


@contextlib.asynccontextmanager
async def client_of(scheduler: BreakingScheduler) -> AsyncIterator[SchedulerClient]:
    async with asyncio.timeout(SOON_S), living(scheduler) as address, SchedulerClient(address) as client:
        yield client


async def told(client: SchedulerClient, deadline_s: float = SOON_S, **wish: Any) -> Seen:
    seen = Seen()
    request = cluster_pb2.Generation(model="m", text="Once", logprobs=True, top_logprob_count=2, **wish)
    async for delta in client.generate(request, deadline_s, seen):
        seen.add(delta)
    return seen


def ids_of(words: ModelText) -> list[int]:
    return [*words.tokenizer.encode(TEXT, add_special_tokens=False).ids, EOS]


BREAKS: dict[str, list[Cut]] = {
    "the rank dies": [Cut(5, LOST)],
    "the engine is reset before the first token": [Cut(0, EngineReset("reset"))],
    "the runner drains": [Cut(9, Draining("stopping"), size=3)],
    "the scheduler dies": [Cut(7, Way.DEATH)],
    "the scheduler dies before it has read the request": [Cut(0, Way.DEAF)],
    "a stream ends without a finish": [Cut(4, Way.NO_FINISH)],
    "the last token is delivered, its finish is not": [Cut(1000, LOST, size=1000)],
    "everything, one after the other": [
        Cut(0, Way.DEAF),
        Cut(3, LOST),
        Cut(1, Way.DEATH),
        Cut(0, EngineReset("reset")),
        Cut(6, Way.NO_FINISH, size=2),
        Cut(0, Draining("stopping")),
        Cut(2, LOST),
    ],
    "after every single token": [Cut(1, LOST)] * 12,
}
WISHES: dict[str, dict[str, Any]] = {
    "to its end": {},
    "up to max_tokens": {"max_tokens": 17},
    "up to a stop string": {"stop": ["lazy dog"]},
    "past an unfinished stop string": {"stop": ["brown fox jumps", "answer goes under"]},
}


@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES.keys())
@pytest.mark.parametrize("cuts", BREAKS.values(), ids=BREAKS.keys())
async def test_a_broken_stream_equals_the_undisturbed_one(
    words: ModelText, cuts: list[Cut], wish: dict[str, Any]
) -> None:
    undisturbed = BreakingScheduler(words, ids_of(words))
    broken = BreakingScheduler(words, ids_of(words), list(cuts))
    async with client_of(undisturbed) as client:
        expected = await told(client, **wish)
    async with client_of(broken) as client:
        seen = await told(client, **wish)
    assert expected.finish and expected.prompt_token_ids == PROMPT_IDS
    assert expected.usage.completion_tokens == len(expected.token_ids) == len(expected.logprobs)
    assert seen == expected
    assert len({(asked.request_id, asked.sampling.seed) for asked in broken.asked}) == 1
    assert all(asked.WhichOneof("prompt") == "prompt_token_ids" for asked in broken.asked if asked.resume_token_ids)


async def test_a_pause_is_told_once_with_what_broke_it(words: ModelText) -> None:
    cuts = [Cut(5, Way.DEATH), Cut(3, LOST), Cut(0, EngineReset("reset")), Cut(0, Draining("stopping"))]
    async with client_of(BreakingScheduler(words, ids_of(words), cuts)) as client:
        seen = await told(client)
    assert seen.breaks == ["UNREACHABLE", "INSTANCE_FAILED"]
    assert len(seen.pauses_s) == 2
    assert AWAY_S <= seen.pauses_s[0] < AWAY_S + 1
    assert 0.1 + 0.1 + 0.2 <= seen.pauses_s[1] < 1


async def test_several_streams_outlive_one_death(words: ModelText) -> None:
    scheduler = BreakingScheduler(words, ids_of(words), [Cut(5, Way.DEATH)])
    async with client_of(scheduler) as client:
        seen = await asyncio.gather(*(told(client) for _ in range(4)))
    assert all(one.token_ids == ids_of(words) and one.text == TEXT for one in seen)


ENDS: dict[str, tuple[list[Cut], type[ClusterError], int]] = {
    "what is not resumable, at once": ([Cut(3, CrashLoop("m is CRASH_LOOP: it died"))], CrashLoop, 1),
    "three ranks in a row": ([Cut(3, LOST), Cut(0, LOST), Cut(0, EngineReset("x"))], RequestPoisoned, 3),
}


@pytest.mark.parametrize(("cuts", "kind", "count"), ENDS.values(), ids=ENDS.keys())
async def test_it_ends_with_one_typed_error(
    words: ModelText, cuts: list[Cut], kind: type[ClusterError], count: int
) -> None:
    scheduler = BreakingScheduler(words, ids_of(words), list(cuts))
    async with client_of(scheduler) as client:
        with pytest.raises(kind):
            await told(client)
        assert [asked.lost_rank_count for asked in scheduler.asked] == list(range(count))


async def test_nothing_outlives_the_deadline(words: ModelText) -> None:
    begun_s = time.monotonic()
    async with client_of(BreakingScheduler(words, ids_of(words), [Cut(1, Way.NO_FINISH)] * 100)) as client:
        with pytest.raises(DeadlinePassed, match="tokens were delivered"):
            await told(client, deadline_s=0.5)
    assert time.monotonic() - begun_s < 3


async def test_without_a_scheduler_the_deadline_ends_it() -> None:
    async with asyncio.timeout(SOON_S), SchedulerClient(free_address()) as client:
        with pytest.raises(DeadlinePassed, match="0 tokens were delivered"):
            await told(client, deadline_s=0.6)


async def test_a_caller_that_leaves_cancels_the_attempt_under_way(words: ModelText) -> None:
    scheduler = BreakingScheduler(words, ids_of(words), [Cut(3, LOST), Cut(2, Way.DEATH)])
    async with client_of(scheduler) as client:
        deltas = client.generate(cluster_pb2.Generation(model="m", text="Once"), SOON_S)
        async with contextlib.aclosing(deltas):  # type: ignore[type-var]
            async for _ in deltas:
                if len(scheduler.asked) == 2:
                    break
        before = len(scheduler.asked)
        await asyncio.sleep(0.3)
        assert len(scheduler.asked) == before
