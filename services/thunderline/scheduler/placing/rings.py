"""Rings through a set of nodes whose slowest link is as good as it can be. Pure.

Exact up to EXACT_MAX nodes (the paths of Held and Karp, J. SIAM 10, 1962: subsets, never all cycles of the graph),
a path that grows with a bounded number of steps above. Nodes are numbers; a ring is a list in the order in which each
dials the next one and the last one the first.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from thunderline.scheduler.placing.dialling import Cost, Quality

EXACT_MAX = 8
# Of a growing path, beside one for each of its nodes, which is all that it needs on a full mesh: 64 nodes stay below
# 20 ms when it finds nothing.
STEPS_MORE = 256

Ring = list[int]


class Joined:
    """What it costs to go from one node to another, by number; None: one cannot."""

    def __init__(self, count: int, costs: Mapping[tuple[int, int], Cost]) -> None:
        self.count = count
        self.qualities: list[Quality] = sorted({one.quality for one in costs.values()})
        by_quality = {quality: number for number, quality in enumerate(self.qualities)}
        by_cost = {cost: number for number, cost in enumerate(sorted(set(costs.values())))}
        self.cost: list[list[int | None]] = [[None] * count for _ in range(count)]
        self.quality: list[list[int | None]] = [[None] * count for _ in range(count)]
        for (i, j), cost in costs.items():
            self.cost[i][j] = by_cost[cost]
            self.quality[i][j] = by_quality[cost.quality]

    def into(self, limit: int) -> list[int]:
        """By node: those (bits) from which one gets there with no worse a quality."""
        found = [0] * self.count
        for i, row in enumerate(self.quality):
            for j, quality in enumerate(row):
                if quality is not None and quality <= limit:
                    found[j] |= 1 << i
        return found

    def only(self, members: Sequence[int]) -> "Joined":
        """Of some of the nodes, numbered anew in this order; qualities keep their numbers."""
        found = Joined(len(members), {})
        found.qualities = self.qualities
        found.cost = [[self.cost[i][j] for j in members] for i in members]
        found.quality = [[self.quality[i][j] for j in members] for i in members]
        return found


def bottlenecks(joined: Joined) -> list[int | None]:
    """By set of nodes (bits): the number of the worst quality on its best ring; None: no ring passes all of them."""
    sets = 1 << joined.count
    found: list[int | None] = [None] * sets
    for limit in range(len(joined.qualities)):
        into = joined.into(limit)
        # Where a path through all of a set can end that begins at its lowest node.
        lasts = [0] * sets
        for node in range(joined.count):
            lasts[1 << node] = 1 << node
        for members in range(1, sets):
            here = lasts[members]
            if not here:
                continue
            first = (members & -members).bit_length() - 1
            if found[members] is None and here & into[first] and members != 1 << first:
                found[members] = limit
            for node in range(first + 1, joined.count):
                bit = 1 << node
                if not members & bit and here & into[node]:
                    lasts[members | bit] |= bit
    return found


def bottleneck(members: Sequence[int], joined: Joined) -> int | None:
    """Of one set; above EXACT_MAX of the best ring that is found."""
    if len(members) <= EXACT_MAX:
        return bottlenecks(joined.only(members))[-1]
    ring = quick_ring(members, joined)
    return max(joined.quality[i][j] or 0 for i, j in pairwise([*ring, ring[0]])) if ring else None


def best_ring(members: Sequence[int], joined: Joined) -> Ring | None:
    """Its worst link is the best possible, then its second worst, and so on; above EXACT_MAX the worst nearly so."""
    if len(members) > EXACT_MAX:
        return _long_ring(members, joined)
    found = _rings_from(0, _weights(members, joined))
    return [members[place] for place in min(found)[1]] if found else None


def rings_by_ends(members: Sequence[int], joined: Joined) -> list[Ring]:
    """The best ring for each first node and each last one, the best first; up to EXACT_MAX."""
    weights = _weights(members, joined)
    found = sorted(one for first in range(len(members)) for one in _rings_from(first, weights))
    return [[members[place] for place in ring] for _, ring in found]


def _weights(members: Sequence[int], joined: Joined) -> list[list[int | None]]:
    """Of which all that a ring has of one cost together are less than one of the next."""
    costs = joined.only(members).cost
    known = sorted({one for row in costs for one in row if one is not None})
    places = {cost: place for place, cost in enumerate(known)}
    return [[None if one is None else (EXACT_MAX + 1) ** places[one] for one in row] for row in costs]


def _rings_from(first: int, weights: Sequence[Sequence[int | None]]) -> list[tuple[int, Ring]]:
    """By last node: the lightest ring that begins so."""
    count = len(weights)
    everyone = (1 << count) - 1
    # By set of nodes (bits) and last node: the weight of the lightest path, and the node before.
    paths: list[dict[int, tuple[int, int]]] = [{} for _ in range(1 << count)]
    paths[1 << first][first] = (0, first)
    for members, ends in enumerate(paths):
        for last, (weight, _) in ends.items():
            for node, step in enumerate(weights[last]):
                if step is None or members >> node & 1:
                    continue
                onward = paths[members | 1 << node]
                known = onward.get(node)
                if known is None or weight + step < known[0]:
                    onward[node] = (weight + step, last)
    found = []
    for last, (weight, _) in paths[everyone].items():
        step = weights[last][first]
        if step is not None:
            found.append((weight + step, _walked(paths, everyone, last)))
    return found


def _walked(paths: Sequence[Mapping[int, tuple[int, int]]], members: int, last: int) -> Ring:
    ring = []
    while members:
        ring.append(last)
        members, last = members & ~(1 << last), paths[members][last][1]
    return ring[::-1]


def quick_ring(members: Sequence[int], joined: Joined) -> Ring | None:
    """A ring of the best quality that is found, whatever its RTTs; for more than EXACT_MAX nodes."""
    limits = range(len(joined.qualities))
    return next((ring for limit in limits if (ring := _grown(members, joined, joined.quality, limit))), None)


def _long_ring(members: Sequence[int], joined: Joined) -> Ring | None:
    """The quick ring, made better by halving the costs that are allowed."""
    best = quick_ring(members, joined)
    if best is None:
        return None
    limit = max(joined.quality[i][j] or 0 for i, j in pairwise([*best, best[0]]))
    within = [joined.cost[i][j] for i in members for j in members if _at_most(joined.quality[i][j], limit)]
    costs = sorted({one for one in within if one is not None})
    low, high = 0, len(costs) - 1
    while low < high:
        middle = (low + high) // 2
        if ring := _grown(members, joined, joined.cost, costs[middle]):
            best, high = ring, middle
        else:
            low = middle + 1
    return best


def _at_most(number: int | None, limit: int) -> bool:
    return number is not None and number <= limit


def _grown(members: Sequence[int], joined: Joined, cost: Sequence[Sequence[int | None]], limit: int) -> Ring | None:
    """A ring of what costs no more than the limit, by a path that goes on to the node with the fewest ways onward.

    Those get lost otherwise (Warnsdorff); among equals to the nearest. Where it is stuck it steps back, a bounded
    number of times.
    """
    out, into = _within(members, cost, limit)
    if not all(out[i] and into[i] for i in members):
        return None
    first = min(members, key=lambda i: (out[i].bit_count(), i))
    left = sum(1 << i for i in members) & ~(1 << first)

    def onward(node: int) -> Iterable[int]:
        """Not to one from which there is no way on, unless it is the last."""
        options = out[node] & left
        ways = [((out[i] & left).bit_count(), joined.cost[node][i] or 0, i) for i in members if options >> i & 1]
        return iter([i for count, _, i in sorted(ways) if count or left == 1 << i])

    path, choices = [first], [iter(onward(first))]
    for _ in range(len(members) + STEPS_MORE):
        node = next(choices[-1], None)
        if node is None:
            choices.pop()
            left |= 1 << path.pop()
            if not choices:
                return None
            continue
        path.append(node)
        left &= ~(1 << node)
        if not left and out[node] >> first & 1:
            return path
        # Somebody has to be left who dials the first one.
        if left and into[first] & left:
            choices.append(iter(onward(node)))
        else:
            left |= 1 << path.pop()
    return None


def _within(
    members: Sequence[int], cost: Sequence[Sequence[int | None]], limit: int
) -> tuple[dict[int, int], dict[int, int]]:
    """By node: those (bits) to which it goes, and those from which one gets there."""
    out, into = dict.fromkeys(members, 0), dict.fromkeys(members, 0)
    for i in members:
        row = cost[i]
        for j in members:
            one = row[j]
            if one is not None and one <= limit:
                out[i] |= 1 << j
                into[j] |= 1 << i
    return out, into
