"""One request at its rank: ids in, certain text out. Tokens that wait for a slow reader are joined into one delta."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

from thunderline.cluster.errors import ClusterError, DeadlinePassed
from thunderline.runner.detokenize import Detokenizer
from thunderline.runner.stop_strings import StopMatcher
from thunderline.runner.tokenizing import ModelText
from thunderline.v1 import cluster_pb2, rank_pb2

# With 20 log-probabilities each these are 3 MB; a message may have 16.
DELTA_TOKENS_MAX = 4096


class Generation:
    """The text side of a sequence. Fed by its rank's reports, read by one stream; both on one event loop."""

    def __init__(
        self, wish: cluster_pb2.Generation, prompt_token_ids: list[int], max_tokens: int, words: ModelText
    ) -> None:
        self.wish = wish
        self.prompt_token_ids = prompt_token_ids
        self.max_tokens = max_tokens
        self._words = words
        self._ends = frozenset() if wish.ignore_eos else frozenset(words.end_token_ids)
        self._detokenizer = Detokenizer(words.decode)
        self._stops = StopMatcher(wish.stop)
        self._token_count = 0
        self._cached_tokens = 0
        self._pending = cluster_pb2.GenerationDelta(prompt_token_ids=prompt_token_ids)
        # Those before it, which are as large as one may be.
        self._full: deque[cluster_pb2.GenerationDelta] = deque()
        self._error: ClusterError | None = None
        # Whether its rank keeps it for a resume though its stream has ended.
        self.is_parked = False
        self._news = asyncio.Event()
        self._news.set()
        self._resume(wish.resume_token_ids)

    @property
    def finished(self) -> bool:
        return bool(self._pending.finish_reason)

    def _resume(self, ids: Iterable[int]) -> None:
        """Tokens delivered before count, and the text that they made certain was delivered with them.

        When they end the request already, its finish, with the text that was held back, comes at once.
        """
        reason = self._take(ids)[1]
        self._pending.text = ""
        del self._pending.token_ids[:]
        if reason:
            self._finish(reason)

    def on_tokens(self, news: rank_pb2.SequenceTokens) -> None:
        """News from the engine. After the finish nothing changes any more."""
        if self.finished:
            return
        self._cached_tokens = max(self._cached_tokens, news.cached_tokens)
        done, reason = 0, cluster_pb2.FINISH_REASON_UNSPECIFIED
        # Once at least: news may be a finish alone.
        while not reason and done < max(1, len(news.token_ids)):
            if len(self._pending.token_ids) >= DELTA_TOKENS_MAX:
                self._full.append(self._pending)
                self._pending = cluster_pb2.GenerationDelta()
            room = DELTA_TOKENS_MAX - len(self._pending.token_ids)
            taken, reason = self._take(news.token_ids[done : done + room])
            logprobs = zip(news.token_ids[done : done + taken], news.logprobs[done : done + taken], strict=False)
            self._pending.logprobs.extend(self._logprob(token_id, logprob) for token_id, logprob in logprobs)
            done += max(1, taken)
        if reason or news.finish_reason:
            self._finish(reason or news.finish_reason)
        self._news.set()

    def fail(self, error: ClusterError) -> None:
        """Ends the stream with an error, after what has come before."""
        if self._error is None and not self.finished:
            self._error = error
            self._news.set()

    def _take(self, ids: Iterable[int]) -> tuple[int, cluster_pb2.FinishReason.ValueType]:
        """Takes tokens one by one until one ends the request: how many were taken, and why it ended, or 0."""
        taken = 0
        for token_id in ids:
            taken += 1
            self._token_count += 1
            self._pending.token_ids.append(token_id)
            if token_id in self._ends:
                return taken, cluster_pb2.FINISH_REASON_STOP
            self._pending.text += self._stops.feed(self._detokenizer.feed((token_id,)))
            if self._stops.hit is not None:
                return taken, cluster_pb2.FINISH_REASON_STOP
            if self._token_count >= self.max_tokens:
                return taken, cluster_pb2.FINISH_REASON_LENGTH
        return taken, cluster_pb2.FINISH_REASON_UNSPECIFIED

    def _finish(self, reason: cluster_pb2.FinishReason.ValueType) -> None:
        if self._stops.hit is None:
            self._pending.text += self._stops.feed(self._detokenizer.finish())
            if self._stops.hit is not None:
                reason = cluster_pb2.FINISH_REASON_STOP
            self._pending.text += self._stops.finish()
        self._pending.finish_reason = reason
        self._pending.usage.prompt_tokens = len(self.prompt_token_ids)
        self._pending.usage.completion_tokens = self._token_count
        self._pending.usage.cached_tokens = self._cached_tokens

    def _logprob(self, token_id: int, found: rank_pb2.SequenceLogprobs) -> cluster_pb2.TokenLogprob:
        def one(token: int, logprob: float) -> cluster_pb2.TokenLogprob:
            data = self._words.token_bytes(token)
            return cluster_pb2.TokenLogprob(
                token_id=token, token=data.decode(errors="replace"), token_bytes=data, logprob=logprob
            )

        chosen = one(token_id, found.logprob)
        chosen.top.extend(
            one(token, value) for token, value in zip(found.top_token_ids, found.top_logprobs, strict=True)
        )
        return chosen

    async def deltas(self, deadline_s: float | None) -> AsyncIterator[cluster_pb2.GenerationDelta]:
        """What is new, each time the reader is ready for it; the last has the finish.

        Raises the error that the request ended with, DeadlinePassed after `deadline_s` (of the loop's clock).
        """
        while True:
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._news.wait()
            except TimeoutError:
                raise DeadlinePassed("the request's deadline passed before its answer was complete") from None
            self._news.clear()
            while self._full:
                yield self._full.popleft()
            delta, self._pending = self._pending, cluster_pb2.GenerationDelta()
            if delta.finish_reason:
                self._pending.finish_reason = delta.finish_reason
            if delta.token_ids or delta.text or delta.finish_reason or delta.prompt_token_ids:
                yield delta
            if delta.finish_reason:
                return
            if self._error is not None:
                raise self._error
