"""A scheduler behind a real socket that breaks where a test says; its answers come from the runner's own text side."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import grpc

from thunderline.cluster.errors import ClusterError
from thunderline.rpc.channel import SERVER_OPTIONS
from thunderline.rpc.errors import ErrorInterceptor
from thunderline.runner.generation import Generation
from thunderline.runner.tokenizing import ModelText
from thunderline.v1 import cluster_pb2, rank_pb2, scheduler_pb2, scheduler_pb2_grpc

PROMPT_IDS = [5, 6, 7]
AWAY_S = 0.2


class Way(Enum):
    """How a stream breaks, besides a typed error."""

    NO_FINISH = auto()
    # The process dies, and is back after a moment.
    DEATH = auto()
    # The process dies before it has read the request.
    DEAF = auto()


@dataclass(frozen=True)
class Cut:
    """After so many tokens of this attempt, sent in deltas of this size."""

    after_count: int
    way: Way | ClusterError
    size: int = 1


@dataclass
class BreakingScheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Every attempt takes a cut, until none is left."""

    words: ModelText
    # What the model would say.
    answer: Sequence[int]
    cuts: list[Cut] = field(default_factory=list)
    asked: list[cluster_pb2.Generation] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    _deaths: "asyncio.Queue[None]" = field(default_factory=asyncio.Queue)

    async def Generate(
        self, request: scheduler_pb2.SchedulerServiceGenerateRequest, context: Any
    ) -> AsyncIterator[scheduler_pb2.SchedulerServiceGenerateResponse]:
        wish = request.generation
        self.asked.append(wish)
        cut = self.cuts.pop(0) if self.cuts else None
        if cut is not None and cut.way is Way.DEAF:
            await self._die()
        made = Generation(wish, PROMPT_IDS, wish.max_tokens or 1000, self.words)
        deltas = made.deltas(None)
        try:
            done = len(wish.resume_token_ids)
            ids = list(self.answer[done : done + cut.after_count] if cut else self.answer[done:])
            size = cut.size if cut else 3
            while not made.finished and ids:
                # The first delta has the prompt's ids, with tokens or without them.
                if size == 1:
                    yield scheduler_pb2.SchedulerServiceGenerateResponse(delta=await anext(deltas))
                made.on_tokens(news(ids[:size], done))
                done, ids = done + size, ids[size:]
                if size > 1 and not made.finished:
                    yield scheduler_pb2.SchedulerServiceGenerateResponse(delta=await anext(deltas))
            if cut is None or made.finished:
                async for delta in deltas:
                    yield scheduler_pb2.SchedulerServiceGenerateResponse(delta=delta)
                return
            if size == 1:
                yield scheduler_pb2.SchedulerServiceGenerateResponse(delta=await anext(deltas))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if isinstance(cut.way, ClusterError):
            raise cut.way
        if cut.way is Way.DEATH:
            # What was written has arrived before it dies.
            await asyncio.sleep(0.02)
            await self._die()

    async def _die(self) -> None:
        self._deaths.put_nowait(None)
        await asyncio.Event().wait()

    async def live(self, address: str) -> None:
        """Until cancelled: serves, and again after each death."""
        while True:
            server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=SERVER_OPTIONS)
            scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(self, server)
            server.add_insecure_port(address)
            await server.start()
            try:
                await self._deaths.get()
            finally:
                await server.stop(None)
            await asyncio.sleep(AWAY_S)

    # No story asks for these.
    Deploy: Any = None
    Undeploy: Any = None
    ListDeployments: Any = None
    PlanPlacement: Any = None
    GetCluster: Any = None
    DrainNode: Any = None
    WatchCluster: Any = None
    WatchEvents: Any = None
    AdoptRunners: Any = None


def news(ids: Sequence[int], position: int) -> rank_pb2.SequenceTokens:
    """Tokens with log-probabilities that tell their position."""
    logprobs = [
        rank_pb2.SequenceLogprobs(logprob=-0.5 * (position + index), top_token_ids=[id, 3], top_logprobs=[-0.5, -2.0])
        for index, id in enumerate(ids)
    ]
    return rank_pb2.SequenceTokens(key=1, token_ids=ids, logprobs=logprobs)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.asynccontextmanager
async def living(scheduler: BreakingScheduler) -> AsyncIterator[str]:
    """Its address, for the time of the block."""
    address = free_address()
    life = asyncio.create_task(scheduler.live(address))
    try:
        yield address
    finally:
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await life
