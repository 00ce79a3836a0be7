from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderline.rank.prefix_cache import ENTRY_COUNT_MAX, PREFIX_TOKENS_MIN, Hit, PrefixCache, common_prefix

LONG = tuple(range(40))


def cache_with(*entries: Sequence[int], budget_tokens: int = 1000, can_cut: bool = True) -> PrefixCache[str]:
    cache: PrefixCache[str] = PrefixCache(budget_tokens)
    for number, entry in enumerate(entries):
        cache.put(entry, f"kept {number}", can_cut)
    return cache


@pytest.mark.parametrize(
    ("wanted", "hit"),
    [
        pytest.param((*LONG, 99), Hit("kept 0", 40, 40), id="a prompt that goes on from the entry uses all of it"),
        pytest.param(LONG, Hit("kept 0", 39, 40), id="an exact hit leaves one token to process"),
        pytest.param(LONG[:30], Hit("kept 0", 29, 40), id="a shorter prompt is cut out of the entry"),
        pytest.param((*LONG[:20], 77, 78), Hit("kept 0", 20, 40), id="the common beginning is used"),
        pytest.param((*LONG[: PREFIX_TOKENS_MIN - 1], 77, 78), None, id="a few common tokens are not worth a copy"),
        pytest.param((77, *LONG), None, id="another first token"),
        pytest.param((5,), None, id="a prompt of one token"),
    ],
)
def test_find(wanted: Sequence[int], hit: Hit[str] | None) -> None:
    assert cache_with(LONG).find(wanted) == hit


@pytest.mark.parametrize(
    ("wanted", "hit"),
    [
        pytest.param((*LONG, 99), Hit("kept 0", 40, 40), id="the whole entry is a prefix"),
        pytest.param(LONG, None, id="one token would have to be cut off"),
        pytest.param((*LONG[:30], 99), None, id="only a part of the entry is a prefix"),
    ],
)
def test_what_cannot_be_cut_is_used_whole_or_not_at_all(wanted: Sequence[int], hit: Hit[str] | None) -> None:
    assert cache_with(LONG, can_cut=False).find(wanted) == hit


def test_the_longest_common_beginning_wins() -> None:
    cache = cache_with((*LONG[:20], 7), (*LONG[:30], 7), (*LONG[:25], 7))
    found = cache.find(LONG)
    assert found is not None
    assert (found.kept, found.tokens) == ("kept 1", 30)


def test_the_one_not_used_for_longest_goes_first() -> None:
    entries = [(first, *LONG) for first in (100, 101, 102)]
    cache = cache_with(*entries, budget_tokens=130)
    assert cache.tokens == 123
    cache.find(entries[0])
    cache.put((103, *LONG), "newest", True)
    assert [bool(cache.find(entry)) for entry in entries] == [True, False, True]


def test_an_entry_that_continues_another_replaces_it() -> None:
    cache = cache_with(LONG, (*LONG, 50, 51))
    assert cache.tokens == 42


def test_uncuttable_entries_stay_beside_their_continuations() -> None:
    cache = cache_with(LONG, (*LONG, 50, 51), can_cut=False)
    found = cache.find((*LONG, 60))
    assert found is not None and found.kept == "kept 0"


def test_an_entry_above_the_budget_is_not_kept() -> None:
    cache = cache_with(LONG, range(100, 300), budget_tokens=50)
    assert cache.tokens == 40


def test_room_is_given_back_when_asked_for() -> None:
    cache = cache_with((100, *LONG), (101, *LONG))
    cache.shrink(41)
    assert cache.tokens == 41
    cache.shrink(0)
    assert cache.tokens == 0


def test_the_count_of_entries_is_bounded() -> None:
    cache = cache_with(*((first, *LONG) for first in range(1000, 1000 + 2 * ENTRY_COUNT_MAX)), budget_tokens=10**9)
    assert cache.tokens == ENTRY_COUNT_MAX * 41


TOKENS = st.lists(st.integers(0, 2), max_size=40)


def _naive_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


@given(TOKENS, TOKENS)
def test_common_prefix_equals_counting(a: list[int], b: list[int]) -> None:
    assert common_prefix(a, b) == _naive_prefix(a, b)


def test_each_entry_knows_whether_it_can_be_cut() -> None:
    cache: PrefixCache[str] = PrefixCache(1000)
    cache.put(LONG, "the end of a prompt", False)
    cache.put((*LONG[:30], 50, 51), "a window that has not moved yet", True)
    for wanted, kept in (((*LONG, 60), "the end of a prompt"), ((*LONG[:35], 60), "a window that has not moved yet")):
        found = cache.find(wanted)
        assert found is not None and found.kept == kept


@dataclass
class Naive:
    """The same in plain lists: every entry is compared with every prompt. Least recently used first."""

    budget_tokens: int
    entries: list[tuple[tuple[int, ...], int, bool]] = field(default_factory=list)
    evicted_count: int = 0

    @property
    def tokens(self) -> int:
        return sum(len(tokens) for tokens, _, _ in self.entries)

    def find(self, wanted: Sequence[int]) -> Hit[int] | None:
        best: tuple[tuple[int, ...], int, bool] | None = None
        most = PREFIX_TOKENS_MIN - 1
        for entry in reversed(self.entries):
            usable = min(_naive_prefix(entry[0], wanted), len(wanted) - 1)
            if usable < len(entry[0]) and not entry[2]:
                continue
            if usable > most:
                best, most = entry, usable
        if best is None:
            return None
        self.entries.remove(best)
        self.entries.append(best)
        return Hit(best[1], most, len(best[0]))

    def put(self, tokens: tuple[int, ...], kept: int, can_cut: bool) -> None:
        if len(tokens) < PREFIX_TOKENS_MIN or len(tokens) > self.budget_tokens:
            return
        for other, _, other_can_cut in self.entries:
            if other_can_cut and len(other) > len(tokens) and _naive_prefix(other, tokens) == len(tokens):
                return
        self.entries = [
            one
            for one in self.entries
            if one[0] != tokens and not (can_cut and _naive_prefix(one[0], tokens) == len(one[0]))
        ]
        self.entries.append((tokens, kept, can_cut))
        self.shrink(self.budget_tokens)

    def shrink(self, budget_tokens: int) -> None:
        while self.tokens > budget_tokens:
            self.entries.pop(0)
            self.evicted_count += 1


# All that is put in or wanted begins like this, or like something before it: prefixes are shared as chats share them.
STEM = (0, 1, 2) * 10
# Of which sequence before, how much of it (all, mostly where it is longer), what follows, and what is done with it.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.just(100) | st.integers(10, 60),
        st.lists(st.integers(0, 2), max_size=6),
        st.sampled_from(["put", "put", "put what cannot be cut", "find", "find", "find", "shrink"]),
    ),
    min_size=4,
    max_size=16,
)


def test_the_cache_finds_and_forgets_what_a_naive_one_does() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(STEPS, st.integers(20, 200))
    def compare(steps: list[tuple[int, int, list[int], str]], budget_tokens: int) -> None:
        cache: PrefixCache[int] = PrefixCache(budget_tokens)
        naive = Naive(budget_tokens)
        known: list[tuple[int, ...]] = [STEM]
        for number, (which, cut, tail, what) in enumerate(steps):
            tokens = (*known[-1 - which % len(known)][:cut], *tail)
            if what == "find":
                hit = naive.find(tokens)
                assert cache.find(tokens) == hit
                seen["nothing" if hit is None else "whole" if hit.tokens == hit.kept_tokens else "a part"] += 1
                seen["exact"] += hit is not None and hit.kept_tokens == len(tokens) == hit.tokens + 1
            elif what == "shrink":
                cache.shrink(cut)
                naive.shrink(cut)
            else:
                cache.put(tokens, number, what == "put")
                naive.put(tokens, number, what == "put")
                known.append(tokens)
            assert cache.tokens == naive.tokens <= budget_tokens
        seen["evicted"] += naive.evicted_count

    compare()
    # What Hypothesis draws depends on the constants of the modules that are imported.
    assert min(seen[what] for what in ("nothing", "whole", "a part", "exact", "evicted")) >= 5, seen
