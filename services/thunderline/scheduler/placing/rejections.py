"""What was not taken, and why: of few nodes every set, of many an example of each reason with a count. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import comb

from thunderline.scheduler.placing.grounds import Grounds, Method
from thunderline.scheduler.placing.sets import Members, every, is_exact
from thunderline.scheduler.placing.values import Backend, Reason, Rejected, Strategy

Why = Callable[[Members], str]
_Group = tuple[Reason, Strategy | None, Backend | None]


class Rejections:
    """A set that is looked at again, with slow links, is told of once: as it was seen last."""

    def __init__(self, grounds: Grounds) -> None:
        self._grounds = grounds
        self._is_exact = is_exact(len(grounds.nodes))
        # Of few nodes.
        self._by_set: dict[tuple[Members, Strategy | None, Backend | None], Rejected] = {}
        # Of many: sets one by one, and sizes of which no set would do; words are made for one of them only.
        self._examples: dict[_Group, Rejected] = {}
        self._sets: dict[_Group, dict[Members, Why]] = {}
        self._sizes: dict[_Group, dict[int, Why]] = {}

    def add(
        self,
        members: Members,
        reason: Reason,
        why: Why,
        strategy: Strategy | None = None,
        backend: Backend | None = None,
        pairs: Sequence[tuple[int, int]] = (),
    ) -> None:
        if self._is_exact:
            self._by_set[members, strategy, backend] = self._told(members, reason, why, strategy, backend, pairs)
            return
        group = (reason, strategy, backend)
        self._sets.setdefault(group, {})[members] = why
        if group not in self._examples:
            self._examples[group] = self._told(members, reason, why, strategy, backend, pairs)

    def _told(
        self,
        members: Members,
        reason: Reason,
        why: Why,
        strategy: Strategy | None,
        backend: Backend | None,
        pairs: Sequence[tuple[int, int]],
    ) -> Rejected:
        ids = self._grounds.ids
        nodes = tuple([ids[i] for i in members])
        told = tuple([(ids[i], ids[j]) for i, j in pairs])
        return Rejected(nodes, reason, why(members), strategy, backend, 1, told)

    def add_size(
        self,
        size: int,
        reason: Reason,
        why: Why,
        strategy: Strategy | None,
        backend: Backend | None = None,
        example: Members = (),
        pairs: Sequence[tuple[int, int]] = (),
    ) -> None:
        """All sets of a size. `example`: the one that is told of where there are many."""
        count = len(self._grounds.nodes)
        if self._is_exact:
            for members in every(count, size):
                self.add(members, reason, why, strategy, backend)
            return
        group = (reason, strategy, backend)
        self._sizes.setdefault(group, {})[size] = why
        if group not in self._examples:
            members = example or next(every(count, size))
            self._examples[group] = self._told(members, reason, why, strategy, backend, pairs)

    def drop(self, members: Members, method: Method) -> None:
        """It is taken after all."""
        self._by_set.pop((members, *method), None)
        for (_, *how), sets in self._sets.items():
            if tuple(how) == method:
                sets.pop(members, None)

    def why_not(self, members: Members, method: Method) -> str:
        """Of one set in one way; "" where nothing was said."""
        ways = {(method.strategy, None), tuple(method)}
        found = [one.text for (each, *how), one in self._by_set.items() if each == members and tuple(how) in ways]
        for (_, *how), sets in self._sets.items():
            found += [sets[members](members)] if tuple(how) in ways and members in sets else []
        for (_, *how), sizes in self._sizes.items():
            found += [sizes[len(members)](members)] if tuple(how) in ways and len(members) in sizes else []
        return next(iter(found), "")

    def all(self) -> list[Rejected]:
        """The smallest sets first."""
        # Those of one set stay in the order in which they were found.
        by_set = sorted(self._by_set, key=_size_first)
        found = [self._by_set[key] for key in by_set]
        total = len(self._grounds.nodes)
        for group, example in self._examples.items():
            sizes = self._sizes.get(group, {})
            one_by_one = sum(len(members) not in sizes for members in self._sets.get(group, {}))
            count = one_by_one + sum(comb(total, size) for size in sizes)
            # All of them may have been taken after all.
            found += [replace(example, count=count)] if count else []
        return found if self._is_exact else sorted(found, key=_order)


def _size_first(key: tuple[Members, Strategy | None, Backend | None]) -> tuple[int, Members]:
    return len(key[0]), key[0]


def _order(one: Rejected) -> tuple[object, ...]:
    how = one.strategy.value if one.strategy else "", one.backend.value if one.backend else ""
    return len(one.nodes), one.nodes, how, one.reason.value
