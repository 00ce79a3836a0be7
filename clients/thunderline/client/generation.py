"""One request, from whoever holds the client: request id and seed are made here, once.

Whoever holds the client holds the request: a stream that breaks is resumed here, so the caller sees a pause and every
token once. What to ask next and when to give up is decided in resume.py.
"""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol

from thunderline.client.connection import streamed
from thunderline.client.resume import End, HeldRequest
from thunderline.cluster.errors import ClusterError
from thunderline.v1 import cluster_pb2, scheduler_pb2

SEEDS = 2**63
GENERATE_DEADLINE_S = 600.0


class Observer(Protocol):
    """Whoever counts resumes."""

    def broke(self, error: ClusterError | None) -> None:
        """The stream broke and will be resumed. None: it ended without a finish. Not told of what fails meanwhile."""

    def went_on(self, pause_s: float) -> None:
        """News again, so long after it broke."""


def completed(wish: cluster_pb2.Generation) -> cluster_pb2.Generation:
    """A copy with a request id, and with a seed where none was given."""
    whole = cluster_pb2.Generation()
    whole.CopyFrom(wish)
    whole.request_id = wish.request_id or str(uuid.uuid4())
    if not wish.sampling.HasField("seed"):
        whole.sampling.seed = random.randrange(SEEDS)
    return whole


async def generate(
    stub: Any, wish: cluster_pb2.Generation, deadline_s: float, observer: Observer | None = None
) -> AsyncIterator[cluster_pb2.GenerationDelta]:
    """What became known since the message before; the last has the finish. Leaving early cancels the request.

    Raises ClusterError, at the latest after `deadline_s`.
    """
    clock = asyncio.get_running_loop().time
    held = HeldRequest(completed(wish), clock() + deadline_s)
    broken_s: float | None = None
    while not held.finished:
        problem: ClusterError | None = None
        async with contextlib.aclosing(_attempt(stub, held, clock())) as deltas:
            try:
                async for delta in deltas:
                    if broken_s is not None and observer is not None:
                        observer.went_on(clock() - broken_s)
                    broken_s = None
                    yield delta
            except ClusterError as error:
                problem = error
        if held.finished:
            # Whatever happened to the stream after its last message is nobody's concern.
            return
        verdict = held.after(problem, clock())
        if isinstance(verdict, End):
            raise verdict.error
        if broken_s is None:
            broken_s = clock()
            if observer is not None:
                observer.broke(problem)
        await asyncio.sleep(verdict.wait_s)


async def _attempt(stub: Any, held: HeldRequest, now_s: float) -> AsyncGenerator[cluster_pb2.GenerationDelta, None]:
    """One call; what was delivered before is not given again. Raises ClusterError."""
    request = scheduler_pb2.SchedulerServiceGenerateRequest(generation=held.next_request(now_s))
    call = stub.Generate(request, timeout=held.deadline_s - now_s)
    async with contextlib.aclosing(streamed(call)) as messages:  # type: ignore[type-var]
        async for message in messages:
            if held.take(message.delta):
                yield message.delta
