"""What stories of requests share: waiting for what a real runner and its rank do."""

import asyncio
from typing import Any

from runner.little_runner import Little
from thunderline.cluster import InstanceId, RankId
from thunderline.runner import tokenizing
from thunderline.v1 import cluster_pb2

S = cluster_pb2
STOP, LENGTH = S.FINISH_REASON_STOP, S.FINISH_REASON_LENGTH
FOX = "the quick brown fox"


def ids(little: Little, text: str) -> list[int]:
    return list(tokenizing.read(little.settings.models / "little").tokenizer.encode(text).ids)


async def idle(little: Little) -> None:
    """Until no sequence is left at the rank, by the rank's own word in its log."""
    rank = little.ranks.find(RankId(InstanceId("i1"), 1, 0))
    assert rank is not None
    async with asyncio.timeout(5):
        while rank.generations:
            await asyncio.sleep(0.01)


async def removed(little: Little, count: int = 1) -> None:
    async with asyncio.timeout(5):
        while little.log().count("operation remove") < count:
            await asyncio.sleep(0.01)


async def first(call: Any) -> None:
    """Until the stream has given a token."""
    async for response in call:
        if response.delta.token_ids:
            return


async def parked(little: Little) -> None:
    async with asyncio.timeout(5):
        while "operation park" not in little.log():
            await asyncio.sleep(0.01)
