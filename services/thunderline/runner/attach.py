"""RankService on the runner's Unix socket: ranks dial in, commands go down, one message a step comes up."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.errors import InvalidRequest, StaleEpoch
from thunderline.runner.ranks import Rank, Ranks
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
        async with asyncio.timeout(HELLO_DEADLINE_S):
            first = await context.read()
        if not isinstance(first, rank_pb2.AttachRequest) or not first.HasField("hello"):
            raise InvalidRequest("a rank says hello first")
        hello = first.hello
        rank = self._ranks.find(RankId(InstanceId(hello.id.instance), hello.id.epoch, hello.id.rank))
        if rank is None:
            raise StaleEpoch(f"no rank {hello.id.instance}-{hello.id.epoch}-{hello.id.rank} is wanted here")
        rank.attached += 1
        state = rank_pb2.StateChange(state=hello.state)
        if hello.HasField("engine"):
            state.engine.CopyFrom(hello.engine)
        self._ranks.on_state(rank, state)
        down = asyncio.create_task(self._send(rank, context))
        try:
            await self._receive(rank, context)
        finally:
            down.cancel()
            rank.attached -= 1
            self._ranks.changes.notify()

    async def _receive(self, rank: Rank, context: Any) -> None:
        """Until the rank closes its side or is gone."""
        while isinstance(message := await context.read(), rank_pb2.AttachRequest):
            match message.WhichOneof("event"):
                case "step":
                    self._ranks.on_step(rank, message.step)
                case "state":
                    self._ranks.on_state(rank, message.state)
                case "reset":
                    self._ranks.on_reset(rank, message.reset)
                case other:
                    log.warning("a rank sent what it should not", extra={"rank": str(rank.id), "event": other})

    async def _send(self, rank: Rank, context: Any) -> None:
        while True:
            await context.write(await rank.outbox.get())
