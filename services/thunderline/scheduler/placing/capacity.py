"""How many layers sets of nodes have room for, before anybody knows an order. Pure; nodes by number.

For layers that are all alike this is exact, as soon as the two nodes that take the ends can stand side by side; for
unlike ones it never says no to a set that some split fits.
"""

from collections.abc import Sequence

from thunderline.scheduler.placing.memory import Needs


class Capacity:
    """`free`: bytes by node."""

    def __init__(self, needs: Needs, free: Sequence[int]) -> None:
        self._needs = needs
        self._free = free
        self.middle = [needs.middle_max(one) for one in free]
        # Layers more or fewer than in the middle; None: not one fits beside the end.
        self._first = [self._more(needs.first_max(one), place) for place, one in enumerate(free)]
        self._last = [self._more(needs.last_max(one), place) for place, one in enumerate(free)]
        self._most = sorted(self.middle, reverse=True)
        # The rule: an end costs all nodes the same, mostly nothing.
        self._even = _sum_of_even([self._first, self._last])
        self._layers: dict[tuple[int, ...], int] = {}
        self._tensor_bytes: dict[int, int] = {}

    def _more(self, count: int, place: int) -> int | None:
        return count - self.middle[place] if count else None

    def layers(self, members: tuple[int, ...]) -> int:
        """That a pipeline of these (two or more) has room for; 0 where not each has room for one."""
        if members not in self._layers:
            middle = [self.middle[i] for i in members]
            ends = self._ends(members) if all(middle) else None
            self._layers[members] = 0 if ends is None else sum(middle) + ends
        return self._layers[members]

    def _ends(self, members: Sequence[int]) -> int | None:
        """What two different nodes at the ends add at best; None: no two will do. The best two for each are enough."""
        if self._even is not None:
            return self._even
        firsts = sorted([(-more, i) for i in members if (more := self._first[i]) is not None])[:2]
        lasts = sorted([(-more, i) for i in members if (more := self._last[i]) is not None])[:2]
        return max([-one - other for one, i in firsts for other, j in lasts if i != j], default=None)

    def layers_max(self, size: int) -> int:
        """Of any set of a size, at most."""
        return sum(self._most[:size]) + max(0, self._ends(range(len(self.middle))) or 0)

    def tensor_bytes(self, rank_count: int) -> int:
        """What each of so many ranks needs."""
        if rank_count not in self._tensor_bytes:
            self._tensor_bytes[rank_count] = self._needs.tensor(rank_count).of(self._needs.tokens)
        return self._tensor_bytes[rank_count]

    def fits_ends(self, first: int, last: int) -> bool:
        """Whether they have room for the first layer, and for the last."""
        return self._first[first] is not None and self._last[last] is not None

    def fits_tensor(self, members: Sequence[int]) -> bool:
        """Whether each has room for its part."""
        bytes_ = self.tensor_bytes(len(members))
        return min(self._free[i] for i in members) >= bytes_


def _sum_of_even(ends: Sequence[Sequence[int | None]]) -> int | None:
    """Where it is the same at all nodes, and there are any."""
    found = [next(iter(each)) for each in map(set, ends) if len(each) == 1]
    known = [one for one in found if one is not None]
    return sum(known) if len(known) == len(ends) else None
