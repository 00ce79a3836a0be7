"""A node's runner and the rank processes on its node, as values on a clock that is given. The fence is the real one.

It lies (an old state of a rank once more), loses its ranks' streams, hangs them, and is restarted.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from thunderline.cluster import InstanceId, NodeId, RankId, StoreId
from thunderline.cluster.errors import EpochConflict
from thunderline.cluster.ranks import RankState
from thunderline.runner.fence import Fence, Goal, Verdict, judge
from thunderline.scheduler.values import Cause, RankView, RunnerView

STORE = StoreId("s")
KV_TOKENS = 16_384
R = RankState
# What a rank goes on to by itself; PREPARED waits for its goal.
ONWARDS = {R.STARTING: R.PREPARED, R.LOADING: R.WARMING, R.WARMING: R.READY}
PHASE_S_MAX = 2.0
# A load that stands still, and a READY rank that does not dial in, are ended by their runner.
STALL_S = 6.0
NEVER_S = 1e12
DEAD = {R.FAILED, R.STOPPING, R.ABSENT}

Judge = Callable[[Fence, StoreId, RankId, Goal, bytes], tuple[Verdict, Fence]]


class Broken(AssertionError):
    """A law of the scheduler does not hold."""


class Temper(Enum):
    """What a model's files do to their ranks."""

    SOUND = auto()
    BREAKS_LOADING = auto()
    BREAKS_SERVING = auto()  # Soon after READY, before any answer.
    NEVER_LOADS = auto()  # The cause is permanent.


BREAKS = {Temper.BREAKS_LOADING: R.LOADING, Temper.BREAKS_SERVING: R.READY}


@dataclass
class Rank:
    view: RankView
    # When it goes on to its next state.
    due_s: float
    temper: Temper
    goal: Goal = Goal.PREPARED
    # From then on it is dialled in; and a restarted runner has found it.
    dials_s: float = math.inf
    found_s: float = 0.0
    stalls: bool = False
    past: list[RankView] = field(default_factory=list)


@dataclass
class Runner:
    """Its rank processes may outlive it: one that adopts finds them again, another waits until they have ended."""

    node: NodeId
    chance: random.Random
    adopts: bool
    tempers: Mapping[InstanceId, Temper]
    judge: Judge = judge
    fence: Fence = field(default_factory=Fence)
    known: dict[RankId, Rank] = field(default_factory=dict)
    # Processes of a former runner that are about to end; their memory is still taken.
    orphans: dict[RankId, Rank] = field(default_factory=dict)
    up_s: float = 0.0
    complete_s: float = 0.0
    # Its views do not reach the scheduler before this time.
    heard_s: float = 0.0
    # The truth: what was ever started here, and where each that failed was then.
    started: set[RankId] = field(default_factory=set)
    deaths: dict[RankId, RankState] = field(default_factory=dict)

    def living(self) -> list[Rank]:
        return [rank for rank in (*self.known.values(), *self.orphans.values()) if rank.view.state is not R.ABSENT]

    def command(self, rank: RankId, goal: Goal, memory_bytes: int, now_s: float) -> bool:
        """SetRank; whether the answer is ABSENT. Raises the fence's errors."""
        if now_s < self.up_s:
            return False
        placement = f"{rank} on {self.node} with {memory_bytes}".encode()
        try:
            verdict, self.fence = self.judge(self.fence, STORE, rank, goal, placement)
        except EpochConflict as error:
            raise Broken(error.message) from None
        known = self.known.get(rank)
        if verdict is Verdict.START:
            self._start(rank, memory_bytes, now_s)
            return False
        if known is None:
            return True
        if verdict is Verdict.END and known.view.state not in {R.STOPPING, R.ABSENT}:
            self._enter(known, R.STOPPING, None, now_s)
        elif goal is Goal.READY:
            known.goal = Goal.READY
        return known.view.state is R.ABSENT

    def _start(self, rank: RankId, memory_bytes: int, now_s: float) -> None:
        if rank in self.started:
            raise Broken(f"{rank} is started a second time")
        self.started.add(rank)
        view = RankView(
            rank, self.node, R.STARTING, memory_bytes=memory_bytes, kv_budget_tokens=KV_TOKENS, attached=False
        )
        temper = self.tempers.get(rank.instance, Temper.SOUND)
        self.known[rank] = Rank(view, self._soon(now_s), temper, dials_s=now_s)

    def move(self, now_s: float) -> None:
        for rank in self.living():
            state = rank.view.state
            rank.stalls = rank.stalls and state in {R.LOADING, R.WARMING}
            if state is R.READY and not rank.view.attached:
                self._dial(rank, now_s)
                if rank.dials_s == math.inf:
                    # It never will: its runner ends it, after a while.
                    rank.temper, rank.dials_s, rank.due_s = Temper.BREAKS_SERVING, NEVER_S, now_s + STALL_S
            if now_s < rank.due_s:
                continue
            if state is R.STOPPING:
                self._enter(rank, R.ABSENT, Cause("STOPPED", "told to end", state), now_s)
            elif state is R.PREPARED and rank.goal is Goal.READY:
                self._enter(rank, R.LOADING, None, now_s)
            elif state is R.LOADING and rank.temper is Temper.NEVER_LOADS:
                self._die(rank, R.FAILED, Cause("LOAD_FAILED", "not known", state, permanent=True), now_s)
            elif rank.stalls or BREAKS.get(rank.temper) is state:
                self.crash(rank, now_s)
            elif state in ONWARDS:
                self._enter(rank, ONWARDS[state], None, now_s)
        self.orphans = {id: rank for id, rank in self.orphans.items() if rank.view.state is not R.ABSENT}

    def look(self, now_s: float) -> RunnerView:
        """What it would say now. One that adopts shows what it has found so far."""
        complete = now_s >= self.complete_s and not self.orphans
        views = tuple(
            rank.view for _, rank in sorted(self.known.items()) if complete or not self.adopts or now_s >= rank.found_s
        )
        return RunnerView(self.node, True, complete, views)

    # What goes wrong.

    def crash(self, rank: Rank, now_s: float) -> None:
        """An orphan that fails is gone: nobody is left to end it."""
        after = R.ABSENT if rank.view.id in self.orphans else self.chance.choice((R.FAILED, R.ABSENT))
        self._die(rank, after, Cause("SIGNAL", "SIGSEGV", rank.view.state), now_s)

    def lie(self, view: RunnerView) -> RunnerView:
        """The same, with a rank in a state that it had once."""
        liars = [rank for rank in self.known.values() if rank.past]
        if not liars:
            return view
        rank = self.chance.choice(liars)
        old = self.chance.choice(rank.past)
        return replace(view, ranks=tuple(old if one.id == old.id else one for one in view.ranks))

    def hang(self, rank: Rank, now_s: float) -> None:
        """It does not go on. This runner ends what hangs while loading; what hangs before that it does not notice."""
        if rank.view.state in {R.STARTING, R.PREPARED}:
            rank.due_s = math.inf
        elif rank.view.state in {R.LOADING, R.WARMING}:
            rank.stalls, rank.due_s = True, now_s + STALL_S

    def lose_stream(self, rank: Rank, now_s: float) -> None:
        """It dials in again after a moment; a few never do."""
        if rank.view.state not in DEAD:
            rank.dials_s = now_s + self.chance.choice((0.2, 0.6, 1.5, 1.5, math.inf))
            rank.view = replace(rank.view, attached=False)

    def restart(self, now_s: float) -> None:
        self.up_s = now_s + self.chance.uniform(0.2, 3.0)
        self.complete_s = self.up_s + self.chance.uniform(0.0, 1.5)
        if self.adopts:
            # What had ended is forgotten.
            self.known = {id: rank for id, rank in self.known.items() if rank.view.state is not R.ABSENT}
            for rank in self.known.values():
                rank.found_s = self.chance.uniform(self.up_s, self.complete_s)
                self.lose_stream(rank, self.up_s)
            return
        for rank in self.living():
            self._enter(rank, R.STOPPING, None, now_s)
            self.orphans[rank.view.id] = rank
        self.known = {}

    def _dial(self, rank: Rank, now_s: float) -> None:
        if now_s >= rank.dials_s:
            rank.view = replace(rank.view, attached=True)

    def _die(self, rank: Rank, after: RankState, cause: Cause, now_s: float) -> None:
        if rank.view.state not in DEAD:
            self.deaths[rank.view.id] = rank.view.state
        self._enter(rank, after, cause, now_s)

    def _enter(self, rank: Rank, state: RankState, cause: Cause | None, now_s: float) -> None:
        rank.past.append(rank.view)
        rank.view = replace(rank.view, state=state, cause=rank.view.cause or cause)
        rank.due_s = self._soon(now_s)
        self._dial(rank, now_s)

    def _soon(self, now_s: float) -> float:
        return now_s + self.chance.uniform(0.0, PHASE_S_MAX)
