"""A node's runner and the rank processes on its node, as values on a clock that is given. The fence is the real one."""

import random
from dataclasses import dataclass, field, replace

from thunderline.cluster import NodeId, RankId, StoreId
from thunderline.cluster.ranks import RankState
from thunderline.runner.fence import Fence, Goal, Verdict, judge
from thunderline.scheduler.values import Cause, RankView, RunnerView

STORE = StoreId("s")
KV_TOKENS = 16_384
R = RankState
# What a rank goes on to by itself; PREPARED waits for its goal.
ONWARDS = {R.STARTING: R.PREPARED, R.LOADING: R.WARMING, R.WARMING: R.READY}
PHASE_S_MAX = 2.0


class Broken(AssertionError):
    """A law of the scheduler does not hold."""


@dataclass
class Rank:
    view: RankView
    # When it goes on to its next state.
    due_s: float
    goal: Goal = Goal.PREPARED


@dataclass
class Runner:
    """Its rank processes may outlive it: one that adopts finds them again, another waits until they have ended."""

    node: NodeId
    chance: random.Random
    adopts: bool
    fence: Fence = field(default_factory=Fence)
    known: dict[RankId, Rank] = field(default_factory=dict)
    # Processes of a former runner that are about to end; their memory is still taken.
    orphans: dict[RankId, Rank] = field(default_factory=dict)
    up_s: float = 0.0
    complete_s: float = 0.0
    # Its views do not reach the scheduler before this time.
    heard_s: float = 0.0

    def living(self) -> list[Rank]:
        return [rank for rank in (*self.known.values(), *self.orphans.values()) if rank.view.state is not R.ABSENT]

    def command(self, rank: RankId, goal: Goal, memory_bytes: int, now_s: float) -> bool:
        """SetRank; whether the answer is ABSENT. Raises the fence's errors."""
        if now_s < self.up_s:
            return False
        placement = f"{rank} on {self.node} with {memory_bytes}".encode()
        verdict, self.fence = judge(self.fence, STORE, rank, goal, placement)
        known = self.known.get(rank)
        if verdict is Verdict.START:
            view = RankView(rank, self.node, R.STARTING, memory_bytes=memory_bytes, kv_budget_tokens=KV_TOKENS)
            self.known[rank] = Rank(view, self._soon(now_s))
            return False
        if known is None:
            return True
        if verdict is Verdict.END and known.view.state not in {R.STOPPING, R.ABSENT}:
            self._enter(known, R.STOPPING, None, now_s)
        elif goal is Goal.READY:
            known.goal = Goal.READY
        return known.view.state is R.ABSENT

    def move(self, now_s: float) -> None:
        for rank in self.living():
            if now_s < rank.due_s:
                continue
            state = rank.view.state
            if state is R.STOPPING:
                self._enter(rank, R.ABSENT, Cause("STOPPED", "told to end", state), now_s)
            elif state is R.PREPARED and rank.goal is Goal.READY:
                self._enter(rank, R.LOADING, None, now_s)
            elif state in ONWARDS:
                self._enter(rank, ONWARDS[state], None, now_s)
        self.orphans = {id: rank for id, rank in self.orphans.items() if rank.view.state is not R.ABSENT}

    def look(self, now_s: float) -> RunnerView:
        """What it would say now. One that adopts shows what it has found so far: here nothing."""
        complete = now_s >= self.complete_s and not self.orphans
        found = sorted(self.known.items()) if complete or not self.adopts else []
        return RunnerView(self.node, True, complete, tuple(rank.view for _, rank in found))

    def crash(self, rank: Rank, now_s: float) -> None:
        """An orphan that fails is gone: nobody is left to end it."""
        after = R.ABSENT if rank.view.id in self.orphans else self.chance.choice((R.FAILED, R.ABSENT))
        self._enter(rank, after, Cause("SIGNAL", "SIGSEGV", rank.view.state), now_s)

    def restart(self, now_s: float) -> None:
        self.up_s = now_s + self.chance.uniform(0.2, 3.0)
        self.complete_s = self.up_s + self.chance.uniform(0.0, 1.5)
        if self.adopts:
            # What had ended is forgotten.
            self.known = {id: rank for id, rank in self.known.items() if rank.view.state is not R.ABSENT}
            return
        for rank in self.living():
            self._enter(rank, R.STOPPING, None, now_s)
            self.orphans[rank.view.id] = rank
        self.known = {}

    def _enter(self, rank: Rank, state: RankState, cause: Cause | None, now_s: float) -> None:
        rank.view = replace(rank.view, state=state, cause=cause or rank.view.cause)
        rank.due_s = self._soon(now_s)

    def _soon(self, now_s: float) -> float:
        return now_s + self.chance.uniform(0.0, PHASE_S_MAX)
