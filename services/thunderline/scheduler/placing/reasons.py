"""Why a set of nodes was not taken, in words, with the figures or the rows that say so. Pure."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations, permutations

from thunderline.scheduler.placing.grounds import Grounds
from thunderline.scheduler.placing.rings import Joined
from thunderline.scheduler.placing.sets import Members
from thunderline.scheduler.placing.values import Backend, Strategy
from thunderline.scheduler.placing.wording import counted, gib, listed

# Links, or nodes, of which one reason tells.
TOLD_MAX = 3

Why = Callable[[Members], str]


def too_small(grounds: Grounds) -> Why:
    """For the whole model on one node."""

    def why(members: Members) -> str:
        node = grounds.nodes[members[0]]
        needs = grounds.needs.whole().of(grounds.needs.tokens)
        return f"needs {gib(needs)}, has {gib(node.free_bytes)} free of {gib(node.memory_bytes or 0)}"

    return why


def memory(grounds: Grounds, strategy: Strategy) -> Why:
    def of_tensor(members: Members) -> str:
        needs = grounds.capacity.tensor_bytes(len(members))
        small = [i for i in members if grounds.free[i] < needs]
        return f"each of {len(members)} ranks needs {gib(needs)}: {_free(grounds, small)} free"

    layers = counted(grounds.model.layer_count, "layer")
    by_size = cache(lambda size: gib(grounds.needs.pipeline_bytes(size)))

    def of_pipeline(members: Members) -> str:
        free = gib(sum([grounds.free[i] for i in members]))
        room = min(grounds.capacity.layers(members), grounds.model.layer_count)
        return (
            f"needs {by_size(len(members))}, has {free} free ({_free(grounds, members)}), room for {room} of {layers}"
        )

    return of_tensor if strategy is Strategy.TENSOR else of_pipeline


def backend(grounds: Grounds, backend: Backend) -> Why:
    def why(members: Members) -> str:
        problems = [text for i in members if (text := grounds.problem(i, backend))]
        return "; ".join(problems[:TOLD_MAX])

    return why


def slow_pairs(grounds: Grounds, members: Members) -> list[tuple[int, int]]:
    """Those that are joined, and below their minimums."""
    return [pair for pair in permutations(members, 2) if pair in grounds.slow_words]


def slow(grounds: Grounds) -> Why:
    def why(members: Members) -> str:
        told = "; ".join([grounds.slow_words[pair] for pair in slow_pairs(grounds, members)[:TOLD_MAX]])
        return f"no ring of links that meet their minimums: {told}"

    return why


def missing_links(joined: Joined, members: Members) -> list[tuple[int, int]]:
    """Directed pairs that are not joined."""
    quality = joined.quality
    return [(i, j) for i, j in permutations(members, 2) if quality[i][j] is None]


def unlinked(grounds: Grounds, pairs: Sequence[tuple[int, int]]) -> Why:
    def why(members: Members) -> str:
        told = "; ".join([grounds.evidence(*pair) for pair in pairs[:TOLD_MAX]])
        more = f"; and {len(pairs) - TOLD_MAX} more" if len(pairs) > TOLD_MAX else ""
        return f"{'no link' if len(members) == 2 else 'no ring passes all of them'}: {told}{more}"

    return why


def missing_rails(joined: Joined, members: Members) -> list[tuple[int, int]]:
    quality = joined.quality
    return [(i, j) for i, j in combinations(members, 2) if quality[i][j] is None]


def unrailed(grounds: Grounds, pairs: Sequence[tuple[int, int]]) -> Why:
    def why(_: Members) -> str:
        return "; ".join([grounds.rails.why_not(*grounds.pair(*pair)) for pair in pairs[:TOLD_MAX]])

    return why


def _free(grounds: Grounds, members: Sequence[int]) -> str:
    words = grounds.free_words
    if len(members) > TOLD_MAX + 1:
        return listed([*[words[i] for i in members[:TOLD_MAX]], f"{len(members) - TOLD_MAX} more"])
    return listed([words[i] for i in members])
