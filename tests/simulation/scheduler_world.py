"""A cluster around the scheduler's reconciler, on one thread and a clock of its own, made from a seed.

The reconciler, the placement, the attempts and the runner's fence are the real ones, or those that a test passes.
Views come late, twice and with lies, commands and answers are late or lost, ranks crash and hang, models are broken,
the clock leaps and is set back, runners and the scheduler restart.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from simulation import scheduler_laws
from simulation.runner_world import Broken, Judge, R, Runner, Temper
from simulation.scheduler_disk import Disk
from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.errors import ClusterError
from thunderline.process.awake import LATE_S
from thunderline.runner import fence
from thunderline.runner.fence import Goal
from thunderline.scheduler import actions, attempts, reconciler
from thunderline.scheduler.actions import Action, targets
from thunderline.scheduler.ages import Ages
from thunderline.scheduler.attempts import NextAttempt
from thunderline.scheduler.known_model import even
from thunderline.scheduler.reconciler import Decision, Waits
from thunderline.scheduler.values import Audit, Cause, DeploymentState, RunnerView, Standing, Verdict, World

Reconcile = Callable[[World, float, Waits, NextAttempt], Decision]


@dataclass(frozen=True, slots=True)
class Core:
    """What is tried. `numbers_survive`: whether the store's counter of epochs is durable."""

    reconcile: Reconcile = reconciler.reconcile
    next_attempt: NextAttempt = attempts.next_attempt
    judge: Judge = fence.judge
    numbers_survive: bool = True


TICK_S = 0.25
WAITS = Waits(0.5, 8.0, prepare_s=15.0)
# Control looks again after this long, when nothing was heard.
IDLE_PASS_S = 1.0
NODES = (NodeId("a"), NodeId("b"))
# Room for one epoch of each of two deployments on a node, and for no third.
MEMORY_BYTES = 12 * 2**30
AUDIT = Audit(Verdict.USABLE, (), even(4 * 2**30, 65_536, 32_768, 30), MEMORY_BYTES)
LOST = Cause("LOST", "its runner was restarted", R.STARTING)
GIVEN_UP = {DeploymentState.CRASH_LOOP, DeploymentState.IMPOSSIBLE}


class Cluster:
    """Runs a core; `faults` until a time, then peace. Raises Broken."""

    def __init__(self, seed: int, core: Core) -> None:
        self.chance = random.Random(seed)
        self.core = core
        adopts = self.chance.random() < 0.7
        self.now_s = 1_000.0
        # The time in which nobody slept, and when each epoch began by it.
        self.awake_s = 0.0
        self.begun: dict[int, float] = {}
        # What somebody has set the scheduler's clock back by.
        self.behind_s = -100_000.0
        self.faults = True
        self.mended = False
        self.tempers: dict[InstanceId, Temper] = {}
        # By deployment: what its files do, and which they are.
        self.files: dict[str, tuple[Temper, int]] = {}
        self.runners = {node: Runner(node, self.chance, adopts, self.tempers, core.judge) for node in NODES}
        self.disk = Disk(self.runners.values())
        # What is in the scheduler's memory.
        self.life = 0
        self.views: dict[NodeId, RunnerView] = {}
        self.audits: dict[tuple[NodeId, str], Audit] = {}
        self.in_flight: set[object] = set()
        self.standings: dict[InstanceId, Standing] = {}
        self.served: frozenset[InstanceId] = frozenset()
        self.ages = Ages()
        # What is on its way: (time, order, call).
        self._order = itertools.count()
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self._next_pass_s = 0.0
        # Actions that change something; checks of files go on for ever.
        self.action_count = 0
        for name in ("m", "n"):
            self.files[name] = (self._temper(), 0)
            self.deploy(name)

    @property
    def wall_s(self) -> float:
        """What the scheduler reads from its clock, and writes down."""
        return self.now_s - self.behind_s

    def _temper(self) -> Temper:
        return Temper.SOUND if self.chance.random() < 0.7 else self.chance.choice(list(Temper))

    def deploy(self, name: str) -> None:
        instance = InstanceId(f"i{next(self._order)}")
        self.disk.deploy(instance, name, self.wall_s)
        self.tempers[instance] = self.files[name][0]

    def later(self, least_s: float, most_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (self.now_s + self.chance.uniform(least_s, most_s), next(self._order), call))

    def run(self, until_s: float) -> None:
        while self.now_s < until_s:
            self.now_s += TICK_S
            self.awake_s += TICK_S
            while self._coming and self._coming[0][0] <= self.now_s:
                heapq.heappop(self._coming)[2]()
            for runner in self.runners.values():
                runner.move(self.now_s)
            if self.faults:
                self._break_something()
            for runner in self.runners.values():
                self._report(runner)
            if self.now_s >= self._next_pass_s:
                self._pass()
            scheduler_laws.of_processes(self.runners.values(), self.disk.wishes.keys(), MEMORY_BYTES)

    # The scheduler: what services/thunderline/scheduler/control.py does around the reconciler.

    def _pass(self) -> None:
        world = World(
            tuple(sorted(self.disk.wishes.values(), key=lambda wish: wish.spec.name)),
            dict(self.views),
            dict(self.audits),
            in_flight=frozenset(self.in_flight),
            served=self.served,
            ages_s=self.ages.look(self.disk.wishes.values(), self.now_s),
        )
        decision = self.core.reconcile(world, self.wall_s, WAITS, self.core.next_attempt)
        self._next_pass_s = self.now_s + min(IDLE_PASS_S, decision.look_again_s)
        self.standings = dict(decision.standings)
        self.served |= {one for one, found in self.standings.items() if found.state is DeploymentState.READY}
        living = {instance: wish.current.number for instance, wish in self.disk.wishes.items() if wish.current}
        lived_s = {instance: self.awake_s - self.begun[number] for instance, number in living.items()}
        scheduler_laws.of_a_decision(world, decision, self.disk.history, self.wall_s, WAITS, MEMORY_BYTES, lived_s)
        for action in decision.actions:
            self.action_count += not isinstance(action, actions.AuditModel)
            self.in_flight |= targets(action)
            self._carry_out(action)

    def _wake(self) -> None:
        """The next tick has a pass: something was heard."""
        self._next_pass_s = 0.0

    def _carry_out(self, action: Action) -> None:
        life = self.life
        open_ = [True]

        def done() -> None:
            """Answered, or given up: whichever comes first."""
            if open_ and life == self.life:
                open_.clear()
                self.in_flight -= targets(action)
                self._wake()

        def here(call: Callable[[], None], most_s: float = 0.3) -> None:
            """Something that the scheduler does by itself: its death ends it."""

            def run() -> None:
                if life == self.life:
                    call()
                    done()

            self.later(0.0, most_s, run)

        match action:
            case actions.AuditModel(node, model):
                digest = str(self.files[model.removeprefix("org/")][1])
                audit = replace(AUDIT, at_s=self.wall_s, digest=digest)
                here(lambda: self.audits.update({(node, model): audit}), most_s=1.0)
            case actions.StartEpoch(instance):
                number = self.disk.begin(action, self.wall_s)
                self.begun[number] = self.awake_s
                self._set_rank(action.node, RankId(instance, number, 0), Goal.PREPARED, done)
            case actions.MakePrepared(rank, node):
                self._set_rank(node, rank, Goal.PREPARED, done)
            case actions.MakeReady(rank, node):
                self._set_rank(node, rank, Goal.READY, done)
            case actions.MakeAbsent(rank, node):
                self._set_rank(node, rank, Goal.ABSENT, done)
            case actions.MarkReady(instance, number):
                here(lambda: self.disk.change(instance, number, ready_s=self.wall_s))
            case actions.EndEpoch(instance, number, cause):
                here(lambda: self.disk.end(instance, number, cause, self.wall_s))
            case actions.Forget(instance):
                here(lambda: self.deploy(self.disk.forget(instance)))
            case actions.FetchModel():
                raise Broken("files that are there are fetched")

    def _set_rank(self, node: NodeId, rank: RankId, goal: Goal, done: Callable[[], None]) -> None:
        """A call: it may never arrive, arrive after its caller died, or have its answer lost."""
        life = self.life
        memory_bytes = self.disk.memory_bytes(rank)

        def arrive() -> None:
            try:
                absent = self.runners[node].command(rank, goal, memory_bytes, self.now_s)
            except ClusterError:
                absent = False
            if self.faults and self.chance.random() < 0.1:
                return

            def answer() -> None:
                if life != self.life:
                    return
                if absent and goal is Goal.PREPARED:
                    self.disk.end(rank.instance, rank.epoch, LOST, self.wall_s)
                undeployed = self.disk.wishes.get(rank.instance)
                if absent and goal is Goal.ABSENT and undeployed is not None and undeployed.undeploying:
                    self.disk.end(rank.instance, rank.epoch, actions.UNDEPLOYED, self.wall_s)
                done()

            self.later(0.0, 0.3, answer)

        lost = self.faults and self.chance.random() < 0.1
        if not lost:
            self.later(0.0, 2.0 if self.faults else 0.2, arrive)
        # The caller's deadline.
        self.later(5.0, 5.0, done)

    # What is heard and what goes wrong.

    def _report(self, runner: Runner) -> None:
        """Its stream of views: in order, late, some of them twice, some with an old state again."""
        if self.now_s < max(runner.up_s, runner.heard_s):
            return
        view = runner.look(self.now_s)
        if self.faults and self.chance.random() < 0.03:
            view = runner.lie(view)
        elif view == self.views.get(runner.node):
            return
        lag_s = self.chance.choice((0.0, 0.0, 0.5)) if self.faults else 0.0
        life, up_s = self.life, runner.up_s

        def arrive() -> None:
            if life == self.life and up_s == runner.up_s and self.now_s >= runner.heard_s:
                self.views[runner.node] = view
                self._wake()

        for _ in range(self.chance.choice((1, 1, 2))):
            self.later(lag_s, lag_s, arrive)
        # What lags holds back what comes after it.
        runner.heard_s = self.now_s + lag_s

    def _break_something(self) -> None:
        kind = self.chance.random()
        runner = self.runners[self.chance.choice(NODES)]
        living = runner.living()
        if kind < 0.010:
            runner.restart(self.now_s)
            self._cut(runner, runner.up_s - self.now_s)
        elif kind < 0.020:
            self._cut(runner, self.chance.uniform(0.5, 5.0))
        elif kind < 0.028:
            self._restart_scheduler()
        elif kind < 0.060 and living:
            runner.crash(self.chance.choice(living), self.now_s)
        elif kind < 0.066 and living:
            runner.hang(self.chance.choice(living), self.now_s)
        elif kind < 0.074 and living:
            runner.lose_stream(self.chance.choice(living), self.now_s)
        elif kind < 0.078:
            instance = self.chance.choice(list(self.disk.wishes))
            self.disk.wishes[instance] = replace(self.disk.wishes[instance], undeploying=True)
            self._wake()
        elif kind < 0.084:
            self.deploy_again(self.chance.choice(list(self.disk.wishes)))
        elif kind < 0.086:
            # The machine slept, or a night passed. Of that the next look takes so much for time.
            self.now_s += self.chance.choice((5.0, 60.0, 700.0))
            self.awake_s += LATE_S
        elif kind < 0.088:
            self.behind_s += self.chance.choice((0.3, 20.0, 3600.0))
        elif kind < 0.110:
            self._answer_a_request()

    def _answer_a_request(self) -> None:
        for instance, standing in self.standings.items():
            wish = self.disk.wishes.get(instance)
            if standing.state is DeploymentState.READY and wish and wish.current and self.chance.random() < 0.5:
                self.disk.change(instance, wish.current.number, answered=True)

    def _cut(self, runner: Runner, for_s: float) -> None:
        """The scheduler cannot hear the runner for a while."""
        runner.heard_s = self.now_s + for_s
        if before := self.views.get(runner.node):
            self.views[runner.node] = replace(before, reachable=False, complete=False)
            self._wake()

    def _restart_scheduler(self) -> None:
        self.life += 1
        self.views, self.audits, self.in_flight, self.served, self.standings = {}, {}, set(), frozenset(), {}
        self.ages = Ages()
        self._wake()
        if not self.core.numbers_survive:
            self.disk.last_epoch = 0

    def deploy_again(self, instance: InstanceId) -> None:
        """An operator's Deploy of what is deployed: it counts unless an epoch lives."""
        wish = self.disk.wishes[instance]
        if not wish.undeploying and wish.current is None:
            self.disk.wishes[instance] = wish.again(self.wall_s)
            self.audits = {key: audit for key, audit in self.audits.items() if key[1] != wish.spec.model}
            self._wake()

    def mend(self) -> None:
        """What was given up is mended: by other files alone, or under the same digest and with a Deploy."""
        self.mended = True
        for instance, wish in self.disk.wishes.items():
            _, version = self.files[wish.spec.name]
            if self.standings[instance].state not in GIVEN_UP:
                continue
            self.tempers[instance] = Temper.SOUND
            if self.chance.random() < 0.5:
                self.files[wish.spec.name] = (Temper.SOUND, version + 1)
            else:
                self.files[wish.spec.name] = (Temper.SOUND, version)
                self.deploy_again(instance)

    def settled(self) -> bool:
        """What is sound serves, by one rank each, or was given up and not mended; nothing else lives or is coming."""
        if any(target[0] != "audit" for target in self.in_flight if isinstance(target, tuple)):
            return False
        wanted = set()
        for instance, wish in self.disk.wishes.items():
            standing = self.standings.get(instance)
            if standing is None or wish.undeploying:
                return False
            if standing.state is DeploymentState.READY and wish.current:
                wanted.add((RankId(instance, wish.current.number, 0), R.READY))
            given_up = standing.state in GIVEN_UP and not self.mended
            if not given_up and (standing.state is not DeploymentState.READY or self._is_broken(instance)):
                return False
        living = {(rank.view.id, rank.view.state) for runner in self.runners.values() for rank in runner.living()}
        return living == wanted

    def _is_broken(self, instance: InstanceId) -> bool:
        return self.tempers[instance] is not Temper.SOUND
