"""A client of the scheduler that reads an answer's bytes as they come."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from scheduler.little_scheduler import Life
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2, scheduler_pb2

METHOD = "/thunderline.v1.SchedulerService/Generate"


def resume_of(life: Life, lost_rank_count: int) -> cluster_pb2.Generation:
    wish = life.generation()
    wish.resume = True
    wish.lost_rank_count = lost_rank_count
    return wish


@contextlib.asynccontextmanager
async def calling(
    life: Life, wish: cluster_pb2.Generation, timeout_s: float | None = 20
) -> AsyncIterator["grpc.aio.UnaryStreamCall[Any, bytes]"]:
    """A client that reads bytes; it leaves at the end of the block."""
    async with dial(life.address) as channel:
        method: grpc.aio.UnaryStreamMultiCallable[Any, bytes] = channel.unary_stream(
            METHOD, request_serializer=scheduler_pb2.SchedulerServiceGenerateRequest.SerializeToString
        )
        call = method(scheduler_pb2.SchedulerServiceGenerateRequest(generation=wish), timeout=timeout_s)
        try:
            yield call
        finally:
            call.cancel()


async def answered(life: Life, wish: cluster_pb2.Generation | None = None, timeout_s: float | None = 20) -> list[bytes]:
    """Every message. Raises the typed error that ended the stream."""
    async with calling(life, wish or life.generation(), timeout_s) as call:
        try:
            return [message async for message in call]
        except grpc.aio.AioRpcError as error:
            raise from_call(error) from None


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0.01)
