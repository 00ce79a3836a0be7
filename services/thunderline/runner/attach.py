"""RankService on the runner's Unix socket: ranks dial in, commands go down, one message a step comes up."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from thunderline.cluster.errors import InvalidRequest, StaleEpoch
from thunderline.cluster.ranks import RankState
from thunderline.runner.known_rank import KnownRank, Outbox
from thunderline.runner.ranks import Ranks
from thunderline.runner.reports import rank_id
from thunderline.v1 import rank_pb2, rank_pb2_grpc

HELLO_DEADLINE_S = 10.0

log = logging.getLogger(__name__)


class RankService(rank_pb2_grpc.RankServiceServicer):
    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    # The generated type knows only handlers that yield; this one reads and writes at once.
    async def Attach(  # type: ignore[override]
        self, requests: AsyncIterator[rank_pb2.AttachRequest], context: Any
    ) -> None:
        hello = await _hello(context)
        rank = self._ranks.find(rank_id(hello.id))
        if rank is None or rank.state is RankState.ABSENT:
            raise StaleEpoch(f"no rank {rank_id(hello.id)} is wanted here")
        # Without it a rank that waits for its goal would not learn that it has a runner.
        await context.send_initial_metadata(())
        outbox = rank.attach(hello)
        both = {asyncio.create_task(_receive(rank, context)), asyncio.create_task(_send(outbox, context))}
        try:
            # Whichever ends first ends the stream: the rank is gone, or a newer stream took over.
            ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            rank.detach(outbox)
        for task in ended:
            task.result()


async def _hello(context: Any) -> rank_pb2.Hello:
    try:
        async with asyncio.timeout(HELLO_DEADLINE_S):
            first = await context.read()
    except TimeoutError:
        first = None
    if not isinstance(first, rank_pb2.AttachRequest) or not first.HasField("hello"):
        raise InvalidRequest("a rank says hello first", param="event")
    return first.hello


async def _receive(rank: KnownRank, context: Any) -> None:
    """Until the rank closes its side or is gone."""
    while isinstance(message := await context.read(), rank_pb2.AttachRequest):
        match message.WhichOneof("event"):
            case "step":
                rank.on_step(message.step)
            case "state":
                rank.on_state(message.state)
            case "reset":
                rank.on_reset(message.reset)
            case other:
                log.warning("a rank sent what it should not", extra={"rank": str(rank.id), "event": other})


async def _send(outbox: Outbox, context: Any) -> None:
    """Until a newer stream takes over."""
    while (command := await outbox.get()) is not None:
        await context.write(command)
