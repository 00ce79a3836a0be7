"""One HTTP request's generations: they run side by side and are read as one stream of events."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError, InstanceFailed, InternalError
from thunderline.gateway import metrics
from thunderline.gateway.certain_logprobs import Placed
from thunderline.gateway.openai_errors import HttpError, to_http
from thunderline.gateway.openai_requests import Asked
from thunderline.gateway.openai_responses import DONE, KEEP_ALIVE, Answer, Choice, event
from thunderline.v1 import cluster_pb2

# Deltas that wait for a slow reader; beyond that its generation's own stream fills, and the runner joins tokens.
QUEUE_SIZE_MAX = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """News of one choice: a delta, or how it ended."""

    index: int
    delta: cluster_pb2.GenerationDelta | None = None
    error: ClusterError | None = None
    # Those that go with the delta's text.
    logprobs: Sequence[Placed] = ()


class Resumes:
    """Counts them; the client library does the work."""

    def broke(self, error: ClusterError | None) -> None:
        error = error or InstanceFailed("it ended without a finish")
        log.info("a stream broke and is resumed", extra={"reason": error.reason, "why": error.message})
        metrics.RESUMES.labels(error.reason).inc()

    def went_on(self, pause_s: float) -> None:
        metrics.RESUME_PAUSE.observe(pause_s)


class Answering:
    """Use as an async context: leaving it cancels what still runs."""

    def __init__(self, scheduler: SchedulerClient, asked: Asked, answer: Answer, label: str, deadline_s: float) -> None:
        self._scheduler = scheduler
        self._asked = asked
        self._answer = answer
        self._label = label
        self._deadline_s = deadline_s
        self._queue: asyncio.Queue[Piece] = asyncio.Queue(maxsize=QUEUE_SIZE_MAX)
        self._tasks: list[asyncio.Task[None]] = []
        self._begun_s = time.monotonic()
        self._last_s: dict[int, float] = {}
        self._interrupted: ClusterError | None = None
        self.failed_with: HttpError | None = None
        self.choices = [Choice(index, asked.logprobs) for index in range(len(asked.generations))]

    async def __aenter__(self) -> "Answering":
        self._tasks = [
            asyncio.create_task(self._run(index, wish)) for index, wish in enumerate(self._asked.generations)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Whatever is not finished was paid for all the same.
        prompts = self.choices[:: self._answer.choices_per_prompt]
        metrics.TOKENS.labels(self._label, "in").inc(sum(choice.usage.prompt_tokens for choice in prompts))
        metrics.TOKENS.labels(self._label, "out").inc(sum(choice.token_count for choice in self.choices))

    async def _run(self, index: int, wish: cluster_pb2.Generation) -> None:
        """Ends with a finish or an error in the queue, whatever happens: somebody waits for it."""
        try:
            async with contextlib.aclosing(self._scheduler.generate(wish, self._deadline_s, Resumes())) as deltas:  # type: ignore[type-var]
                async for delta in deltas:
                    await self._queue.put(Piece(index, delta))
        except ClusterError as error:
            await self._queue.put(Piece(index, error=error))
        except Exception as error:  # a bug of ours must not become a client that waits
            log.exception("a generation failed by a bug")
            await self._queue.put(Piece(index, error=InternalError(f"{type(error).__name__}: {error}")))

    def interrupt(self, error: ClusterError) -> None:
        """Ends it with this error at once, whatever waits in the queue."""
        self._interrupted = error
        # A reader that waits is woken; one that does not will look before it reads on.
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(Piece(0, error=error))

    async def pieces(self, silence_s: float) -> AsyncIterator[Piece | None]:
        """News until every choice is finished; None after each silence of `silence_s`. Raises the first error."""
        left = len(self.choices)
        while left:
            if self._interrupted is not None:
                raise self._interrupted
            try:
                async with asyncio.timeout(silence_s):
                    piece = await self._queue.get()
            except TimeoutError:
                yield None
                continue
            if piece.error is not None:
                raise piece.error
            assert piece.delta is not None
            self._measure(piece.index, piece.delta)
            logprobs = self.choices[piece.index].add(piece.delta)
            left -= bool(piece.delta.finish_reason)
            yield replace(piece, logprobs=logprobs)

    def _measure(self, index: int, delta: cluster_pb2.GenerationDelta) -> None:
        if not delta.token_ids:
            return
        now_s = time.monotonic()
        if not self._last_s:
            metrics.FIRST_TOKEN.labels(self._label).observe(now_s - self._begun_s)
        elif index in self._last_s:
            metrics.BETWEEN_TOKENS.labels(self._label).observe(now_s - self._last_s[index])
        self._last_s[index] = now_s

    async def events(self, silence_s: float, patience_s: float) -> AsyncIterator[bytes]:
        """Server-sent events. The first comes when something was generated, or in a silence after `patience_s`: until
        then a refusal (the queue wait is over, say) still gets a status of its own.

        Raises the error only before the first event; later it is an event itself, and the last one.
        """
        spoken: set[int] = set()
        begun = False
        usage = self._asked.include_usage
        try:
            async for piece in self.pieces(silence_s):
                if piece is None:
                    if not begun and time.monotonic() - self._begun_s < patience_s:
                        continue
                    begun = True
                    yield KEEP_ALIVE
                    continue
                delta = piece.delta
                assert delta is not None
                if not (delta.token_ids or delta.finish_reason):
                    continue
                if self._answer.is_chat and piece.index not in spoken:
                    spoken.add(piece.index)
                    yield event(self._answer.first_chunk(piece.index, usage))
                if delta.text or delta.finish_reason or piece.logprobs:
                    yield event(self._answer.chunk(piece.index, delta, piece.logprobs, usage))
                begun = True
        except ClusterError as error:
            if not begun:
                raise
            self.failed_with = to_http(error)
            yield event(self.failed_with.body)
            return
        if usage:
            yield event(self._answer.usage_chunk(self.choices))
        yield DONE
