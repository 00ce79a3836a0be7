"""mlx-lm's continuous batching over RowBatch: who joins, who decodes, who is prefilled in a step."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import can_trim_prompt_cache
from mlx_lm.sample_utils import greedy_sampler

from thunderline.rank.prefill import PROMPT_COUNT_MAX, Plan
from thunderline.rank.prefix_cache import PREFIX_TOKENS_MIN
from thunderline.rank.rows import Row, RowBatch, RowPrompts
from thunderline.rank.sampler import RowLogprobs

# As often as mlx-lm does: what MLX's allocator keeps for itself would grow.
CLEAR_EVERY_STEPS = 512

Keep = Callable[[Sequence[int], list[Any]], None]


class RowGenerator(BatchGenerator):  # type: ignore[misc]
    """A BatchGenerator whose decode step is RowBatch's. `rows` has to know a sequence before its first step."""

    # Of each prompt that is being processed: [segments, tokens done, tokens in all].
    _currently_processing: list[list[Any]]

    def __init__(
        self,
        model: Any,
        end_token_ids: Sequence[int],
        batch_size_max: int,
        keep_prompt: Keep,
        on_dispatch: Callable[[], None] | None = None,
    ) -> None:
        """`keep_prompt` gets the tokens and caches of a prompt that is done, if they cannot be cut back to it later.

        `on_dispatch` is called in each decode step as its computation begins.
        """
        super().__init__(
            model,
            stop_tokens=[[token] for token in end_token_ids],
            completion_batch_size=batch_size_max,
            prefill_batch_size=min(PROMPT_COUNT_MAX, batch_size_max),
            # One stream for everything: two on one group mix bytes silently.
            stream=mx.default_stream(mx.default_device()),
        )
        self.rows: dict[int, Row] = {}
        self._keep_prompt = keep_prompt
        self._plan = Plan((), 1)
        self._steps_since_clearing = 0
        self._prompt_batch = RowPrompts.empty(model, greedy_sampler)
        self._prompt_batch.rows = self.rows
        empty: list[Any] = [[], [], [], greedy_sampler, [], [], []]
        self._generation_batch = RowBatch.of(self.rows, model, [], mx.array([], dtype=mx.uint32), *empty)
        self._generation_batch.on_dispatch = on_dispatch

    @property
    def begun(self) -> list[int]:
        """Tokens left of the prompts that are being processed; the last token is not counted, it joins the others."""
        left = [total - done - 1 for _, done, total in self._currently_processing]
        return [tokens for tokens in left if tokens > 0]

    @property
    def waiting(self) -> list[int]:
        """Tokens left of the prompts that were inserted and have not begun."""
        return [sum(len(segment) for segment in one[1]) - 1 for one in self._unprocessed_sequences]

    @property
    def decoding_count(self) -> int:
        return len(self._generation_batch)

    @property
    def counters(self) -> Any:
        """Running totals: prompt_tokens, prompt_time (s), decode_time (s)."""
        return self._counters

    def ahead(self, uid: int) -> tuple[int, RowLogprobs | None] | None:
        """The token that is sampled already and comes with the next step; None for a row that has none yet."""
        batch = self._generation_batch
        if uid not in batch.uids or uid in batch.joining:
            return None
        place = batch.uids.index(uid)
        return int(batch._next_tokens[place].item()), batch._next_logprobs[place]

    def on_decode(self, hook: Callable[[], None] | None) -> None:
        """Called in the next decode step, once the caches hold its tokens and none is sampled."""
        self._generation_batch.hook = hook

    def plan(self, plan: Plan) -> None:
        """What the next step takes of the prompts."""
        self._plan = plan

    def _next(self) -> tuple[list[Any], list[Any]]:
        """Prompts that are done join, everybody decodes, then a chunk of each prompt."""
        self._begin()
        self._join()
        tic = time.monotonic()
        responses = self._generation_batch.next()
        self._counters.decode_time += time.monotonic() - tic
        self._counters.generation_tokens += len(responses)
        self._steps_since_clearing += 1
        if self._steps_since_clearing >= CLEAR_EVERY_STEPS:
            self._steps_since_clearing = 0
            mx.clear_cache()
        self._prefill()
        return [], responses

    def _begin(self) -> None:
        """In order of arrival, as the plan says."""
        if not self._plan.taken:
            return
        waiting, taken = list(self._unprocessed_sequences), set(self._plan.taken)
        self._unprocessed_sequences.clear()
        self._unprocessed_sequences.extend(waiting[place] for place in self._plan.taken)
        self._prompt_batch.extend(self._make_batch(len(taken)))
        self._unprocessed_sequences.extend(one for place, one in enumerate(waiting) if place not in taken)
        self._plan = Plan((), self._plan.chunk_tokens)

    def _join(self) -> None:
        done = [place for place, (segments, _, _) in enumerate(self._currently_processing) if _is_done(segments)]
        if not done:
            return
        last = [self._currently_processing[place][0][0] for place in done]
        self._currently_processing = [one for one in self._currently_processing if not _is_done(one[0])]
        for place in done:
            held = self._prompt_batch.tokens[place]
            if len(held) >= PREFIX_TOKENS_MIN and not can_trim_prompt_cache(
                caches := self._prompt_batch.extract_cache(place)
            ):
                self._keep_prompt(held, caches)
        self._generation_batch.extend(self._prompt_batch.split(done).generate(last))

    def _prefill(self) -> None:
        chunks = []
        for one in self._currently_processing:
            segments = one[0]
            chunk, segments[0] = segments[0][: self._plan.chunk_tokens], segments[0][self._plan.chunk_tokens :]
            if not segments[0]:
                segments.pop(0)
            one[1] += len(chunk)
            chunks.append(chunk)
        tic = time.monotonic()
        self._prompt_batch.prefill_step_size = self._plan.chunk_tokens
        self._prompt_batch.prompt(chunks)
        self._counters.prompt_tokens += sum(len(chunk) for chunk in chunks)
        self._counters.prompt_time += time.monotonic() - tic


def _is_done(segments: list[list[int]]) -> bool:
    """Only the last token is left, which joins the batch."""
    return len(segments) == 1 and len(segments[0]) == 1
