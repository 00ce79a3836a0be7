"""Ctrl-C reaches every request in flight, whether its reader waits or is behind."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from thunderline.cluster.errors import Draining
from thunderline.gateway.answering import QUEUE_SIZE_MAX, Answering
from thunderline.gateway.openai_requests import completion
from thunderline.gateway.openai_responses import Answer
from thunderline.v1 import cluster_pb2

SILENCE_S = 10.0


class LittleScheduler:
    """Says so many tokens at once, then nothing."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def generate(self, wish: Any, deadline_s: float, observer: Any) -> AsyncIterator[cluster_pb2.GenerationDelta]:
        for _ in range(self._count):
            yield cluster_pb2.GenerationDelta(token_ids=[5], text="a")
        await asyncio.Event().wait()


def answering(count: int) -> Answering:
    asked = completion({"model": "m", "prompt": "a", "stream": True}, 1)
    answer = Answer(id="cmpl-1", created_s=1, model="m", is_chat=False, choices_per_prompt=1)
    return Answering(LittleScheduler(count), asked, answer, "m", 60.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, QUEUE_SIZE_MAX + 5], ids=["before the first token", "after one", "behind"])
async def test_the_last_thing_that_is_said_is_the_error(count: int) -> None:
    async with asyncio.timeout(SILENCE_S / 2), answering(count) as one:
        # Everything that fits has arrived, and nobody has read it.
        for _ in range(2 * QUEUE_SIZE_MAX):
            await asyncio.sleep(0)
        one.interrupt(Draining("the gateway is stopping"))
        with pytest.raises(Draining):
            _ = [piece async for piece in one.pieces(SILENCE_S)]


async def test_a_reader_that_waits_is_woken() -> None:
    async with asyncio.timeout(SILENCE_S / 2), answering(0) as one:
        reading = asyncio.ensure_future(anext(one.pieces(SILENCE_S)))
        await asyncio.sleep(0)
        one.interrupt(Draining("the gateway is stopping"))
        with pytest.raises(Draining):
            await reading
