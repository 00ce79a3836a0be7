"""KV of past prompts and answers, found again by their longest common prefix. Bounded in tokens, oldest use out first.

What is kept is opaque here: only its tokens count.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# Each look-up compares with every entry: 64 take about 20 microseconds.
ENTRY_COUNT_MAX = 64
# A shorter common prefix (a BOS, a role's name) is not worth a copy.
PREFIX_TOKENS_MIN = 16


@dataclass(frozen=True, slots=True)
class Hit(Generic[T]):
    """`tokens` of the wanted prompt are in `kept`, which holds `kept_tokens` in all."""

    kept: T
    tokens: int
    kept_tokens: int


class PrefixCache(Generic[T]):
    """An entry that cannot be cut (a state that has no past, a window that has moved on) is of use only as a whole."""

    def __init__(self, budget_tokens: int) -> None:
        self._budget_tokens = budget_tokens
        self._entries: OrderedDict[tuple[int, ...], tuple[T, bool]] = OrderedDict()
        self.tokens = 0

    def find(self, wanted: Sequence[int]) -> Hit[T] | None:
        """The entry that shares most with `wanted`; at least one token of `wanted` is left to process."""
        best: tuple[int, tuple[int, ...]] | None = None
        for tokens, (_, can_cut) in reversed(self._entries.items()):
            common = min(common_prefix(tokens, wanted), len(wanted) - 1)
            usable = common if can_cut or common == len(tokens) else 0
            if usable >= PREFIX_TOKENS_MIN and (best is None or usable > best[0]):
                best = (usable, tokens)
        if best is None:
            return None
        self._entries.move_to_end(best[1])
        return Hit(self._entries[best[1]][0], best[0], len(best[1]))

    def wants(self, tokens: Sequence[int]) -> bool:
        """Whether `put` would keep an entry of these: it has a fitting length, and no longer one serves for it."""
        key = tuple(tokens)
        if not PREFIX_TOKENS_MIN <= len(key) <= self._budget_tokens:
            return False
        return not any(one[: len(key)] == key and cut for one, (_, cut) in self._entries.items() if len(one) > len(key))

    def put(self, tokens: Sequence[int], kept: T, can_cut: bool) -> None:
        """Keeps an entry; entries that are its prefixes go when it can be cut, since it serves for them too."""
        key = tuple(tokens)
        if not self.wants(key):
            return
        if can_cut:
            for other in [one for one in self._entries if len(one) <= len(key) and key[: len(one)] == one]:
                self._drop(other)
        elif key in self._entries:
            self._drop(key)
        self._entries[key] = (kept, can_cut)
        self.tokens += len(key)
        self.shrink(self._budget_tokens)

    def shrink(self, budget_tokens: int) -> None:
        """Lets the least recently used go until at most so many tokens are held."""
        while self._entries and (self.tokens > budget_tokens or len(self._entries) > ENTRY_COUNT_MAX):
            self._drop(next(iter(self._entries)))

    def _drop(self, key: tuple[int, ...]) -> None:
        del self._entries[key]
        self.tokens -= len(key)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning, by halving: slices are compared in C."""
    a, b = tuple(a), tuple(b)
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
