"""One sampler for all rows of a batch. Noise is a counter hash of (seed, position, token id): no key state, so a row's
tokens are the same alone, in any batch, and when it is resumed.

Arrays: B rows, V vocabulary, K candidates. Position = tokens generated before this one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx

# top_p, top_k and min_p choose among this many most likely tokens, whose share of the mass is exact.
CANDIDATE_COUNT = 1024
BLOCK_TOKENS = 8
# Below this a temperature is none: logits divided by it are no numbers any more.
TEMPERATURE_MIN = 1e-5


@dataclass(frozen=True, slots=True)
class Params:
    """See Sampling in cluster.proto; off is 0, also for top_p and repetition_penalty."""

    temperature: float = 0.0
    top_p: float = 0.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_greedy(self) -> bool:
        return self.temperature < TEMPERATURE_MIN

    @property
    def is_filtered(self) -> bool:
        return 0 < self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    @property
    def has_penalties(self) -> bool:
        repetition = self.repetition_penalty not in (0.0, 1.0)
        return self.presence_penalty != 0 or self.frequency_penalty != 0 or repetition


def _mix(x: mx.array) -> mx.array:
    """A 32-bit finalizer (lowbias32: https://nullprogram.com/blog/2018/07/31/)."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@partial(mx.compile, shapeless=True)
def gumbel(seed_low: mx.array, seed_high: mx.array, position: mx.array, ids: mx.array) -> mx.array:
    """uint32 [B,1], [B,1], [B,1], [B or 1,K] -> float32 [B,K] of standard Gumbel noise."""
    key = _mix(seed_low * 0x9E3779B9 + 0x85EBCA6B) ^ _mix(seed_high * 0x27D4EB2F + 0x165667B1)
    key = key ^ _mix(position * 0xC2B2AE35 + 0x27D4EB2F)
    hashed = _mix(_mix(ids * 0x9E3779B9 + key) + key)
    # 23 bits and a half: with one bit more the largest value rounds to 1, whose noise is infinite, and once in 300
    # tokens of a large vocabulary that wins whatever the logits say.
    uniform = ((hashed >> 9).astype(mx.float32) + 0.5) * (1.0 / 8388608.0)
    return -mx.log(-mx.log(uniform))


class _Group:
    """Rows that are sampled in the same way: one small graph."""

    def __init__(self, rows: Sequence[int], params: Sequence[Params]) -> None:
        def column(values: Sequence[float], kind: mx.Dtype) -> mx.array:
            return mx.array([[value] for value in values], dtype=kind)

        mine = [params[row] for row in rows]
        self.rows = list(rows)
        self.index = mx.array(self.rows)
        self.temperature = column([p.temperature for p in mine], mx.float32)
        self.top_p = column([p.top_p if 0 < p.top_p < 1 else 2.0 for p in mine], mx.float32)
        self.top_k = column([p.top_k or CANDIDATE_COUNT for p in mine], mx.int32)
        self.min_p = column([p.min_p for p in mine], mx.float32)
        self.seed_low = column([p.seed & 0xFFFFFFFF for p in mine], mx.uint32)
        self.seed_high = column([p.seed >> 32 & 0xFFFFFFFF for p in mine], mx.uint32)

    def positions(self, positions: Sequence[int]) -> mx.array:
        return mx.array([[positions[row]] for row in self.rows], dtype=mx.uint32)


class Sampler:
    """Made anew when the rows of a batch change; `sample` is called at each step."""

    def __init__(self, params: Sequence[Params]) -> None:
        greedy = [i for i, p in enumerate(params) if p.is_greedy]
        plain = [i for i, p in enumerate(params) if not (p.is_greedy or p.is_filtered)]
        filtered = [i for i, p in enumerate(params) if not p.is_greedy and p.is_filtered]
        kinds = ((_greedy, greedy), (_plain, plain), (_filtered, filtered))
        self._groups = [(how, _Group(rows, params)) for how, rows in kinds if rows]
        order = [row for _, group in self._groups for row in group.rows]
        self._back = mx.array([order.index(row) for row in range(len(order))])

    def sample(self, logits: mx.array, positions: Sequence[int]) -> mx.array:
        """float [B,V], B positions -> uint32 [B]."""
        if len(self._groups) == 1:
            how, group = self._groups[0]
            return how(logits, group, positions)
        return mx.concatenate([how(logits[group.index], group, positions) for how, group in self._groups])[self._back]


def _greedy(logits: mx.array, group: _Group, positions: Sequence[int]) -> mx.array:
    return mx.argmax(logits, axis=-1).astype(mx.uint32)


def _plain(logits: mx.array, group: _Group, positions: Sequence[int]) -> mx.array:
    ids = mx.arange(logits.shape[-1], dtype=mx.uint32)[None]
    noise = gumbel(group.seed_low, group.seed_high, group.positions(positions), ids)
    return mx.argmax(logits.astype(mx.float32) / group.temperature + noise, axis=-1).astype(mx.uint32)


def _filtered(logits: mx.array, group: _Group, positions: Sequence[int]) -> mx.array:
    """Temperature first, then top_p, top_k and min_p, as OpenAI's and vLLM's do."""
    scaled = logits.astype(mx.float32) / group.temperature
    ids, values = most_likely(scaled)
    count = ids.shape[-1]
    mass = powers(scaled, values[:, :1]).sum(axis=-1, keepdims=True)
    share = mx.exp(values - values[:, :1]) / mass
    before = mx.cumsum(share, axis=-1) - share
    keep = (before < group.top_p) & (mx.arange(count)[None] < group.top_k) & (share >= group.min_p * share[:, :1])
    noise = gumbel(group.seed_low, group.seed_high, group.positions(positions), ids.astype(mx.uint32))
    chosen = mx.argmax(mx.where(keep, values + noise, -mx.inf), axis=-1, keepdims=True)
    return mx.take_along_axis(ids, chosen, axis=-1)[:, 0].astype(mx.uint32)


def most_likely(scaled: mx.array) -> tuple[mx.array, mx.array]:
    """float [B,V] -> ids uint32 [B,K] and their values [B,K], most likely first.

    The K largest lie in the K blocks with the largest maxima, so only these are searched: a third of a search of all.
    """
    rows, size = scaled.shape
    if size % BLOCK_TOKENS or size // BLOCK_TOKENS <= CANDIDATE_COUNT:
        ids, values = _largest(scaled, min(CANDIDATE_COUNT, size))
    else:
        blocks = scaled.reshape(rows, -1, BLOCK_TOKENS)
        best, _ = _largest(blocks.max(axis=-1), CANDIDATE_COUNT)
        places = (best[:, :, None] * BLOCK_TOKENS + mx.arange(BLOCK_TOKENS, dtype=mx.uint32)).reshape(rows, -1)
        found, values = _largest(mx.take_along_axis(scaled, places, axis=-1), CANDIDATE_COUNT)
        ids = mx.take_along_axis(places, found, axis=-1)
    # Equal values keep the order that the partition gave them, which hangs on their own row alone.
    order = mx.argsort(-values, axis=-1)
    return mx.take_along_axis(ids, order, axis=-1), mx.take_along_axis(values, order, axis=-1)


def _largest(values: mx.array, count: int) -> tuple[mx.array, mx.array]:
    """float [B,N] -> places uint32 [B,count] and values [B,count] of the largest, in no order."""
    size = values.shape[-1]
    places = mx.argpartition(values, size - count, axis=-1)[:, size - count :]
    return places, mx.take_along_axis(values, places, axis=-1)


@partial(mx.compile, shapeless=True)
def powers(values: mx.array, peak: mx.array) -> mx.array:
    """exp(values - peak) for values <= peak, to 2e-5 where it is above exp(-8); below exp(-32) it is exp(-32).

    (exp(x / 64)) ** 64 by a polynomial: MLX's exp takes 12 ns an element on x86, more than the rest of the sampler.
    """
    x = mx.maximum((values - peak) * (1.0 / 64.0), -0.5)
    power = 1.0 + x * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24))))
    for _ in range(6):
        power = power * power
    return power


class Shaping:
    """Penalties and bias of the rows that have any: what is done to logits before they are sampled.

    OpenAI's meaning: over generated tokens only, https://platform.openai.com/docs/api-reference/chat/create.
    """

    def __init__(self, params: Sequence[Params], generated: Sequence[Sequence[int]], vocabulary_size: int) -> None:
        self._rows = [i for i, p in enumerate(params) if p.has_penalties or p.logit_bias]
        if not self._rows:
            return
        mine = [params[row] for row in self._rows]

        def column(values: Sequence[float]) -> mx.array:
            return mx.array([[value] for value in values], dtype=mx.float32)

        self._index = mx.array(self._rows)
        self._presence = column([p.presence_penalty for p in mine])
        self._frequency = column([p.frequency_penalty for p in mine])
        self._repetition = column([p.repetition_penalty or 1.0 for p in mine])
        self._bias = mx.stack([_dense(p.logit_bias, vocabulary_size) for p in mine])
        self._counts = mx.stack([_counts(generated[row], vocabulary_size) for row in self._rows])

    def apply(self, logits: mx.array, newest: mx.array, is_generated: Sequence[bool]) -> mx.array:
        """float [B,V] and the tokens uint32 [B] that the step is fed with -> float [B,V].

        `newest` counts where it was generated and is not the last token of a prompt.
        """
        if not self._rows:
            return logits
        fed = mx.array([[float(is_generated[row])] for row in self._rows])
        places = newest[self._index][:, None]
        current = mx.take_along_axis(self._counts, places, axis=-1)
        self._counts = mx.put_along_axis(self._counts, places, current + fed, axis=-1)
        rows = logits[self._index].astype(mx.float32)
        seen = self._counts > 0
        divided = mx.where(rows > 0, rows / self._repetition, rows * self._repetition)
        rows = mx.where(seen, divided, rows)
        rows = rows - self._presence * seen - self._frequency * self._counts + self._bias
        shaped = logits.astype(mx.float32)
        shaped[self._index] = rows
        return shaped


def _dense(bias: Mapping[int, float], size: int) -> mx.array:
    dense = mx.zeros((size,))
    if bias:
        dense[mx.array(list(bias))] = mx.array(list(bias.values()))
    return dense


def _counts(ids: Sequence[int], size: int) -> mx.array:
    counts = mx.zeros((size,))
    return counts.at[mx.array(list(ids))].add(1.0) if ids else counts


@dataclass(frozen=True, slots=True)
class StepLogprobs:
    """On the device, of W rows that asked, K the most that one asked for: float [W,1], uint32 and float [W,K]."""

    chosen: mx.array
    top_ids: mx.array | None
    top_values: mx.array | None

    def arrays(self) -> list[mx.array]:
        return [one for one in (self.chosen, self.top_ids, self.top_values) if one is not None]


@dataclass(frozen=True, slots=True)
class RowLogprobs:
    """One row's place in its step's, and how many of the most likely tokens it asked for."""

    step: StepLogprobs
    place: int
    top_count: int

    def to_host(self) -> tuple[float, tuple[int, ...], tuple[float, ...]]:
        """The chosen token's, then the most likely tokens and theirs."""
        chosen: Any = self.step.chosen[self.place, 0].item()
        if self.step.top_ids is None or self.step.top_values is None or not self.top_count:
            return chosen, (), ()
        ids: Any = self.step.top_ids[self.place, : self.top_count].tolist()
        values: Any = self.step.top_values[self.place, : self.top_count].tolist()
        return chosen, tuple(ids), tuple(values)


def gather_logprobs(logits: mx.array, tokens: mx.array, wanted: Mapping[int, int]) -> dict[int, RowLogprobs]:
    """float [B,V] before any shaping and the chosen tokens [B]; `wanted`: row to its count of most likely tokens.

    One graph for all rows that asked, none when nobody did.
    """
    if not wanted:
        return {}
    index = mx.array(list(wanted))
    rows = logits[index].astype(mx.float32)
    logprobs = rows - mx.logsumexp(rows, axis=-1, keepdims=True)
    chosen = mx.take_along_axis(logprobs, tokens[index][:, None].astype(mx.uint32), axis=-1)
    ids = values = None
    if top_count := max(wanted.values()):
        size = logits.shape[-1]
        ids = mx.argpartition(logprobs, size - top_count, axis=-1)[:, size - top_count :]
        values = mx.take_along_axis(logprobs, ids, axis=-1)
        order = mx.argsort(-values, axis=-1)
        ids, values = (mx.take_along_axis(one, order, axis=-1) for one in (ids, values))
    step = StepLogprobs(chosen, ids, values)
    return {row: RowLogprobs(step, place, count) for place, (row, count) in enumerate(wanted.items())}
