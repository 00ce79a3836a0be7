"""mlx-lm's batches, with a decode step that knows its rows: one sampler for all of them.

BatchGenerator calls its sampler without saying whose rows it gets, so a seed for each request needs the step itself.
Caches, padding, joining and leaving are mlx-lm's.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import GenerationBatch, PromptProcessingBatch

from thunderline.rank.sampler import Params, RowLogprobs, Sampler, Shaping, gather_logprobs


@dataclass(frozen=True, slots=True)
class Row:
    """What the decode step has to know of a sequence."""

    params: Params
    prompt_length: int
    logprobs: bool = False
    top_logprob_count: int = 0


class RowBatch(GenerationBatch):  # type: ignore[misc]
    """`rows` is shared with the generator: uid to Row.

    A prompt's last token is computed in the step of all the others: a row that joins needs no pass of its own.
    """

    rows: dict[int, Row]
    uids: list[int]
    tokens: list[list[int]]
    # Joined, and not computed yet: what these rows are fed with next was not sampled.
    joining: set[int]
    _next_tokens: Any
    _next_logprobs: list[RowLogprobs | None]
    _for: list[int] | None = None
    _is_built: bool
    hook: Callable[[], None] | None = None
    on_dispatch: Callable[[], None] | None = None

    @classmethod
    def of(cls, rows: dict[int, Row], model: Any, uids: list[int], inputs: mx.array, *lists: Any) -> "RowBatch":
        """As GenerationBatch's constructor, but nothing is computed."""
        batch: RowBatch = cls.__new__(cls)
        batch.rows = rows
        batch.joining = set(uids)
        batch._is_built = False
        batch.__init__(model, uids, inputs, *lists)  # type: ignore[misc]
        batch._is_built = True
        batch._next_logprobs = [None] * len(uids)
        return batch

    def extend(self, batch: "RowBatch") -> None:
        super().extend(batch)
        self.joining |= batch.joining

    def next(self) -> list[Any]:
        """One step; a Response for each row but those that have just joined."""
        joined, self.joining = self.joining & set(self.uids), set()
        tokens, logprobs = self._step()
        keep, responses = [], []
        for place, (uid, token) in enumerate(zip(self.uids, tokens, strict=True)):
            if uid in joined:
                keep.append(place)
                continue
            self._num_tokens[place] += 1
            finish = "length" if self._num_tokens[place] >= self.max_tokens[place] else None
            if self._matchers[place].advance(token):
                finish = "stop"
            caches, held = (self.extract_cache(place), self.tokens[place]) if finish else (None, None)
            responses.append(self.Response(uid, token, logprobs[place], finish, caches, held))
            if finish is None:
                keep.append(place)
        if len(keep) < len(self.uids):
            self.filter(keep)
        return responses

    def _step(self) -> tuple[list[int], Sequence[RowLogprobs | None]]:
        if not self.uids or not self._is_built:
            return [], []
        inputs = self._current_tokens = self._next_tokens
        current_logprobs = self._current_logprobs = self._next_logprobs
        logits = self.model(inputs[:, None], cache=self.prompt_cache)[:, -1, :]
        if self.hook is not None:
            self.hook()
        rows = [self.rows[uid] for uid in self.uids]
        # `tokens` are those in the KV cache; `inputs` is on its way there.
        positions = [len(held) + 1 - row.prompt_length for held, row in zip(self.tokens, rows, strict=True)]
        if self._for != self.uids:
            self._rebuild(rows, logits.shape[-1])
        shaped = self._shaping.apply(logits, inputs, [position > 0 for position in positions])
        self._next_tokens = self._sampler.sample(shaped, positions)
        wanted = {place: row.top_logprob_count for place, row in enumerate(rows) if row.logprobs}
        found = gather_logprobs(logits, self._next_tokens, wanted)
        self._next_logprobs = [found.get(place) for place in range(len(rows))]
        # async_eval returns when about a hundred operations are left to do, and these must last while the next step is
        # prepared: the model's last ones do, the sampler's are short. So these come first in the next step.
        mx.async_eval(inputs, *(array for one in current_logprobs if one is not None for array in one.step.arrays()))
        # Between the two the core has little to do: whoever is woken now gets the interpreter's lock with the second,
        # which is long, and not with the first.
        if self.on_dispatch is not None:
            self.on_dispatch()
        mx.async_eval(logits)
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
        """Only ever to be filtered, which makes arrays anew: until then both may share them."""
        copied: RowPrompts = copy.copy(self)
        for name in ("uids", "tokens", "samplers", "logits_processors", "max_tokens", "stop_sequences"):
            setattr(copied, name, list(getattr(self, name)))
        copied.prompt_cache = shared(self.prompt_cache)
        return copied

    def split(self, indices: list[int]) -> "RowPrompts":
        if len(indices) < len(self.uids):
            split: RowPrompts = super().split(indices)
            return split
        # Everybody goes: the arrays go with them as they are.
        whole = self._copy()
        self.filter([])
        return whole

    def generate(self, tokens: list[list[int]]) -> RowBatch:
        """`tokens`: the last one of each prompt, [[id], ...]."""
        return RowBatch.of(
            self.rows,
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


def shared(caches: list[Any]) -> list[Any]:
    """Copies of caches that share their arrays: for whoever only trims, merges or filters them."""
    return copy.deepcopy(caches, {id(array): array for array in _arrays(caches)})


def owned(caches: list[Any]) -> list[Any]:
    """Copies whose arrays are no slices of larger ones."""
    return copy.deepcopy(caches, {id(array): mx.contiguous(array) for array in _arrays(caches)})


def _arrays(value: Any) -> Iterator[mx.array]:
    if isinstance(value, mx.array):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _arrays(one)
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))
    elif hasattr(value, "__dict__"):
        yield from _arrays(list(vars(value).values()))
