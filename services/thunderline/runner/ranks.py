"""The ranks of this node: who is started, watched over, and ended."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

from google.protobuf.message import DecodeError

from thunderline.cluster import RankId, StoreId
from thunderline.cluster.errors import ClusterError, InstanceFailed, InvalidRequest
from thunderline.cluster.ranks import RankState
from thunderline.process.awake import LATE_S
from thunderline.process.boot import boot_id
from thunderline.process.changes import Changes
from thunderline.process.settings import Settings
from thunderline.runner import adoption, exit_cause, fence, ledger, measures, rank_life, rank_process, tokenizing
from thunderline.runner.adoption import DIAL_IN_S, Finding, rank_of
from thunderline.runner.fence import Goal, Verdict
from thunderline.runner.known_rank import KnownRank
from thunderline.runner.models import Models
from thunderline.runner.models import Verdict as ModelVerdict
from thunderline.runner.rank_life import Push, Signal
from thunderline.runner.rank_process import AdoptedProcess, RankProcess
from thunderline.runner.vigil import Vigil
from thunderline.v1 import cluster_pb2, rank_pb2

# The end of a rank is noticed within this; one that serves breaks its stream when it ends, so it is left in peace.
LOOK_EVERY_S, CALM_LOOK_EVERY_S = 0.05, 1.0
# Ranks that ended are reported until this many newer ones did.
ENDED_COUNT_MAX = 20

# States in which a rank has not been told how its model may be batched.
BEFORE_LOAD = {RankState.STARTING, RankState.PREPARED}

SIGNALS = {Push.TERMINATE: signal.SIGTERM, Push.KILL: signal.SIGKILL}

log = logging.getLogger(__name__)

Command = Callable[[Settings, RankId, Path], list[str]]


class Ranks:
    """All ranks of this node, newest epochs and recent endings. `command` makes the command line of a rank."""

    def __init__(
        self, settings: Settings, models: Models, socket: Path, command: Command = rank_process.command
    ) -> None:
        self._settings = settings
        self._models = models
        self._socket = socket
        self._command = command
        self._ledger_path = settings.home / "runner.json"
        self._commanding = asyncio.Lock()
        self._ranks: dict[RankId, KnownRank] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._grace_s = settings.limits.rank_stop_grace_s
        self.fence = ledger.read_left(self._ledger_path, settings.home)
        self.changes = Changes()
        self.started = asyncio.Event()
        self.complete = False
        # Set while the role stops: what a command gets instead of an answer.
        self.refusal: ClusterError | None = None

    async def run(self) -> None:
        """Adopts what lives, then watches over all ranks until cancelled; their processes stay."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for path in rank_process.maps(self._settings):
                self._adopt(path)
            self._remember_stopped()
            self.started.set()
            tasks.create_task(rank_process.keep_logs_small(self._settings))
            tasks.create_task(Vigil(self.all, self._settings.limits.canary_every_s).run())
            end_s = time.monotonic() + DIAL_IN_S
            while any(rank.is_undecided(time.monotonic() < end_s) for rank in self._ranks.values()):
                await asyncio.sleep(LOOK_EVERY_S)
            self.complete = True
            self.changes.notify()
            await asyncio.Event().wait()

    def _adopt(self, path: Path) -> None:
        """A rank that a runner before us started, as its map and the ledger know it."""
        assert self._tasks is not None, "run() comes first"
        process = AdoptedProcess(path, time.monotonic())
        finding, rank_id = process.look(), rank_of(path.name)
        if rank_id is None or finding is Finding.FOREIGN:
            log.warning("a file among the maps is not ours: it stays", extra={"map": path.name})
            return
        placement = self._placement(rank_id)
        rank = self._ranks[rank_id] = KnownRank(rank_id, placement, self._folder(placement), self.changes.notify)
        rank.process, rank.is_adopted = process, True
        if (mark := process.mark()) is not None:
            rank.state = exit_cause.phase(mark, RankState.STARTING)
            rank.started_s -= max(0.0, time.time() - mark.process_start_s)
            allowed_s = rank_life.allowed_s(rank.state, self._settings.limits)
            rank.entered_s = adoption.entered_s(mark, boot_id(), allowed_s, time.monotonic())
            rank.goal = Goal.PREPARED if rank.state in BEFORE_LOAD else Goal.READY
            rank.step = rank_pb2.StepReport(step=mark.step)
        measures.show_state(rank_id, rank.state)
        log.info("rank found", extra={"rank": str(rank_id), "pid": rank.pid, "finding": finding.name})
        lives = finding is not Finding.ENDED
        if self.fence.has_stopped(rank_id):
            # It outlived our predecessor's last moment, or left its map: it ended, or ends, because it was told to.
            rank.want(Goal.ABSENT)
        elif lives and not placement.HasField("deployment"):
            # Of an epoch that nobody may command any more.
            rank.want(Goal.ABSENT)
        elif lives and rank.folder is None:
            rank.fail(Signal.UNSERVABLE, "LOAD_FAILED", f"{placement.deployment.model} is not on this node any more")
        self._tasks.create_task(self._attend(rank), name=f"rank {rank_id}")

    def _remember_stopped(self) -> None:
        """Who ended with our predecessor: without its cause the scheduler would take it for a crash."""
        for name, started in self.fence.started.items():
            rank_id = RankId(name, started.epoch, 0)
            if started.stopped and rank_id not in self._ranks:
                rank = self._ranks[rank_id] = KnownRank(rank_id, self._placement(rank_id), None, self.changes.notify)
                rank.goal, rank.state = Goal.ABSENT, RankState.ABSENT
                rank.cause = rank.caused("STOPPED", "told to end with its runner", RankState.UNKNOWN)

    def _placement(self, rank: RankId) -> cluster_pb2.Placement:
        """Of the newest epoch, from the ledger; of any other an empty one."""
        started = self.fence.started.get(rank.instance)
        if started is None or started.epoch != rank.epoch:
            return cluster_pb2.Placement()
        try:
            return cluster_pb2.Placement.FromString(started.placement)
        except DecodeError:
            return cluster_pb2.Placement()

    def _folder(self, placement: cluster_pb2.Placement) -> Path | None:
        try:
            return self._models.locate(placement.deployment.model).folder
        except InvalidRequest:
            return None

    def all(self) -> list[KnownRank]:
        return [rank for _, rank in sorted(self._ranks.items())]

    def find(self, rank: RankId) -> KnownRank | None:
        return self._ranks.get(rank)

    async def command(
        self, store: str, rank_id: RankId, goal: Goal, placement: cluster_pb2.Placement, forget: bool = False
    ) -> KnownRank | None:
        """Carries out a SetRank; the rank as it is then, None for one that is not known here (any more).

        Raises the fence's errors, InstanceFailed when the ledger cannot be written, and what `refusal` holds.
        """
        # One at a time: the file on disk is never older than what was started.
        async with self._commanding:
            if self.refusal is not None:
                raise self.refusal
            wire = placement.SerializeToString(deterministic=True)
            verdict, after = fence.judge(self.fence, StoreId(store), rank_id, goal, wire, forget)
            await self._keep(after)
            if verdict is Verdict.START:
                self._start(rank_id, placement)
        rank = self._ranks.get(rank_id)
        if rank is not None:
            rank.want(goal)
        return rank

    async def _keep(self, after: fence.Fence) -> None:
        """On disk, then in memory. Raises InstanceFailed."""
        if after == self.fence:
            return
        try:
            await asyncio.to_thread(ledger.write, self._ledger_path, after)
        except OSError as error:
            raise InstanceFailed(f"{self._ledger_path} cannot be written: {error.strerror}") from None
        self.fence = after

    async def adopt_store(self, store: StoreId, former: StoreId, keep: Collection[RankId]) -> None:
        """Obeys another store from now on: ranks that `keep` names go on, all others end.

        Raises WrongStore, InstanceFailed when the ledger cannot be written, and what `refusal` holds.
        """
        async with self._commanding:
            if self.refusal is not None:
                raise self.refusal
            if store == self.fence.store:
                return
            await self._keep(fence.adopt(self.fence, store, former, keep))
            log.warning("another store is obeyed from now on", extra={"store": store, "former": former})
            for rank in self._living():
                if rank.id not in keep:
                    rank.want(Goal.ABSENT)
        self.changes.notify()

    def placements(self) -> list[cluster_pb2.Placement]:
        """Of the newest epoch of each instance that is kept."""
        newest = [RankId(name, started.epoch, 0) for name, started in sorted(self.fence.started.items())]
        return [placement for rank in newest if (placement := self._placement(rank)).HasField("deployment")]

    def _start(self, rank_id: RankId, placement: cluster_pb2.Placement) -> None:
        assert self._tasks is not None, "run() comes first"
        place = self._models.locate(placement.deployment.model)
        rank = self._ranks[rank_id] = KnownRank(rank_id, placement, place.folder, self.changes.notify)
        measures.show_state(rank_id, rank.state)
        if place.folder is None:
            why = "; ".join(place.problems) or f"{placement.deployment.model} is not on this node"
            rank.fail(Signal.UNSERVABLE, "LOAD_FAILED", why, permanent=True)
            self._gone(rank)
            return
        self._tasks.create_task(self._live(rank), name=f"rank {rank_id}")

    async def _live(self, rank: KnownRank) -> None:
        """From exec to the end of the process."""
        if rank.is_told_to_end:
            rank.cause = rank.caused("STOPPED", "told to end before it was started", RankState.STARTING)
            return self._gone(rank)
        arguments = self._command(self._settings, rank.id, self._socket)
        try:
            rank.process = rank_process.start(self._settings, rank.id, arguments)
        except OSError as error:
            rank.fail(Signal.UNSERVABLE, "SPAWN_FAILED", str(error))
            return self._gone(rank)
        log.info("rank started", extra={"rank": str(rank.id), "pid": rank.pid})
        self.changes.notify()
        await self._attend(rank)

    async def _attend(self, rank: KnownRank) -> None:
        """A process, of ours or adopted, to its end."""
        assert rank.process is not None
        async with asyncio.TaskGroup() as both:
            reading = both.create_task(self._read_words(rank))
            await self._watch_over(rank, rank.process)
            reading.cancel()
        # Read before the map goes.
        mark = rank.process.mark()
        ended = exit_cause.Ended(
            status=rank.process.status,
            asked=rank.is_told_to_end,
            log=await asyncio.to_thread(rank_process.last_printed, self._settings, rank.id),
            state=exit_cause.phase(mark, rank.state),
            pid=rank.pid,
            uptime_s=time.monotonic() - rank.started_s,
            is_overdue=exit_cause.is_overdue(mark, boot_id(), time.monotonic()),
            rebooted=mark is not None and mark.boot_id != boot_id(),
        )
        rank.cause = exit_cause.name_cause(ended, rank.cause)
        self._gone(rank)

    async def _read_words(self, rank: KnownRank) -> None:
        """The model's text side and its audit (remembered, mostly), while the rank imports its engine."""
        if rank.folder is None:
            # Of an adopted rank that will end.
            return
        try:
            words = await asyncio.to_thread(tokenizing.read, rank.folder)
            if rank.state in BEFORE_LOAD:
                audit = await self._models.audit(rank.placement.deployment.model)
                rank.batching, rank.batching_reason = audit.batching, audit.batching_reason
                if audit.verdict is not ModelVerdict.USABLE:
                    # What could not be audited now is run in the one way that is right for all.
                    rank.batching, rank.batching_reason = "one_sequence_at_a_time", "; ".join(audit.problems)[:200]
            rank.words = words
            self.changes.notify()
        # The border to a model's files, which may be anything: a broken model must not take other ranks with it.
        except Exception as error:
            log.warning("a model's text side cannot be read", exc_info=error)
            rank.fail(Signal.UNSERVABLE, "LOAD_FAILED", f"{type(error).__name__}: {error}", permanent=True)
        rank.maybe_load()

    async def _watch_over(self, rank: KnownRank, process: RankProcess) -> None:
        """Until the process ends. A phase that lasts too long fails it, and what should end is pushed."""
        looked_s = time.monotonic()
        while not process.is_over():
            now_s = time.monotonic()
            if now_s - looked_s > LATE_S:
                # The machine slept, or starved us: nobody is late, the phase begins anew.
                rank.entered_s = now_s
            looked_s = now_s
            rank.settle(now_s)
            if rank.outbox is None and (mark := process.mark()) is not None and mark.state is rank.state:
                # It reads on, though it cannot say so.
                rank.entered_s = max(rank.entered_s, mark.entered_s if mark.boot_id == boot_id() else 0.0)
            in_state_s = now_s - rank.entered_s
            allowed_s = rank_life.allowed_s(rank.state, self._settings.limits)
            if allowed_s is not None and in_state_s >= allowed_s:
                detail = f"{rank.state.name} for more than {allowed_s:g} s"
                rank.fail(Signal.DEADLINE, "PHASE_DEADLINE", detail)
            terminated_s = None if rank.terminated_s is None else now_s - rank.terminated_s
            push = rank_life.push(rank.state, in_state_s, terminated_s, rank.unheard, self._grace_s, rank.is_hung)
            if push is not Push.NONE:
                rank.terminated_s = rank.terminated_s or now_s
                process.send(SIGNALS[push])
            await self._pause(rank)

    async def _pause(self, rank: KnownRank) -> None:
        """Until the rank should be looked at again."""
        if rank.state is not RankState.READY or rank.outbox is None:
            return await asyncio.sleep(LOOK_EVERY_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CALM_LOOK_EVERY_S):
                await self.changes.after(self.changes.version)

    def _gone(self, rank: KnownRank) -> None:
        """No process is left: routes close, streams end, the map goes."""
        assert rank.cause is not None
        cause = rank.cause
        rank.enter(Signal.GONE)
        if rank.outbox is not None:
            rank.detach(rank.outbox)
        level = logging.INFO if cause.name == "STOPPED" else logging.ERROR
        log.log(level, "rank ended", extra={"rank": str(rank.id), "cause": cause.name, "detail": cause.detail})
        if cause.name != "STOPPED":
            measures.RESTARTS.labels(cause.name).inc()
        rank.fail_generations(rank.lost(f"ended: {cause.name}: {cause.detail}"))
        # What is told of it for a while is its end; a tokenizer is ten megabytes and more.
        rank.words = None
        measures.ended(rank.id)
        rank_process.forget_map(self._settings, rank.id)
        if not any(one.id.instance == rank.id.instance for one in self._living()):
            measures.forget(rank.id)
        ended = sorted((one for one in self._ranks.values() if one.state is RankState.ABSENT), key=lambda r: r.since_s)
        for old in ended[:-ENDED_COUNT_MAX]:
            del self._ranks[old.id]

    def _living(self) -> list[KnownRank]:
        return [rank for rank in self._ranks.values() if rank.state is not RankState.ABSENT]

    async def end_all(self, grace_s: float) -> None:
        """Ends every process of ours, for Ctrl-C: SIGTERM, the grace, SIGKILL; returns when they are gone."""
        self._grace_s = grace_s
        well = [rank.id for rank in self._living() if rank.cause is None]
        for rank in self._living():
            rank.want(Goal.ABSENT)
        try:
            async with asyncio.timeout(grace_s + 1):
                await self._keep_stopped(well)
                while self._living():
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            log.error("ranks do not end", extra={"ranks": [str(rank.id) for rank in self._living()]})

    async def _keep_stopped(self, ranks: Collection[RankId]) -> None:
        async with self._commanding:
            try:
                await self._keep(fence.stop(self.fence, ranks))
            except InstanceFailed as error:
                log.error("the next runner will not know why its ranks ended", extra={"why": error.message})
