"""The cluster's scheduler, from whichever node: on another one it is found, and the connection moves with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from thunderline.client.scheduler import SchedulerClient
from thunderline.cluster.errors import Unreachable
from thunderline.rpc.scheduler_way import OwnNode, SchedulerWay

__all__ = ["OwnNode", "scheduler_of"]

# Discovery answers at once; then one address is tried after the other.
FIND_S = 5.0
LOOK_S = 0.02


@contextlib.asynccontextmanager
async def scheduler_of(own: OwnNode, find_s: float = FIND_S) -> AsyncIterator[SchedulerClient]:
    """For the time of the block. Raises Unreachable, which says what to do next; Unauthenticated."""
    if own.is_scheduler_node:
        async with SchedulerClient(own.scheduler_target, own.wallet, own.node or None) as client:
            yield client
        return
    way = SchedulerWay(own)
    running = asyncio.create_task(way.run())
    try:
        await _until_it_works(way, running, find_s)
        yield SchedulerClient.over(way.channel, way.channel.target)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _until_it_works(way: SchedulerWay, running: "asyncio.Task[None]", find_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(find_s):
            while not way.channel.works and not running.done():
                await asyncio.sleep(LOOK_S)
    if running.done():
        # It ends by a bug only.
        running.result()
    if way.problem:
        raise Unreachable(way.problem)
