"""A cluster around the scheduler's reconciler, on one thread and a clock of its own, made from a seed.

The reconciler, the placement, the attempts and the runner's fence are the real ones. Views come late and twice,
commands and answers are late or lost, ranks crash, runners and the scheduler restart.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import replace

from simulation import scheduler_laws
from simulation.runner_world import KV_TOKENS, Broken, R, Runner
from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.errors import ClusterError, EpochConflict
from thunderline.runner.fence import Goal
from thunderline.scheduler import actions, reconciler
from thunderline.scheduler.actions import Action, targets
from thunderline.scheduler.reconciler import Decision, Waits
from thunderline.scheduler.values import (
    Audit,
    Cause,
    DeploymentState,
    Epoch,
    RunnerView,
    Spec,
    Verdict,
    Wish,
    World,
)

Reconcile = Callable[[World, float, Waits], Decision]

TICK_S = 0.25
WAITS = Waits(0.5, 8.0)
NODES = (NodeId("a"), NodeId("b"))
# Room for one epoch of each of two deployments on a node, and for no third.
MEMORY_BYTES = 12 * 2**30
AUDIT = Audit(Verdict.USABLE, (), 4 * 2**30, 65_536, 32_768, 30, MEMORY_BYTES)


class Cluster:
    """Runs a reconcile function; `faults` until a time, then peace. Raises Broken."""

    def __init__(self, seed: int, decide: Reconcile = reconciler.reconcile, numbers_survive: bool = True) -> None:
        self.chance = random.Random(seed)
        self.decide = decide
        self.numbers_survive = numbers_survive
        adopts = self.chance.random() < 0.5
        self.now_s = 1_000.0
        self.faults = True
        self.runners = {node: Runner(node, self.chance, adopts) for node in NODES}
        # What is on the scheduler's disk.
        self.last_epoch = 0
        self.wishes: dict[InstanceId, Wish] = {}
        # What is in its memory.
        self.life = 0
        self.views: dict[NodeId, RunnerView] = {}
        self.audits: dict[tuple[NodeId, str], Audit] = {}
        self.in_flight: set[object] = set()
        self.standings: dict[InstanceId, DeploymentState] = {}
        self.served: frozenset[InstanceId] = frozenset()
        # What is on its way: (time, order, call).
        self._order = itertools.count()
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self.action_count = 0
        for name in ("m", "n"):
            self.deploy(name)

    def deploy(self, name: str) -> None:
        instance = InstanceId(f"i{next(self._order)}")
        self.wishes[instance] = Wish(Spec(name, f"org/{name}", KV_TOKENS), instance, self.now_s)

    def later(self, least_s: float, most_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (self.now_s + self.chance.uniform(least_s, most_s), next(self._order), call))

    def run(self, until_s: float) -> None:
        while self.now_s < until_s:
            self.now_s += TICK_S
            while self._coming and self._coming[0][0] <= self.now_s:
                heapq.heappop(self._coming)[2]()
            for runner in self.runners.values():
                runner.move(self.now_s)
            if self.faults:
                self._break_something()
            for runner in self.runners.values():
                self._report(runner)
            self._pass()
            scheduler_laws.of_processes(self.runners.values(), self.wishes.keys(), MEMORY_BYTES)

    # The scheduler: what services/thunderline/scheduler/control.py does around the reconciler.

    def _pass(self) -> None:
        world = World(
            tuple(sorted(self.wishes.values(), key=lambda wish: wish.spec.name)),
            dict(self.views),
            dict(self.audits),
            in_flight=frozenset(self.in_flight),
            served=self.served,
        )
        decision = self.decide(world, self.now_s, WAITS)
        self.standings = {instance: standing.state for instance, standing in decision.standings.items()}
        self.served |= {one for one, state in self.standings.items() if state is DeploymentState.READY}
        scheduler_laws.of_a_decision(world, decision)
        for action in decision.actions:
            self.action_count += 1
            self.in_flight |= targets(action)
            self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        life = self.life
        open_ = [True]

        def done() -> None:
            """Answered, or given up: whichever comes first."""
            if open_ and life == self.life:
                open_.clear()
                self.in_flight -= targets(action)

        def here(call: Callable[[], None], most_s: float = 0.3) -> None:
            """Something that the scheduler does by itself: its death ends it."""

            def run() -> None:
                if life == self.life:
                    call()
                    done()

            self.later(0.0, most_s, run)

        match action:
            case actions.AuditModel(node, model):
                audit = replace(AUDIT, at_s=self.now_s)
                here(lambda: self.audits.update({(node, model): audit}), most_s=1.0)
            case actions.StartEpoch(instance, placed):
                number = self._begin(instance, placed.node, placed.memory_bytes)
                self._set_rank(placed.node, RankId(instance, number, 0), Goal.PREPARED, done)
            case actions.MakePrepared(rank, node):
                self._set_rank(node, rank, Goal.PREPARED, done)
            case actions.MakeReady(rank, node):
                self._set_rank(node, rank, Goal.READY, done)
            case actions.MakeAbsent(rank, node):
                self._set_rank(node, rank, Goal.ABSENT, done)
            case actions.MarkReady(instance, number):
                here(lambda: self._change(instance, number, ready_s=self.now_s))
            case actions.EndEpoch(instance, number, cause):
                here(lambda: self._end(instance, number, cause))
            case actions.Forget(instance):
                here(lambda: self._forget(instance))
            case actions.FetchModel():
                raise Broken("files that are there are fetched")

    def _begin(self, instance: InstanceId, node: NodeId, memory_bytes: int) -> int:
        wish = self.wishes[instance]
        if wish.current is not None:
            raise Broken(f"epoch {wish.current.number} of {instance} lives, and another is started")
        self.last_epoch += 1
        newest = wish.epochs[-1].number if wish.epochs else 0
        if self.last_epoch <= newest:
            raise Broken(f"epoch {self.last_epoch} of {instance} follows {newest}")
        epoch = Epoch(self.last_epoch, self.now_s, node, KV_TOKENS, memory_bytes)
        self.wishes[instance] = replace(wish, epochs=(*wish.epochs[-20:], epoch))
        return epoch.number

    def _change(self, instance: InstanceId, number: int, **values: float | Cause) -> None:
        wish = self.wishes.get(instance)
        if wish is not None and wish.current is not None and wish.current.number == number:
            changed = replace(wish.current, **values)  # type: ignore[arg-type]
            self.wishes[instance] = replace(wish, epochs=(*wish.epochs[:-1], changed))

    def _end(self, instance: InstanceId, number: int, cause: Cause) -> None:
        for runner in self.runners.values():
            rank = runner.known.get(RankId(instance, number, 0))
            if rank is not None and rank.view.state not in {R.FAILED, R.STOPPING, R.ABSENT}:
                raise Broken(f"epoch {number} of {instance} is given up although its rank is {rank.view.state.name}")
        self._change(instance, number, ended_s=self.now_s, cause=cause)

    def _forget(self, instance: InstanceId) -> None:
        self.deploy(self.wishes.pop(instance).spec.name)

    def _set_rank(self, node: NodeId, rank: RankId, goal: Goal, done: Callable[[], None]) -> None:
        """A call: it may never arrive, arrive after its caller died, or have its answer lost."""
        life = self.life
        wish = self.wishes.get(rank.instance)
        memory = next((one.memory_bytes for one in wish.epochs if one.number == rank.epoch), 0) if wish else 0

        def arrive() -> None:
            try:
                absent = self.runners[node].command(rank, goal, memory, self.now_s)
            except EpochConflict as error:
                raise Broken(error.message) from None
            except ClusterError:
                absent = False
            if self.faults and self.chance.random() < 0.1:
                return

            def answer() -> None:
                if life != self.life:
                    return
                if absent and goal is Goal.PREPARED:
                    self._end(rank.instance, rank.epoch, Cause("LOST", "its runner was restarted", R.STARTING))
                undeployed = self.wishes.get(rank.instance)
                if absent and goal is Goal.ABSENT and undeployed is not None and undeployed.undeploying:
                    self._end(rank.instance, rank.epoch, actions.UNDEPLOYED)
                done()

            self.later(0.0, 0.3, answer)

        lost = self.faults and self.chance.random() < 0.1
        if not lost:
            self.later(0.0, 2.0 if self.faults else 0.2, arrive)
        # The caller's deadline.
        self.later(5.0, 5.0, done)

    # What is heard and what goes wrong.

    def _report(self, runner: Runner) -> None:
        """Its stream of views: in order, late, some of them twice."""
        if self.now_s < max(runner.up_s, runner.heard_s):
            return
        view = runner.look(self.now_s)
        lag_s = self.chance.choice((0.0, 0.0, 0.5)) if self.faults else 0.0
        life, up_s = self.life, runner.up_s

        def arrive() -> None:
            if life == self.life and up_s == runner.up_s and self.now_s >= runner.heard_s:
                self.views[runner.node] = view

        for _ in range(self.chance.choice((1, 1, 2))):
            self.later(lag_s, lag_s, arrive)
        # What lags holds back what comes after it.
        runner.heard_s = self.now_s + lag_s

    def _break_something(self) -> None:
        kind = self.chance.random()
        runner = self.runners[self.chance.choice(NODES)]
        if kind < 0.010:
            runner.restart(self.now_s)
            self._cut(runner, runner.up_s - self.now_s)
        elif kind < 0.020:
            self._cut(runner, self.chance.uniform(0.5, 5.0))
        elif kind < 0.028:
            self._restart_scheduler()
        elif kind < 0.060 and (living := runner.living()):
            runner.crash(self.chance.choice(living), self.now_s)
        elif kind < 0.064:
            instance = self.chance.choice(list(self.wishes))
            self.wishes[instance] = replace(self.wishes[instance], undeploying=True)
        elif kind < 0.070:
            self.deploy_again()

    def _cut(self, runner: Runner, for_s: float) -> None:
        """The scheduler cannot hear the runner for a while."""
        runner.heard_s = self.now_s + for_s
        if before := self.views.get(runner.node):
            self.views[runner.node] = replace(before, reachable=False, complete=False)

    def _restart_scheduler(self) -> None:
        self.life += 1
        self.views, self.audits, self.in_flight, self.served = {}, {}, set(), frozenset()
        if not self.numbers_survive:
            self.last_epoch = 0

    def deploy_again(self) -> None:
        """An operator who deploys again whatever has stopped trying."""
        for instance, wish in self.wishes.items():
            if self.standings.get(instance) is DeploymentState.CRASH_LOOP:
                self.wishes[instance] = replace(wish, fresh_since_s=self.now_s)

    def settled(self) -> bool:
        """Every deployment serves, by one rank each, no other rank is left, and no answer is outstanding."""
        if self.in_flight:
            return False
        living = {(rank.view.id, rank.view.state) for runner in self.runners.values() for rank in runner.living()}
        wanted = {(RankId(one.instance, one.current.number, 0), R.READY) for one in self.wishes.values() if one.current}
        return living == wanted and all(
            self.standings.get(instance) is DeploymentState.READY and not wish.undeploying
            for instance, wish in self.wishes.items()
        )
