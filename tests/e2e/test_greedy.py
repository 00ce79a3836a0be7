"""Greedy answers equal mlx-lm's own: ids by gRPC, text by HTTP, alone and four at once."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.questions import QUESTIONS
from installation import DEMO, Installation
from thunderline.client import SchedulerClient
from thunderline.v1 import cluster_pb2

# All twenty in `make prove`, a fifth of them in `make test`.
COUNT = 20 if os.environ.get("PROVE") else 4
MAX_TOKENS = 128 if os.environ.get("PROVE") else 40
LONG = 64 if os.environ.get("PROVE") else 24
ALONE_COUNT = 4 if os.environ.get("PROVE") else 2


def generation(question: str) -> cluster_pb2.Generation:
    chat = cluster_pb2.Chat(messages=[cluster_pb2.ChatMessage(role="user", content=question)])
    return cluster_pb2.Generation(model=DEMO, chat=chat, max_tokens=MAX_TOKENS)


class Stream:
    """What one stream gave, and when."""

    def __init__(self) -> None:
        self.prompt_token_ids: list[int] = []
        self.token_ids: list[int] = []
        self.text = ""
        self.first_s = self.last_s = 0.0

    async def read(self, client: SchedulerClient, question: str) -> "Stream":
        async for delta in client.generate(generation(question), deadline_s=300):
            self.prompt_token_ids += delta.prompt_token_ids
            if delta.token_ids:
                self.first_s = self.first_s or time.monotonic()
                self.last_s = time.monotonic()
            self.token_ids += delta.token_ids
            self.text += delta.text
        return self


async def ask(target: str, questions: list[str], at_once: bool) -> list[Stream]:
    async with SchedulerClient(target) as client:
        if at_once:
            return list(await asyncio.gather(*(Stream().read(client, question) for question in questions)))
        return [await Stream().read(client, question) for question in questions]


@pytest.fixture(scope="module")
def streams(fresh: Installation) -> list[Stream]:
    return [
        stream
        for first in range(0, COUNT, 4)
        for stream in asyncio.run(ask(fresh.target("scheduler"), QUESTIONS[first : first + 4], at_once=True))
    ]


@pytest.fixture(scope="module")
def reference(streams: list[Stream], demo_folder: Path) -> list[dict[str, object]]:
    questions = [{"prompt_token_ids": stream.prompt_token_ids, "max_tokens": MAX_TOKENS} for stream in streams]
    script = Path(__file__).with_name("reference.py")
    answer = subprocess.run(
        [sys.executable, str(script), str(demo_folder)],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return list(json.loads(answer.stdout))


def test_ids_by_grpc_equal_mlx_lms(
    streams: list[Stream], reference: list[dict[str, object]], evidence: dict[str, Any]
) -> None:
    pairs = [(stream.token_ids, answer["token_ids"]) for stream, answer in zip(streams, reference, strict=True)]
    evidence["answers"] = COUNT
    evidence["answers_equal_by_ids"] = sum(ours == theirs for ours, theirs in pairs)
    evidence["answers_of_64_tokens_or_more"] = sum(len(ours) >= LONG for ours, _ in pairs)
    assert [ours for ours, _ in pairs] == [theirs for _, theirs in pairs]
    assert evidence["answers_of_64_tokens_or_more"] >= COUNT / 2


def test_text_by_http_equals_mlx_lms(
    fresh: Installation, reference: list[dict[str, object]], evidence: dict[str, Any]
) -> None:
    client = fresh.openai(timeout_s=300)
    # The longest were compared by id; by HTTP the shortest half shows that text and ids are one thing.
    chosen = range(COUNT) if COUNT == 20 else sorted(range(COUNT), key=lambda n: len(str(reference[n]["text"])))[:2]
    for n in chosen:
        answer = client.chat.completions.create(
            model=DEMO, messages=[{"role": "user", "content": QUESTIONS[n]}], temperature=0, max_tokens=MAX_TOKENS
        )
        assert answer.choices[0].message.content == reference[n]["text"]
    evidence["answers_equal_by_text"] = len(chosen)


def test_four_at_once_equal_one_after_the_other(fresh: Installation, streams: list[Stream]) -> None:
    four = streams[:4]
    assert max(stream.first_s for stream in four) < min(stream.last_s for stream in four), "they did not overlap"
    alone = asyncio.run(ask(fresh.target("scheduler"), QUESTIONS[:ALONE_COUNT], at_once=False))
    assert [stream.token_ids for stream in alone] == [stream.token_ids for stream in four[:ALONE_COUNT]]
    assert [stream.text for stream in alone] == [stream.text for stream in four[:ALONE_COUNT]]
