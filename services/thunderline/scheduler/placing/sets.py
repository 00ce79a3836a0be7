"""Which sets of nodes are looked at: all of them up to EXACT_MAX nodes, a bounded number of each size above. Pure."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from thunderline.scheduler.placing.rings import EXACT_MAX, Joined, bottlenecks

Members = tuple[int, ...]


def is_exact(count: int) -> bool:
    """Whether every set of so many nodes is looked at."""
    return count <= EXACT_MAX


def every(count: int, size: int) -> Iterator[Members]:
    return combinations(range(count), size)


class Pools:
    """Sets of many nodes, by the parts of them in which each can reach each: no ring leaves its part.

    Of parts of EXACT_MAX nodes or fewer all sets; of larger ones sets that grow from each node, twice as many of a
    size as there are nodes at most. `free`: bytes by node.
    """

    def __init__(self, joined: Joined, free: Sequence[int]) -> None:
        self._parts = parts(joined)
        by_memory = sorted(range(joined.count), key=lambda i: (-free[i], i))
        self._grown = [
            _Grown([i for i in by_memory if i in part], joined) for part in self._parts if not is_exact(len(part))
        ]
        self._tables: dict[Members, list[int | None]] = {}

    def few(self, size: int) -> list[Members]:
        return [one for part in self._parts if is_exact(len(part)) for one in combinations(part, size)]

    def grown(self, size: int) -> list[Members]:
        return sorted({one for part in self._grown for one in part.of_size(size)})

    def bottleneck(self, members: Members, joined: Joined) -> int | None:
        """Of one of the few."""
        part = next(one for one in self._parts if members[0] in one)
        if part not in self._tables:
            self._tables[part] = bottlenecks(joined.only(part))
        return self._tables[part][sum(1 << part.index(i) for i in members)]


def parts(joined: Joined) -> list[Members]:
    """Of two nodes or more, in each of which each can reach each."""
    limit = len(joined.qualities)
    into = joined.into(limit)
    out = [sum(1 << j for j, one in enumerate(row) if one is not None) for row in joined.quality]
    found: list[Members] = []
    left = (1 << joined.count) - 1
    while left:
        first = (left & -left).bit_length() - 1
        members = _reached(first, out) & _reached(first, into)
        left &= ~members
        if members.bit_count() > 1:
            found.append(tuple(i for i in range(joined.count) if members >> i & 1))
    return found


def _reached(first: int, onward: Sequence[int]) -> int:
    """With any number of steps."""
    found = fresh = 1 << first
    while fresh:
        node = (fresh & -fresh).bit_length() - 1
        fresh = (fresh | (onward[node] & ~found)) & ~(1 << node)
        found |= onward[node]
    return found


class _Grown:
    """Of one part. The one that is joined best comes next, of equals that with most memory; beside those the largest.

    `by_memory`: its nodes, the largest first.
    """

    def __init__(self, by_memory: Sequence[int], joined: Joined) -> None:
        self._by_memory = by_memory
        self._lines = [_Line(seed, joined, by_memory) for seed in by_memory]

    def of_size(self, size: int) -> set[Members]:
        if len(self._by_memory) < size:
            return set()
        found = {tuple(sorted(self._by_memory[:size]))}
        for line in self._lines:
            line.grow(size)
            found.add(tuple(sorted(line.members[:size])))
        return found


class _Line:
    """The order in which nodes join one of them; grown no further than it is asked for."""

    def __init__(self, seed: int, joined: Joined, by_memory: Sequence[int]) -> None:
        self.members = [seed]
        # A way that is missing is worse than any.
        self._missing = len(joined.qualities)
        self._there = joined.quality
        # What the way there and back costs at best, from and to any member, in the order of memory.
        self._left = {i: (self._of(seed, i), self._of(i, seed)) for i in by_memory if i != seed}

    def _of(self, i: int, j: int) -> int:
        quality = self._there[i][j]
        return self._missing if quality is None else quality

    def grow(self, size: int) -> None:
        while len(self.members) < size:
            best, best_ways = -1, (self._missing + 1, 0)
            for i, (there, back) in self._left.items():
                ways = (there, back) if there > back else (back, there)
                if ways < best_ways:
                    best, best_ways = i, ways
                    if ways == (0, 0):
                        break
            self._join(best)

    def _join(self, node: int) -> None:
        del self._left[node]
        self.members.append(node)
        row, missing = self._there[node], self._missing
        for i, (there, back) in self._left.items():
            to, fro = row[i], self._there[i][node]
            self._left[i] = (min(there, missing if to is None else to), min(back, missing if fro is None else fro))
