"""The search for the best set of nodes: those whose every link meets its minimums first, the smallest of them first.

Of each size all sets are judged by what costs little (backends, memory, whether a ring passes them); the best are then
formed, until one fits. Pure.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import permutations

from thunderline.scheduler.placing import reasons
from thunderline.scheduler.placing.dialling import Cost
from thunderline.scheduler.placing.forming import Failed, form, whole
from thunderline.scheduler.placing.grounds import Grounds, Method
from thunderline.scheduler.placing.methods import sizes_problem
from thunderline.scheduler.placing.preference import Preference, Preferences
from thunderline.scheduler.placing.rdma import MESH_RANKS_MAX
from thunderline.scheduler.placing.rejections import Rejections
from thunderline.scheduler.placing.rings import EXACT_MAX, Joined, bottleneck, bottlenecks
from thunderline.scheduler.placing.sets import Members, Pools, every, is_exact
from thunderline.scheduler.placing.values import Backend, Placement, Reason, Strategy
from thunderline.scheduler.placing.wording import listed

# Above EXACT_MAX nodes: sets of one size through which a ring is sought, and longer rings, which cost more.
SOUGHT_MAX, LONG_SOUGHT_MAX = 32, 8


class Search:
    def __init__(self, grounds: Grounds, rejections: Rejections) -> None:
        self._grounds = grounds
        self._rejections = rejections
        self._preferences = Preferences(grounds)
        self._is_exact = is_exact(len(grounds.nodes))
        self._why_memory = {one: reasons.memory(grounds, one) for one in Strategy}
        self._why_backend = {one: reasons.backend(grounds, one) for one in Backend}
        self._by_size: dict[tuple[int, Strategy], list[Members]] = {}
        # By whether over rails: of single sets, and, of few nodes, of all (by bits).
        self._qualities: dict[tuple[bool, Members], int | None] = {}
        self._bottlenecks: dict[bool, list[int | None]] = {}
        self._pools: dict[tuple[Backend, bool, frozenset[int]], Pools] = {}

    def one_node(self) -> Placement | None:
        """All of the model on one node."""
        candidates = sorted(self._preferences.of((i,)) for i in range(len(self._grounds.nodes)))
        for place, one in enumerate(candidates):
            found = whole(self._grounds, one.members[0])
            if isinstance(found, Placement):
                self._pass_over(one, candidates[place + 1 :], Strategy.WHOLE)
                return found
            self._rejections.add(one.members, Reason.MEMORY, reasons.too_small(self._grounds), Strategy.WHOLE)
        return None

    def several_nodes(self, methods: Sequence[Method], sizes: Sequence[int]) -> Placement | None:
        """The first that fits: by whether it needs slow links, by size, by method, by preference."""
        for takes_slow in (False, True):
            if takes_slow and self._grounds.policy.requires_fast:
                break
            for size in sizes:
                for method in methods:
                    # Rails are not slow: what they do not carry at first they do not carry then.
                    if takes_slow and method.backend is Backend.JACCL:
                        continue
                    if found := self._of_size(size, method, takes_slow):
                        return found
        return None

    def _of_size(self, size: int, method: Method, takes_slow: bool) -> Placement | None:
        if problem := sizes_problem(method, self._grounds.model, size):
            self._rejections.add_size(size, Reason.SIZES, lambda _: problem, method.strategy)
            return None
        if not self._is_exact and not self._might_fit(size, method.strategy):
            self._rejections.add_size(size, Reason.MEMORY, self._why_memory[method.strategy], method.strategy)
            return None
        candidates = sorted(self._candidates(size, method, takes_slow))
        for place, one in enumerate(candidates):
            found = form(self._grounds, one.members, method, takes_slow)
            if isinstance(found, Placement):
                self._rejections.drop(one.members, method)
                self._pass_over(one, candidates[place + 1 :], *method)
                return found
            self._fail(one.members, method, found)
        return None

    def _fail(self, members: Members, method: Method, failed: Failed) -> None:
        self._rejections.add(members, failed.reason, lambda _: failed.text, *method, failed.pairs)

    def _pass_over(
        self, chosen: Preference, others: Sequence[Preference], strategy: Strategy, backend: Backend | None = None
    ) -> None:
        first = listed(self._grounds.words[i] for i in chosen.members)
        for one in others:
            self._rejections.add(
                one.members,
                Reason.PREFERENCE,
                lambda _, one=one: f"{first} before it, by {chosen.before(one)}",  # type: ignore[misc]
                strategy,
                backend,
            )

    def _candidates(self, size: int, method: Method, takes_slow: bool) -> list[Preference]:
        """Sets that may do, as far as is known without an order."""
        found = []
        for members, quality in self._sets(size, method, takes_slow):
            if quality is None:
                self._reject_unjoined(members, method)
            elif not takes_slow and self._grounds.joined(method.backend).qualities[quality].is_below:
                pairs = reasons.slow_pairs(self._grounds, members)
                self._rejections.add(members, Reason.SLOW, reasons.slow(self._grounds), *method, pairs)
            else:
                found.append(self._preferences.of(members, quality, method.backend))
        return found

    def _sets(self, size: int, method: Method, takes_slow: bool) -> Iterator[tuple[Members, int | None]]:
        """Those that have memory and backends, each with the number of the worst quality on its best ring."""
        backend, count = method.backend, len(self._grounds.nodes)
        if self._is_exact or size in (2, count):
            for members in self._fitting(size, method.strategy):
                if self._is_able(members, method):
                    yield members, self._quality(members, backend)
            return
        pools = self._pool(size, method, takes_slow)
        few, grown = pools.few(size), pools.grown(size)
        if not few and not grown:
            self._reject_apart(size, method, takes_slow)
        joined = self._grounds.joined(backend)
        for members in few:
            if self._fits(members, method.strategy):
                quality = self._across(members, joined) if backend is Backend.JACCL else None
                yield members, pools.bottleneck(members, joined) if quality is None else quality
        fitting = sorted(self._preferences.of(members) for members in grown if self._fits(members, method.strategy))
        for one in fitting[: SOUGHT_MAX if size <= EXACT_MAX else LONG_SOUGHT_MAX]:
            yield one.members, self._quality(one.members, backend)

    def _fitting(self, size: int, strategy: Strategy) -> list[Members]:
        """All sets of a size that have the memory, whatever joins them: found once."""
        if (size, strategy) not in self._by_size:
            sets = every(len(self._grounds.nodes), size)
            self._by_size[size, strategy] = [members for members in sets if self._fits(members, strategy)]
        return self._by_size[size, strategy]

    def _pool(self, size: int, method: Method, takes_slow: bool) -> Pools:
        """Of those that can take part in a group of the size."""
        key = (method.backend, takes_slow, frozenset(self._able[method.backend] & self._roomy(size, method.strategy)))
        if key not in self._pools:
            self._pools[key] = Pools(self._open(*key), self._grounds.free)
        return self._pools[key]

    def _roomy(self, size: int, strategy: Strategy) -> set[int]:
        grounds = self._grounds
        if strategy is Strategy.PIPELINE:
            return {i for i, count in enumerate(grounds.capacity.middle) if count}
        bytes_ = grounds.capacity.tensor_bytes(size)
        return {i for i, free in enumerate(grounds.free) if free >= bytes_}

    def _open(self, backend: Backend, takes_slow: bool, these: frozenset[int]) -> Joined:
        """Between these; without slow links, unless they are taken."""
        joined, costs = self._grounds.joined(backend), {}
        for pair in permutations(sorted(these), 2):
            number = joined.quality[pair[0]][pair[1]]
            if number is not None and (takes_slow or not joined.qualities[number].is_below):
                costs[pair] = Cost(joined.qualities[number], 0)
        return Joined(joined.count, costs)

    def _is_able(self, members: Members, method: Method) -> bool:
        if self._able[method.backend].issuperset(members):
            return True
        self._rejections.add(members, Reason.BACKEND, self._why_backend[method.backend], *method)
        return False

    def _reject_unjoined(self, members: Members, method: Method) -> None:
        joined, by_rails = self._grounds.joined(method.backend), method.backend is Backend.JACCL
        pairs = (reasons.missing_rails if by_rails else reasons.missing_links)(joined, members)
        why = (reasons.unrailed if by_rails else reasons.unlinked)(self._grounds, pairs)
        self._rejections.add(members, Reason.RAIL if by_rails else Reason.LINK, why, *method, pairs)

    def _reject_apart(self, size: int, method: Method, takes_slow: bool) -> None:
        """Of many nodes, when no set of a size hangs together: with those that have most memory as the example."""
        roomy = self._able[method.backend] & self._roomy(size, method.strategy)
        by_memory = sorted(range(len(self._grounds.nodes)), key=lambda i: (i not in roomy, -self._grounds.free[i], i))
        example = tuple(sorted(by_memory[:size]))
        joined, by_rails = self._grounds.joined(method.backend), method.backend is Backend.JACCL
        allowed = "" if by_rails or takes_slow else " that meet their minimums"
        what = f"no {size} nodes hang together by {'rails' if by_rails else 'links'}{allowed}"
        pairs = (reasons.missing_rails if by_rails else reasons.missing_links)(joined, example)
        why = (reasons.unrailed if by_rails else reasons.unlinked)(self._grounds, pairs)
        if not pairs:
            pairs, why = reasons.slow_pairs(self._grounds, example), reasons.slow(self._grounds)
        reason = Reason.RAIL if by_rails else Reason.LINK
        self._rejections.add_size(size, reason, lambda one: f"{what}: {why(one)}", *method, example, pairs)

    @cached_property
    def _able(self) -> dict[Backend, set[int]]:
        numbers = range(len(self._grounds.nodes))
        return {backend: {i for i in numbers if not self._grounds.problem(i, backend)} for backend in Backend}

    def _fits(self, members: Members, strategy: Strategy) -> bool:
        capacity = self._grounds.capacity
        if strategy is Strategy.TENSOR:
            fits = capacity.fits_tensor(members)
        else:
            fits = capacity.layers(members) >= self._grounds.model.layer_count
        if not fits:
            self._rejections.add(members, Reason.MEMORY, self._why_memory[strategy], strategy)
        return fits

    def _might_fit(self, size: int, strategy: Strategy) -> bool:
        """Whether any set of the size has the memory."""
        if strategy is Strategy.TENSOR:
            return len(self._roomy(size, strategy)) >= size
        return self._grounds.capacity.layers_max(size) >= self._grounds.model.layer_count

    def _quality(self, members: Members, backend: Backend) -> int | None:
        """The number of the worst quality on the best ring; across a mesh of rails the worst of all. None: no ring."""
        key = (backend is Backend.JACCL, members)
        if key not in self._qualities:
            self._qualities[key] = self._found_quality(*key)
        return self._qualities[key]

    def _found_quality(self, by_rails: bool, members: Members) -> int | None:
        joined = self._grounds.joined(Backend.JACCL if by_rails else Backend.RING)
        if by_rails or len(members) == 2:
            quality = self._across(members, joined)
            if quality is not None or len(members) == 2:
                return quality
        if not self._is_exact:
            return bottleneck(members, joined)
        if by_rails not in self._bottlenecks:
            self._bottlenecks[by_rails] = bottlenecks(joined)
        return self._bottlenecks[by_rails][sum([1 << i for i in members])]

    def _across(self, members: Members, joined: Joined) -> int | None:
        """The worst quality of all pairs; None: a pair is not joined, or they are more than a mesh takes."""
        if len(members) > MESH_RANKS_MAX:
            return None
        found = [joined.quality[i][j] for i in members for j in members if i != j]
        known = [one for one in found if one is not None]
        return max(known) if len(known) == len(found) else None
