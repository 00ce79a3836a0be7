"""Why a set of nodes was not taken, in words, with the figures or the rows that say so. Pure."""

from collections.abc import Callable, Sequence
from itertools import combinations

from thunderline.scheduler.placing.dialling import describe
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
        needs = grounds.needs.tensor(len(members)).of(grounds.needs.tokens)
        small = [i for i in members if grounds.free[i] < needs]
        return f"each of {len(members)} ranks needs {gib(needs)}: {_free(grounds, small)} free"

    def of_pipeline(members: Members) -> str:
        needs = grounds.needs.pipeline_bytes(len(members))
        free = sum(grounds.free[i] for i in members)
        room = grounds.capacity.layers(members)
        layers = f"room for {min(room, grounds.model.layer_count)} of {counted(grounds.model.layer_count, 'layer')}"
        return f"needs {gib(needs)}, has {gib(free)} free ({_free(grounds, members)}), {layers}"

    return of_tensor if strategy is Strategy.TENSOR else of_pipeline


def backend(grounds: Grounds, backend: Backend) -> Why:
    def why(members: Members) -> str:
        problems = [text for i in members if (text := grounds.problem(i, backend))]
        return "; ".join(problems[:TOLD_MAX])

    return why


def slow_pairs(grounds: Grounds, members: Members) -> list[tuple[int, int]]:
    """Those that are joined, and below their minimums."""
    ways = grounds.dialling.ways
    found = [(i, j) for i in members for j in members if i != j]
    return [pair for pair in found if (way := ways.get(grounds.pair(*pair))) and way.cost.quality.is_below]


def slow(grounds: Grounds) -> Why:
    def why(members: Members) -> str:
        told = []
        for pair in slow_pairs(grounds, members)[:TOLD_MAX]:
            link = grounds.dialling.ways[grounds.pair(*pair)].link
            who = " → ".join(grounds.words[i] for i in pair)
            told.append(f"{who} over {describe(link)}: {grounds.dialling.below(link)}")
        return f"no ring of links that meet their minimums: {'; '.join(told)}"

    return why


def missing_links(joined: Joined, members: Members) -> list[tuple[int, int]]:
    """Directed pairs that are not joined."""
    return [(i, j) for i in members for j in members if i != j and joined.quality[i][j] is None]


def unlinked(grounds: Grounds, pairs: Sequence[tuple[int, int]]) -> Why:
    def why(members: Members) -> str:
        told = "; ".join(grounds.evidence(*pair) for pair in pairs[:TOLD_MAX])
        more = f"; and {len(pairs) - TOLD_MAX} more" if len(pairs) > TOLD_MAX else ""
        return f"{'no link' if len(members) == 2 else 'no ring passes all of them'}: {told}{more}"

    return why


def missing_rails(joined: Joined, members: Members) -> list[tuple[int, int]]:
    return [(i, j) for i, j in combinations(members, 2) if joined.quality[i][j] is None]


def unrailed(grounds: Grounds, pairs: Sequence[tuple[int, int]]) -> Why:
    def why(_: Members) -> str:
        return "; ".join(grounds.rails.why_not(*grounds.pair(*pair)) for pair in pairs[:TOLD_MAX])

    return why


def _free(grounds: Grounds, members: Sequence[int]) -> str:
    more = [f"{len(members) - TOLD_MAX} more"] if len(members) > TOLD_MAX + 1 else []
    told = members if not more else members[:TOLD_MAX]
    return listed([*(f"{grounds.words[i]} {gib(grounds.free[i])}" for i in told), *more])
