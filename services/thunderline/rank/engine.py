"""The engine: operations in, one report a step out. All MLX work of the rank happens here, on one thread.

step() = admit, decide the chunk, run, absorb. Plain values cross its border; nothing of MLX does.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx_lm.generate import StopSequences
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

from thunderline.rank.admission import SEQUENCE_COUNT_MAX, fits, padded_tokens
from thunderline.rank.generator import RowGenerator
from thunderline.rank.parking import Parked, Parking
from thunderline.rank.prefill import PROMPT_COUNT_MAX, Pace
from thunderline.rank.prefix_cache import PrefixCache
from thunderline.rank.rows import Row, owned, shared
from thunderline.rank.sampler import RowLogprobs
from thunderline.rank.values import Insert, Logprobs, News, Report

# Of the KV budget, the prefix cache may hold this share; admitted requests come first.
CACHE_SHARE = 0.5


@dataclass(slots=True)
class _Running:
    insert: Insert
    uid: int
    cached_tokens: int
    has_spoken: bool = False
    # Of all its tokens, where asked for: a resume may want them again.
    logprobs: list[Logprobs] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A parked sequence's KV, and the log-probabilities of its last tokens (of as many as there are)."""

    caches: list[Any]
    logprobs: tuple[Logprobs, ...]


class Engine:
    """One model's batch. `batch_size_max` and `prompt_count_max` follow the architecture's audit."""

    def __init__(
        self,
        model: Any,
        end_token_ids: Sequence[int],
        kv_budget_tokens: int,
        batch_size_max: int = SEQUENCE_COUNT_MAX,
        prompt_count_max: int = PROMPT_COUNT_MAX,
        on_step: Callable[["Engine"], Callable[[], None] | None] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        on_dispatch: Callable[[], None] | None = None,
    ) -> None:
        """`on_step` is called before each step, and what it returns between model and sampler: a test build's hooks.

        `on_dispatch` is called in each decode step as its computation begins: then others may have the interpreter.
        """
        self._model = model
        self._end_token_ids = tuple(end_token_ids)
        self._kv_budget_tokens = kv_budget_tokens
        self._batch_size_max = batch_size_max
        self._prompt_count_max = prompt_count_max
        self._on_step = on_step
        self._on_dispatch = on_dispatch
        self._cache: PrefixCache[list[Any]] = PrefixCache(int(kv_budget_tokens * CACHE_SHARE))
        self._clock_s = clock_s
        self._parking: Parking[_Kept] = Parking()
        self._step = 0
        self._pace = Pace()
        self._reset()

    def _reset(self) -> None:
        self._generator = RowGenerator(
            self._model, self._end_token_ids, self._batch_size_max, self._keep, self._on_dispatch
        )
        self._waiting: OrderedDict[int, Insert] = OrderedDict()
        self._running: dict[int, _Running] = {}
        self._uids: dict[int, int] = {}
        # Tokens that were made before a resume asked for them.
        self._owed: list[News] = []
        # Whose news an exception now would lose, though they have left `running`.
        self._at_stake: list[int] = []

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running or self._owed)

    @property
    def is_decoding(self) -> bool:
        """Whether the next step makes tokens for somebody."""
        return self._generator.decoding_count > 0

    @property
    def is_stuck(self) -> bool:
        """Somebody waits and nobody runs: what is parked is in the way, and safe for a few seconds more."""
        return bool(self._waiting) and not self._running and not self._owed and self.parked_count > 0

    @property
    def parked_count(self) -> int:
        return len(self._parking)

    @property
    def running_keys(self) -> list[int]:
        return [*self._running, *self._waiting]

    def insert(self, insert: Insert) -> None:
        """A resume goes before new ones; the others wait in order of arrival."""
        self._waiting[insert.key] = insert
        if self._is_resume(insert):
            for key in [key for key, one in self._waiting.items() if not self._is_resume(one)]:
                self._waiting.move_to_end(key)

    def _is_resume(self, insert: Insert) -> bool:
        return insert.resume or bool(insert.resume_token_ids) or self._parking.holds(insert.request_id)

    def _resume(self, insert: Insert, parked: Parked[_Kept]) -> None:
        """Tells the rest at once, and goes on from the last token, which is not in the KV yet."""
        delivered = len(insert.resume_token_ids)
        rest = parked.token_ids[delivered:]
        logprobs = parked.kept.logprobs[-len(rest) :] if insert.logprobs and rest else ()
        news = News(insert.key, list(rest), list(logprobs), cached_tokens=parked.cached_tokens)
        last_ends = parked.token_ids[-1] in self._end_token_ids and not insert.ignore_eos
        left = insert.max_tokens - len(parked.token_ids)
        if last_ends or left <= 0:
            news.finish = "stop" if last_ends else "length"
        else:
            held = [*parked.prompt_token_ids, *parked.token_ids[:-1]]
            self._enter(insert, [parked.token_ids[-1]], held, parked.kept.caches, left)
            self._running[insert.key].has_spoken = True
            self._running[insert.key].cached_tokens = parked.cached_tokens
            self._running[insert.key].logprobs = list(parked.kept.logprobs)
        self._owed.append(news)

    def park(self, key: int) -> None:
        """Its reader is lost: a sequence that has begun to answer is kept, with the token that comes next."""
        if self._waiting.pop(key, None) is not None:
            # What is parked of it stays so.
            return
        running = self._running.get(key)
        ahead = self._generator.ahead(running.uid) if running is not None else None
        if running is None or ahead is None:
            self.remove(key)
            return
        token_id, found = ahead
        insert = running.insert
        ((caches, held),) = self._generator.remove([running.uid], return_prompt_caches=True).values()
        caches = _computed(caches)
        del self._running[key]
        self._forget(running.uid)
        logprobs = (*running.logprobs, _to_host(found)) if found is not None else tuple(running.logprobs)
        token_ids = (*held[len(insert.prompt_token_ids) :], token_id)
        kept, cached, now_s = _Kept(caches, logprobs), running.cached_tokens, self._clock_s()
        parked = Parked(
            key, insert.request_id, insert.prompt_token_ids, token_ids, insert.kv_tokens, now_s, kept, cached
        )
        self._parking.put(parked)

    def park_all(self) -> None:
        """The readers of all are lost."""
        for key in self.running_keys:
            self.park(key)

    def expire(self) -> None:
        """Forgets what was parked too long ago; also called while there is nothing to do."""
        self._parking.expire(self._clock_s())

    def remove(self, key: int) -> None:
        """Frees a sequence at once; what it has computed is kept for the next prompt that begins alike."""
        if (waiting := self._waiting.pop(key, None)) is not None:
            self._parking.forget(waiting.request_id)
        self._parking.remove(key)
        running = self._running.pop(key, None)
        if running is None:
            return
        found = self._generator.remove([running.uid], return_prompt_caches=True)
        self._forget(running.uid)
        if kept := found.get(running.uid):
            self._keep(kept[1], kept[0])

    def drop(self) -> list[int]:
        """After an exception nothing in the batch can be trusted: everything goes. The keys that were lost."""
        lost = list(dict.fromkeys([*self._at_stake, *self.running_keys, *(news.key for news in self._owed)]))
        self._generator.close()
        self._cache.shrink(0)
        self._parking.clear()
        self._reset()
        return lost

    @property
    def prefill_s(self) -> float:
        """What the prompt tokens of the next step should take."""
        return self._pace.prefill_s(len(self._waiting) + len(self._generator.waiting) + len(self._generator.begun))

    def step(self) -> Report:
        """One engine step. Whatever it raises, `drop` comes next."""
        begun = time.monotonic()
        self._at_stake = self.running_keys
        self._admit()
        generator = self._generator
        count_max = min(self._prompt_count_max, self._batch_size_max)
        generator.plan(self._pace.plan(generator.begun, generator.waiting, generator.decoding_count > 0, count_max))
        counters = generator.counters
        before = (counters.prompt_tokens, counters.prompt_time, counters.decode_time)
        if self._on_step is not None:
            generator.on_decode(self._on_step(self))
        _, responses = self._generator.next()
        news = [*self._owed, *(self._absorb(response) for response in responses)]
        self._owed = []
        prompt_tokens = counters.prompt_tokens - before[0]
        self._pace = self._pace.measured(
            prompt_tokens, counters.prompt_time - before[1], counters.decode_time - before[2]
        )
        self._step += 1
        return self.report(tuple(news), prompt_tokens, time.monotonic() - begun)

    def report(self, news: tuple[News, ...] = (), prefill_tokens: int = 0, duration_s: float = 0.0) -> Report:
        """Where the batch stands; without arguments outside a step (the last sequence was removed)."""
        return Report(
            step=self._step,
            news=news,
            prefill_tokens=prefill_tokens,
            duration_s=duration_s,
            running_count=len(self._running),
            waiting_count=len(self._waiting),
            kv_tokens=self._reserved_tokens + self._cache.tokens,
            cache_tokens=self._cache.tokens,
            parked_count=len(self._parking),
        )

    @property
    def _row_tokens(self) -> list[int]:
        return [running.insert.kv_tokens for running in self._running.values()]

    @property
    def _reserved_tokens(self) -> int:
        return padded_tokens(self._row_tokens) + self._parking.kv_tokens

    @property
    def _cache_room_tokens(self) -> int:
        """The cache lives in what is left, and gives way to whoever waits."""
        return min(self._kv_budget_tokens - self._reserved_tokens, int(self._kv_budget_tokens * CACHE_SHARE))

    def _admit(self) -> None:
        self.expire()
        while self._waiting and len(self._running) < self._batch_size_max:
            insert = next(iter(self._waiting.values()))
            if not self._finds_room(insert):
                break
            # Popped last: if it raises, `drop` still knows it.
            self._start(insert)
            self._waiting.popitem(last=False)
        self._cache.shrink(self._cache_room_tokens)

    def _finds_room(self, insert: Insert) -> bool:
        """Parked sequences that are not safe any more give way, the oldest first, when that is enough."""
        parking, now_s, mine = self._parking, self._clock_s(), insert.request_id

        def enough(held_tokens: int) -> bool:
            return fits(self._row_tokens, insert.kv_tokens, held_tokens, self._kv_budget_tokens)

        if not enough(parking.safe_kv_tokens(now_s, mine)):
            return False
        while not enough(parking.kv_tokens_beside(mine)):
            parking.give_way(now_s, mine)
        return True

    def _start(self, insert: Insert) -> None:
        parked = self._parking.take(insert.request_id, insert.prompt_token_ids, insert.resume_token_ids)
        if parked is not None:
            self._resume(insert, parked)
            return
        tokens = [*insert.prompt_token_ids, *insert.resume_token_ids]
        kept, held = self._cached(tokens)
        self._enter(insert, tokens[held:], tokens[:held], kept, insert.max_tokens - len(insert.resume_token_ids))

    def _enter(self, insert: Insert, rest: list[int], held: list[int], kept: list[Any] | None, max_tokens: int) -> None:
        """Into the batch: `kept` holds the KV of `held`, `rest` is still to be processed."""
        (uid,) = self._generator.insert(
            [rest],
            max_tokens=[max_tokens],
            caches=[kept] if kept is not None else None,
            all_tokens=[held] if kept is not None else None,
            stop_sequences=[StopSequences()] if insert.ignore_eos else None,
        )
        self._generator.rows[uid] = Row(
            insert.params, len(insert.prompt_token_ids), insert.logprobs, insert.top_logprob_count
        )
        self._uids[uid] = insert.key
        self._running[insert.key] = _Running(insert, uid, min(len(held), len(insert.prompt_token_ids)))

    def _cached(self, tokens: Sequence[int]) -> tuple[list[Any] | None, int]:
        """Caches that hold the beginning of `tokens`, and how many they hold."""
        hit = self._cache.find(tokens)
        if hit is None:
            return None, 0
        kept, surplus = shared(hit.kept), hit.kept_tokens - hit.tokens
        # A rotating cache that has wrapped cannot be cut any more, whatever it could when it was empty; mlx-lm then
        # cuts nothing and says 0.
        if surplus and trim_prompt_cache(kept, surplus) != surplus:
            return None, 0
        return kept, hit.tokens

    def _absorb(self, response: Any) -> News:
        key = self._uids[response.uid]
        running = self._running[key]
        news = News(key, [response.token])
        if response.logprobs is not None:
            news.logprobs.append(_to_host(response.logprobs))
            running.logprobs += news.logprobs
        if not running.has_spoken:
            running.has_spoken = True
            news.cached_tokens = running.cached_tokens
        if response.finish_reason is not None:
            news.finish = response.finish_reason
            del self._running[key]
            self._forget(response.uid)
            self._keep(response.all_tokens, response.prompt_cache)
        return news

    def _forget(self, uid: int) -> None:
        self._uids.pop(uid, None)
        self._generator.rows.pop(uid, None)

    def _keep(self, tokens: Sequence[int], caches: list[Any]) -> None:
        """Into the prefix cache; a copy is made only of what it takes. The row may have its whole room still."""
        room = self._cache_room_tokens
        if caches and len(tokens) <= room and self._cache.wants(tokens):
            kept = _computed(caches)
            self._cache.put(tokens, kept, bool(can_trim_prompt_cache(kept)))
            self._cache.shrink(room)


def _computed(caches: list[Any]) -> list[Any]:
    """To be kept: left lazy, or as slices, they would hold the whole batch's arrays alive."""
    kept = owned(caches)
    mx.eval([cache.state for cache in kept])
    return kept


def _to_host(found: RowLogprobs) -> Logprobs:
    return Logprobs(*found.to_host())
