"""A line of waiters not all of whom fit every door: who is looked at, and what is kept for whom. Pure.

A door is kept for the first of those who fit it. Of those who fit the same doors only the first is looked at: where it
cannot go, those behind it cannot either.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from thunderline.cluster import InstanceId
from thunderline.scheduler import routing
from thunderline.scheduler.routing import Door, Request
from thunderline.scheduler.values import DeploymentState


class Waiter(Protocol):
    request: Request


T = TypeVar("T", bound=Waiter)


class Look:
    """One look along a line, first come first, at the doors that its word means now."""

    def __init__(self, word: str, doors: Sequence[Door]) -> None:
        self.word = word
        self.doors = doors
        deployed = _deployed(doors)
        self._count = len(deployed)
        # Who fits which doors goes by how many of these are too small for it: comparing numbers is quick.
        self._budgets = sorted(one.kv_budget_tokens for one in deployed if one.kv_budget_tokens > 0)
        self._group_count = len({0} | {bisect_right(self._budgets, one) % self._count for one in self._budgets})
        self._staying: set[int] = set()
        self._kept: set[InstanceId] = set()

    def along(self, line: Iterable[T]) -> Iterator[tuple["Look", T]]:
        """Those who may be able to go; whoever cannot is told of by `stays` before the next is asked for."""
        # Who goes leaves the line meanwhile.
        for waiter in list(line):
            if len(self._staying) == self._group_count:
                return
            if self._group(waiter.request) not in self._staying:
                yield self, waiter

    def stays(self, request: Request) -> None:
        """Every door that it fits is kept from those behind it."""
        self._staying.add(self._group(request))
        self._kept |= {door.instance for door in routing.fitting(self.doors, request)}

    def is_kept(self, instance: InstanceId) -> bool:
        return instance in self._kept

    def _group(self, request: Request) -> int:
        """The same for all who fit the same doors; who fits nowhere is refused wherever it goes, so it fits all."""
        return bisect_left(self._budgets, request.needed_tokens) % self._count if self._count else 0


class Losses:
    """When the doors of a word were seen to be READY no more."""

    def __init__(self) -> None:
        self._ready: set[InstanceId] = set()
        self._lost_s: dict[InstanceId, float] = {}
        # When one that was READY was last undeployed.
        self._gone_s = -math.inf

    def see(self, doors: Sequence[Door], now_s: float) -> None:
        known = {one.instance for one in _deployed(doors)}
        ready = {one.instance for one in doors if routing.is_ready(one)}
        if self._ready - known:
            self._gone_s = now_s
        lost_s = self._lost_s | dict.fromkeys(self._ready, now_s)
        self._lost_s = {one: at_s for one, at_s in lost_s.items() if one in known - ready}
        self._ready = ready

    def away_since_s(self, doors: Sequence[Door]) -> float:
        """Since when none of these is READY; before all times, where none was seen to be."""
        return max([self._gone_s, *(self._lost_s.get(one.instance, -math.inf) for one in doors)])


def _deployed(doors: Sequence[Door]) -> list[Door]:
    return [one for one in doors if one.standing.state is not DeploymentState.UNDEPLOYING]
