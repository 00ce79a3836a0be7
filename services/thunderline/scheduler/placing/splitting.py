"""Which layers each rank of a pipeline has. Pure.

The first layers are on the last rank and the last ones, with norm and head, on rank 0: so rank 0 samples, and needs no
extra hop for it.
"""

from collections.abc import Sequence

from thunderline.scheduler.placing.memory import Needs


def shares(layer_count: int, weights: Sequence[int]) -> list[int]:
    """Layers in proportion to the weights (all above 0), by largest remainder; at least one each.

    Among equal remainders the earlier one gets the layer. Needs as many layers as there are weights.
    """
    total = sum(weights)
    counts = [layer_count * one // total for one in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(layer_count * weights[i] % total), i))
    for place in by_remainder[: layer_count - sum(counts)]:
        counts[place] += 1
    for place, count in enumerate(counts):
        if count == 0:
            counts[counts.index(max(counts))] -= 1
            counts[place] = 1
    return counts


def split(needs: Needs, free: Sequence[int]) -> list[tuple[int, int]] | None:
    """Layers [first, end) of each rank, of whose node so many bytes are free; None when no split fits.

    In proportion to memory; where that does not fit, each border is the nearest to it that leaves a split that does.
    Exact: whenever any split fits, one is found.
    """
    by_layers = list(free)[::-1]
    rank_count, layer_count = len(by_layers), needs.layer_count
    if layer_count < rank_count or min(by_layers) <= 0:
        return None
    ends = [_Ends(needs, bytes_, place, rank_count) for place, bytes_ in enumerate(by_layers)]
    if _farthest(ends) < layer_count:
        return None
    # Bit i of reach[p]: what begins with layer i can be held by the places from p on.
    reach = [0] * rank_count + [1 << layer_count]
    for place in reversed(range(rank_count)):
        onward = reach[place + 1]
        for first in ends[place].firsts:
            if _window(first, ends[place].of(first)) & onward:
                reach[place] |= 1 << first
    if not reach[0] & 1:
        return None
    found, first, wanted = [], 0, 0
    for place, count in enumerate(shares(layer_count, by_layers)):
        wanted += count
        end = _nearest(_window(first, ends[place].of(first)) & reach[place + 1], wanted)
        found.append((first, end))
        first = end
    return found[::-1]


class _Ends:
    """How far the layers of one place may go. Each place before it and after it has a layer too."""

    def __init__(self, needs: Needs, free_bytes: int, place: int, place_count: int) -> None:
        self._needs, self._free_bytes = needs, free_bytes
        self._last = needs.layer_count - (place_count - 1 - place)
        self._is_end = place in (0, place_count - 1)
        self.firsts = range(1) if place == 0 else range(place, self._last)
        self._middle = needs.ends(free_bytes)

    def of(self, first: int) -> int:
        """The largest end that fits; `first` itself where not one layer does."""
        end = min(self._middle[first], self._last)
        while self._is_end and end > first and self._needs.bytes(first, end) > self._free_bytes:
            end -= 1
        return end


def _farthest(ends: Sequence[_Ends]) -> int:
    """No split reaches beyond this layer: with a later first layer a place never ends earlier."""
    found = 0
    for one in ends:
        found = one.of(min(found, one.firsts[-1]))
    return found


def _window(first: int, end: int) -> int:
    """Bits of the ends that a rank may have."""
    return (1 << (end + 1)) - (1 << (first + 1))


def _nearest(bits: int, wanted: int) -> int:
    """The set bit that is nearest; the lower one of two."""
    return next(
        place
        for distance in range(max(wanted, bits.bit_length()) + 1)
        for place in (wanted - distance, wanted + distance)
        if place >= 0 and bits >> place & 1
    )
