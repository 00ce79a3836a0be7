"""mlx-lm's batches, with a decode step that knows its rows: one sampler for all of them.

BatchGenerator calls its sampler without saying whose rows it gets, so a seed for each request needs the step itself.
Everything else (caches, padding, joining and leaving) is mlx-lm's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, GenerationBatch, PromptProcessingBatch
from mlx_lm.sample_utils import greedy_sampler

from thunderline.rank.sampler import Params, RowLogprobs, Sampler, Shaping, row_logprobs


@dataclass(frozen=True, slots=True)
class Row:
    """What the decode step has to know of a sequence."""

    params: Params
    prompt_length: int
    logprobs: bool = False
    top_logprob_count: int = 0


# A row with the defaults, for sequences of the warm-up.
PLAIN = Row(Params(), 0)


class RowBatch(GenerationBatch):  # type: ignore[misc]
    """`rows` is shared with the generator: uid to Row."""

    rows: dict[int, Row]
    uids: list[int]
    tokens: list[list[int]]
    _next_tokens: Any
    _next_logprobs: Any
    _for: list[int] | None = None

    def _step(self) -> tuple[list[int], list[RowLogprobs | None]]:
        if not self.uids:
            return [], []
        inputs = self._current_tokens = self._next_tokens
        current_logprobs = self._current_logprobs = self._next_logprobs
        logits = self.model(inputs[:, None], cache=self.prompt_cache)[:, -1, :]
        rows = [self.rows.get(uid, PLAIN) for uid in self.uids]
        # `tokens` are those in the KV cache; `inputs` is on its way there.
        positions = [len(held) + 1 - row.prompt_length for held, row in zip(self.tokens, rows, strict=True)]
        if self._for != self.uids:
            self._rebuild(rows, logits.shape[-1])
        shaped = self._shaping.apply(logits, inputs, [position > 0 for position in positions])
        self._next_tokens = self._sampler.sample(shaped, positions)
        self._next_logprobs = [
            row_logprobs(logits[i], self._next_tokens[i : i + 1], row.top_logprob_count) if row.logprobs else None
            for i, row in enumerate(rows)
        ]
        wanted = [array for one in self._next_logprobs if one is not None for array in one.arrays()]
        mx.async_eval(self._next_tokens, *wanted)
        mx.eval(inputs)
        tokens: Any = inputs.tolist()
        for held, token in zip(self.tokens, tokens, strict=True):
            held.append(token)
        return tokens, current_logprobs

    def _rebuild(self, rows: Sequence[Row], vocabulary_size: int) -> None:
        """The rows of the batch have changed."""
        self._for = list(self.uids)
        params = [row.params for row in rows]
        self._sampler = Sampler(params)
        generated = [held[row.prompt_length :] for held, row in zip(self.tokens, rows, strict=True)]
        self._shaping = Shaping(params, generated, vocabulary_size)


class RowPrompts(PromptProcessingBatch):  # type: ignore[misc]
    """Prompts that go over into a RowBatch."""

    rows: dict[int, Row]
    uids: list[int]
    tokens: list[list[int]]
    prompt_cache: list[Any]
    samplers: list[Any]
    logits_processors: list[Any]
    max_tokens: list[int]
    stop_sequences: list[Any]

    def _copy(self) -> "RowPrompts":
        copied: RowPrompts = super()._copy()
        copied.rows = self.rows
        return copied

    def generate(self, tokens: list[list[int]]) -> RowBatch:
        if any(len(one) > 1 for one in tokens):
            self.prompt([one[:-1] for one in tokens])
        batch = RowBatch.__new__(RowBatch)
        batch.rows = self.rows
        batch.__init__(  # type: ignore[misc]
            self.model,
            self.uids,
            mx.array([one[-1] for one in tokens], dtype=mx.uint32),
            self.prompt_cache,
            self.tokens,
            self.samplers,
            self.fallback_sampler,
            self.logits_processors,
            self.stop_sequences,
            self.max_tokens,
        )
        self.uids, self.prompt_cache, self.tokens = [], [], []
        self.samplers, self.logits_processors, self.max_tokens, self.stop_sequences = [], [], [], []
        return batch


class RowGenerator(BatchGenerator):  # type: ignore[misc]
    """A BatchGenerator whose decode step is RowBatch's. `rows` has to know a sequence before its first step."""

    def __init__(self, model: Any, end_token_ids: Sequence[int], batch_size_max: int, prompt_count_max: int) -> None:
        super().__init__(
            model,
            stop_tokens=[[token] for token in end_token_ids],
            completion_batch_size=batch_size_max,
            prefill_batch_size=prompt_count_max,
            # One stream for everything: two on one group mix bytes silently.
            stream=mx.default_stream(mx.default_device()),
        )
        self.rows: dict[int, Row] = {}
        self._prompt_batch = RowPrompts.empty(model, greedy_sampler, prefill_step_size=self.prefill_step_size)
        self._prompt_batch.rows = self.rows
        batch = RowBatch.__new__(RowBatch)
        batch.rows = self.rows
        batch.__init__(model, [], mx.array([], dtype=mx.uint32), [], [], [], greedy_sampler, [], [], [])  # type: ignore[misc]
        self._generation_batch = batch

    @property
    def prompt_count(self) -> int:
        """Sequences whose prompt is not processed yet."""
        return len(self._unprocessed_sequences) + len(self._prompt_batch)

    @property
    def counters(self) -> Any:
        """Running totals: prompt_tokens, prompt_time (s), decode_time (s)."""
        return self._counters

    def ahead(self, uid: int) -> tuple[int, RowLogprobs | None] | None:
        """The token that is sampled already and comes with the next step; None while its prompt is processed."""
        batch = self._generation_batch
        if uid not in batch.uids:
            return None
        place = batch.uids.index(uid)
        return int(batch._next_tokens[place].item()), batch._next_logprobs[place]

    def set_chunk(self, tokens: int) -> None:
        """Tokens of each prompt that the next step processes."""
        self.prefill_step_size = tokens
        self._prompt_batch.prefill_step_size = tokens
