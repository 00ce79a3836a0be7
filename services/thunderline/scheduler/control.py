"""The loop around the reconciler: gathers the world, decides, carries out, writes down."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.errors import ClusterError, Full, StoreUnavailable
from thunderline.cluster.limits import Limits
from thunderline.cluster.ranks import RankState
from thunderline.process.changes import Changes
from thunderline.process.entry import CannotStart
from thunderline.scheduler import actions, ages, events, measures, reconciler, routing, starting, wire
from thunderline.scheduler.actions import Action
from thunderline.scheduler.adoption import Plan
from thunderline.scheduler.event_log import EventLog
from thunderline.scheduler.reconciler import Waits
from thunderline.scheduler.remembered import Remembered
from thunderline.scheduler.routing import Door
from thunderline.scheduler.runners import Runners, is_stale
from thunderline.scheduler.standings import Standings
from thunderline.scheduler.store import EPOCH_COUNT_MAX, Store
from thunderline.scheduler.values import Cause, DeploymentState, Epoch, Standing, Surroundings, Wish, World
from thunderline.v1 import cluster_pb2, runner_pb2

# A pass without a change, for what only time decides.
IDLE_PASS_S = 1.0
# A command that failed is not repeated within this time.
FAILED_ACTION_S = 0.5
# The runner has not judged the epoch: it may be meant to live all the same.
NOT_REFUSED = {"UNREACHABLE", "DEADLINE", "DRAINING", "WRONG_STORE"}
# The runner's view shows what a command did within this time: it is not sent again before.
VIEW_S = 0.15

log = logging.getLogger(__name__)

T = TypeVar("T")


class Control:
    """Owns the wishes; the only one that writes the store."""

    def __init__(self, store: Store, runners: Runners, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self.store_id = store.store_id
        self.runners = runners
        runners.changed = self._wake
        self.changes = Changes()
        self.events = EventLog(store, self._writer, self.changes)
        self._awake = asyncio.Event()
        self._wishes: dict[InstanceId, Wish] = {}
        self._standings = Standings()
        self._ages = ages.Ages()
        self._in_flight: set[object] = set()
        self._starting: dict[InstanceId, tuple[NodeId, int]] = {}
        self._planner = Remembered()
        self.promised: Mapping[NodeId, int] = {}  # Bytes, as of the last pass.
        # Of one epoch the end and an answer may come at once: each change starts from what the one before has stored.
        self._changing = asyncio.Lock()
        self._answering: set[RankId] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._on_change: list[Callable[[], None]] = []

    def listen(self, call: Callable[[], None]) -> None:
        """Called after every pass."""
        self._on_change.append(call)

    async def load(self) -> None:
        """Reads the store; before `run`. Raises CannotStart."""
        try:
            wishes = await self._stored(self._store.wishes)
            await self.events.load(wishes)
        except StoreUnavailable as error:
            raise CannotStart(error.message) from None
        self._wishes = {wish.instance: wish for wish in wishes}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self.runners.run(), name="runners")
            tasks.create_task(self.events.run(), name="events")
            while True:
                look_again_s = self._pass(tasks)
                try:
                    async with asyncio.timeout(min(IDLE_PASS_S, look_again_s)):
                        await self._awake.wait()
                except TimeoutError:
                    continue
                # Reports come in bursts: one pass for all of them.
                await asyncio.sleep(min(0.02, self._limits.reconcile_s))
                self._awake.clear()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task that outlives its caller (a cancel on behalf of a client that is gone)."""
        assert self._tasks is not None, "run() comes first"
        try:
            self._tasks.create_task(work, name=name)
        except RuntimeError:
            # The role is ending: its group takes nothing more.
            work.close()

    def _wake(self) -> None:
        self._awake.set()

    def _pass(self, tasks: asyncio.TaskGroup) -> float:
        """Seconds until time alone may change something."""
        self.runners.keep({wish.spec.model for wish in self._wishes.values()})
        is_placed = all(wish.current for wish in self._wishes.values())
        world = World(
            wishes=tuple(sorted(self._wishes.values(), key=lambda wish: wish.spec.name)),
            runners={node: runner.view for node, runner in self.runners.nodes.items()},
            audits=self.runners.audits,
            fetches=self.runners.fetches,
            in_flight=frozenset(self._in_flight),
            starting=dict(self._starting),
            served=self._standings.served,
            ages_s=self._ages.look(self._wishes.values(), time.monotonic()),
            around=Surroundings() if is_placed else self.runners.around(starting.PLANNED_NODES_MAX),
        )
        now_s, limits = time.time(), self._limits
        waits = Waits(limits.epoch_wait_min_s, limits.epoch_wait_max_s, 2 * limits.prepare_s)
        decision = reconciler.reconcile(world, now_s, waits, planner=self._planner)
        self.promised = decision.promised
        self._standings.note(decision.standings, self._wishes, self._batching, now_s)
        self.events.look(world, decision.standings, self.runners.facts(), now_s, waits)
        for action in decision.actions:
            self._in_flight |= actions.targets(action)
            if isinstance(action, actions.StartEpoch):
                self._starting[action.instance] = (action.node, action.memory_bytes)
            tasks.create_task(self._carry_out(action), name=str(action))
        self.changes.notify()
        for call in self._on_change:
            call()
        return decision.look_again_s

    def _batching(self, instance: InstanceId) -> str:
        """What the audit allows, as the READY rank says; why it is no more stands in the reason."""
        route = self.route(instance)
        ranks = self.runners.nodes[route[0]].view.ranks if route else ()
        return next((one.batching for one in ranks if route and one.id == route[1]), "") or "unknown"

    async def _carry_out(self, action: Action) -> None:
        try:
            await self._do(action)
        except StoreUnavailable as error:
            # Nothing new starts without the store; what runs goes on.
            log.error("the store cannot be used", extra={"why": error.message, "action": str(action)})
            await asyncio.sleep(IDLE_PASS_S)
        except ClusterError as error:
            log.warning("an action failed", extra={"action": str(action), "why": error.message})
            try:
                if (highest := is_stale(error)) is not None:
                    await self._stored(self._store.raise_epochs_above, highest)
                await self._refused(action, error)
            except StoreUnavailable as unwritten:
                # The next pass meets the same refusal and tries to write it down again.
                log.error("the store cannot be used", extra={"why": unwritten.message, "action": str(action)})
            await asyncio.sleep(FAILED_ACTION_S)
        finally:
            self._in_flight -= actions.targets(action)
            if isinstance(action, actions.StartEpoch):
                self._starting.pop(action.instance, None)
            self._wake()

    async def _refused(self, action: Action, error: ClusterError) -> None:
        """A runner that refuses an epoch for good ends it; one that cannot be reached is asked again."""
        instance = actions.brings_on(action)
        wish = self._wishes.get(instance) if instance is not None else None
        if error.reason in NOT_REFUSED or wish is None or wish.current is None:
            return
        cause = Cause(error.reason, error.message, RankState.STARTING)
        await self._end_epoch(wish.instance, wish.current.number, cause)

    async def _do(self, action: Action) -> None:
        match action:
            case actions.AuditModel(node, model, splits):
                await self.runners.audit(node, model, splits)
            case actions.FetchModel(node, model):
                await self.runners.fetch(node, model)
            case actions.StartEpoch():
                await self._start_epoch(action)
            case actions.MakePrepared(rank, node):
                report = await self._set_rank(node, rank, runner_pb2.RANK_GOAL_PREPARED)
                if report.state == cluster_pb2.RANK_STATE_ABSENT:
                    lost = Cause("LOST", "its runner was restarted under it", RankState.STARTING)
                    cause = wire.rank_view(node, report).cause or lost
                    await self._end_epoch(rank.instance, rank.epoch, cause)
                await asyncio.sleep(VIEW_S)
            case actions.MakeReady(rank, node):
                await self._set_rank(node, rank, runner_pb2.RANK_GOAL_READY)
                await asyncio.sleep(VIEW_S)
            case actions.MakeAbsent(rank, node):
                report = await self.runners.set_rank(node, rank, runner_pb2.RANK_GOAL_ABSENT, None)
                wish = self._wishes.get(rank.instance)
                if report.state == cluster_pb2.RANK_STATE_ABSENT and wish is not None and wish.undeploying:
                    await self._end_epoch(rank.instance, rank.epoch, actions.UNDEPLOYED)
                await asyncio.sleep(VIEW_S)
            case actions.MarkReady(instance, number):
                now_s = time.time()
                await self._change_epoch(instance, number, lambda e: e if e.is_over else replace(e, ready_s=now_s))
            case actions.EndEpoch(instance, number, cause):
                await self._end_epoch(instance, number, cause)
            case actions.Forget(instance):
                await self._forget(instance)

    async def _forget(self, instance: InstanceId) -> None:
        """Its runner forgets it too: from what a runner keeps, deployments are rebuilt when a store is lost."""
        for epoch in self._wishes[instance].epochs[-1:]:
            rank = RankId(instance, epoch.number, 0)
            await self.runners.set_rank(epoch.node, rank, runner_pb2.RANK_GOAL_ABSENT, None, forget=True)
        await self._stored(self._store.forget, instance)
        if wish := self._wishes.pop(instance, None):
            measures.forget(wish.spec.name)

    async def _start_epoch(self, action: actions.StartEpoch) -> None:
        wish = self._wishes[action.instance]
        number = await self._stored(self._store.next_epoch, self.runners.highest_epoch)
        placement = wire.placement(wish, number, action.placement)
        tokens = action.placement.kv_budget_tokens
        epoch = Epoch(number, time.time(), action.node, tokens, action.memory_bytes, digest=action.digest)
        await self._stored(self._store.begin, wish.instance, epoch, placement.SerializeToString(deterministic=True))
        wish = self._wishes[action.instance]
        self._wishes[wish.instance] = replace(wish, epochs=(*wish.epochs, epoch)[-EPOCH_COUNT_MAX:])
        measures.count_epoch(wish.spec.name)
        await self._set_rank(action.node, RankId(wish.instance, number, 0), runner_pb2.RANK_GOAL_PREPARED)

    async def _set_rank(
        self, node: NodeId, rank: RankId, goal: runner_pb2.RankGoal.ValueType
    ) -> cluster_pb2.RankReport:
        placement = cluster_pb2.Placement.FromString(await self._stored(self._store.placement, rank.epoch))
        return await self.runners.set_rank(node, rank, goal, placement)

    async def _end_epoch(self, instance: InstanceId, number: int, cause: Cause) -> None:
        now_s = time.time()
        await self._change_epoch(
            instance, number, lambda epoch: epoch if epoch.is_over else replace(epoch, ended_s=now_s, cause=cause)
        )

    async def answered(self, rank: RankId) -> None:
        """A request of this epoch was answered to its end: the epoch is no crash, also when it has ended meanwhile."""
        epoch = self._epoch(rank.instance, rank.epoch)
        if epoch is None or epoch.answered or rank in self._answering:
            return
        # One at a time: on a disk that takes nothing each answer would wait for those before it.
        self._answering.add(rank)
        try:
            await self._change_epoch(rank.instance, rank.epoch, lambda epoch: replace(epoch, answered=True))
        except StoreUnavailable as error:
            log.error("the store cannot be used", extra={"why": error.message})
        finally:
            self._answering.discard(rank)

    async def _change_epoch(self, instance: InstanceId, number: int, change: Callable[[Epoch], Epoch]) -> None:
        """On disk, then in memory: a pass sees nothing that a restart would not. Raises StoreUnavailable."""
        async with self._changing:
            epoch = self._epoch(instance, number)
            if epoch is None or (changed := change(epoch)) == epoch:
                return
            await self._stored(self._store.update, changed)
            # The wish may have changed meanwhile, or be forgotten.
            if wish := self._wishes.get(instance):
                epochs = tuple(changed if one.number == number else one for one in wish.epochs)
                self._wishes[instance] = replace(wish, epochs=epochs)

    def _epoch(self, instance: InstanceId, number: int) -> Epoch | None:
        wish = self._wishes.get(instance)
        return next((one for one in wish.epochs if one.number == number), None) if wish else None

    async def _stored(self, call: Callable[..., T], *arguments: Any) -> T:
        """One call of the store, on its own thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, call, *arguments)
        except StoreUnavailable as error:
            self.events.store_failed(error)
            raise

    async def put(self, wish: Wish) -> None:
        """Writes a wish, then acts on it. Raises StoreUnavailable."""
        await self._stored(self._store.put, wish)
        known = self._wishes.get(wish.instance)
        # Its epochs may have moved on meanwhile.
        self._wishes[wish.instance] = replace(wish, epochs=known.epochs) if known else wish
        if known and wish.fresh_since_s != known.fresh_since_s:
            self._standings.begin_anew(wish.instance)
        self._wake()

    async def rebuild(self, plan: Plan) -> None:
        """What runners kept for another store: on disk, then in memory. Raises StoreUnavailable, Full."""
        replaced = {("instance", wish.instance) for wish in plan.replaced}
        if replaced & self._in_flight:
            raise Full("a deployment of the same name is being started just now; try again", retry_after_s=IDLE_PASS_S)
        self._in_flight |= replaced
        try:
            await self._stored(self._store.rebuild, plan)
            for wish in plan.replaced:
                self._wishes.pop(wish.instance)
            self._wishes |= {wish.instance: wish for wish, _ in plan.rebuilt}
            self.events.know([wish for wish, _ in plan.rebuilt])
        finally:
            self._in_flight -= replaced
            self._wake()

    def note_poisoned(self, deployment: str, request_id: str, why: str) -> None:
        """A request was refused because ranks died of it: an event."""
        self.events.add(events.poisoned(deployment, request_id, why, time.time()))

    def named(self, name: str) -> Wish | None:
        return next((wish for wish in self._wishes.values() if wish.spec.name == name), None)

    def wishes(self) -> list[Wish]:
        return sorted(self._wishes.values(), key=lambda wish: wish.spec.name)

    def standing(self, wish: Wish) -> tuple[Standing, float]:
        """Where it stands, and since when."""
        return self._standings.of(wish)

    def doors(self, word: str) -> list[Door]:
        """For admission: the deployments that a word means. READY only while the rank is so in its runner's view."""
        return [self._door(wish) for wish in routing.meant(word, self.wishes())]

    def _door(self, wish: Wish) -> Door:
        standing, _ = self.standing(wish)
        if standing.state is DeploymentState.READY and self.route(wish.instance) is None:
            standing = Standing(DeploymentState.REPAIRING, "its process is not there just now", "its process")
        budget_tokens = wish.current.kv_budget_tokens if wish.current else wish.spec.kv_budget_tokens
        return Door(wish.spec.name, wish.instance, standing, budget_tokens)

    def route(self, instance: InstanceId) -> tuple[NodeId, RankId] | None:
        """The rank 0 that takes the instance's requests; None unless all its ranks are READY."""
        wish = self._wishes.get(instance)
        if wish is None or wish.current is None or wish.undeploying:
            return None
        rank = RankId(instance, wish.current.number, 0)
        runner = self.runners.nodes.get(wish.current.node)
        if runner is None or not runner.view.reachable:
            return None
        ready = any(one.id == rank and one.state is RankState.READY and one.attached for one in runner.view.ranks)
        return (wish.current.node, rank) if ready else None

    def close(self) -> None:
        self.events.close()
        self._writer.shutdown(wait=True)
        self._store.close()
