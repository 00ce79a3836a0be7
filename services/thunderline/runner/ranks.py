"""The ranks of this node: each one's process, what it reports, and the goals it was given."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from thunderline.cluster import RankId, StoreId
from thunderline.cluster.errors import ClusterError, EngineReset, InstanceFailed, InvalidRequest
from thunderline.cluster.ranks import RankState, may_follow
from thunderline.process.changes import Changes
from thunderline.process.settings import Settings
from thunderline.runner import fence, ledger, rank_process, text
from thunderline.runner.exit_cause import ExitCause, name_cause
from thunderline.runner.fence import Goal, Verdict
from thunderline.runner.generation import Generation
from thunderline.runner.models import Models
from thunderline.v1 import cluster_pb2, rank_pb2

CHECK_EVERY_S = 0.25
# Ranks that ended are reported until this many newer ones did.
ENDED_COUNT_MAX = 20
# Commands on their way to a rank: inserts are bounded by the request limit, removals by the inserts.
OUTBOX_SIZE_MAX = 4096
FORMER_RANKS_WAIT_S = 10.0

RANK_STATE = Gauge("thunderline_rank_state", "1 for the state that a rank is in.", ["instance", "rank", "state"])
RESTARTS = Counter("thunderline_rank_restarts_total", "Ranks that ended without being told to.", ["cause"])
STEP = Histogram("thunderline_step_seconds", "Engine steps.", buckets=(0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5))
GENERATED = Counter("thunderline_generated_tokens_total", "Tokens that ranks of this node made.")
PREFILLED = Counter("thunderline_prefill_tokens_total", "Prompt tokens that ranks of this node processed.")
RUNNING = Gauge("thunderline_sequences_running", "Sequences that a rank works on or holds for.", ["instance"])
KV = Gauge("thunderline_kv_tokens", "Tokens of KV held, prefix cache included.", ["instance"])

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Rank:
    """One rank. `words` is set once its model's text side has been read."""

    id: RankId
    placement: cluster_pb2.Placement
    folder: Path
    goal: Goal = Goal.PREPARED
    state: RankState = RankState.STARTING
    since_s: float = field(default_factory=time.time)
    entered_s: float = field(default_factory=time.monotonic)
    started_s: float = field(default_factory=time.monotonic)
    process: asyncio.subprocess.Process | None = None
    words: text.ModelText | None = None
    cause: ExitCause | None = None
    load: rank_pb2.StateChange | None = None
    engine: cluster_pb2.EngineFacts | None = None
    step: rank_pb2.StepReport = field(default_factory=rank_pb2.StepReport)
    load_sent: bool = False
    operation_count: int = 0
    key_count: int = 0
    attached: int = 0
    outbox: "asyncio.Queue[rank_pb2.AttachResponse]" = field(
        default_factory=lambda: asyncio.Queue(maxsize=OUTBOX_SIZE_MAX)
    )
    generations: dict[int, Generation] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return self.state is RankState.READY and self.attached > 0

    def send(self, **operation: object) -> None:
        """One numbered operation to the engine. Raises InstanceFailed when its outbox is full."""
        self.operation_count += 1
        wire = rank_pb2.Operation(number=self.operation_count, **operation)  # type: ignore[arg-type]
        try:
            self.outbox.put_nowait(rank_pb2.AttachResponse(operation=wire))
        except asyncio.QueueFull:
            raise InstanceFailed(f"rank {self.id} takes no more operations") from None

    def report(self) -> cluster_pb2.RankReport:
        found = cluster_pb2.RankReport(
            id=cluster_pb2.RankId(instance=self.id.instance, epoch=self.id.epoch, rank=self.id.rank),
            state=self.state.value,  # type: ignore[arg-type]
            pid=self.process.pid if self.process else 0,
            step_count=self.step.step,
            placement=self.placement,
            engine=self.engine,
            running_request_count=self.step.running_count,
            waiting_request_count=self.step.waiting_count,
        )
        found.state_since.FromMilliseconds(int(self.since_s * 1000))
        if self.load is not None:
            found.load.CopyFrom(self.load.load)
        if self.cause is not None:
            found.cause.CopyFrom(_cause_to_proto(self.cause))
        return found


class Ranks:
    """All ranks of this node, newest epochs and recent endings."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        socket: Path,
        command: Callable[[Settings, RankId, Path], list[str]] = rank_process.command,
    ) -> None:
        self._settings = settings
        self._models = models
        self._socket = socket
        self._command = command
        self._ledger_path = settings.home / "runner.json"
        self.fence = ledger.read(self._ledger_path)
        self.changes = Changes()
        self.complete = False
        self.refusal: ClusterError | None = None
        self._ranks: dict[RankId, Rank] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Watches over all ranks until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._wait_for_former_ranks()
            while True:
                await asyncio.sleep(CHECK_EVERY_S)
                for rank in list(self._ranks.values()):
                    self._check_deadline(rank)

    async def _wait_for_former_ranks(self) -> None:
        """Ranks of a former runner end by themselves; until then our view is not complete."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FORMER_RANKS_WAIT_S):
                while await asyncio.to_thread(rank_process.living_maps, self._settings):
                    await asyncio.sleep(0.1)
        self.complete = True
        self.changes.notify()

    def snapshot(self) -> list[cluster_pb2.RankReport]:
        return [rank.report() for _, rank in sorted(self._ranks.items())]

    def find(self, rank: RankId) -> Rank | None:
        return self._ranks.get(rank)

    async def command(self, store: str, id: RankId, goal: Goal, placement: cluster_pb2.Placement) -> Rank | None:
        """Carries out a SetRank; the rank as it is then, None for one that never was.

        Raises the fence's errors, InvalidRequest, and what `refusal` holds.
        """
        if self.refusal is not None:
            raise self.refusal
        wire = placement.SerializeToString(deterministic=True)
        verdict, after = fence.judge(self.fence, StoreId(store), id, goal, wire)
        rank = self._ranks.get(id)
        if verdict is Verdict.START:
            folder = self._models.locate(placement.deployment.model).folder
            if folder is None:
                text_ = f"{placement.deployment.model} is not on this node"
                raise InvalidRequest(text_, param="model")
            # The fence is taken before the first await: two commands of one epoch start one process.
            self.fence = after
            rank = self._ranks[id] = Rank(id, placement, folder)
            await asyncio.to_thread(ledger.write, self._ledger_path, after)
            self._spawn(rank)
        elif after != self.fence:
            self.fence = after
            await asyncio.to_thread(ledger.write, self._ledger_path, after)
        if rank is None:
            return None
        if verdict is Verdict.END:
            self._end(rank)
        elif goal is Goal.READY and rank.goal is Goal.PREPARED:
            rank.goal = Goal.READY
            self.maybe_load(rank)
        return rank

    def _spawn(self, rank: Rank) -> None:
        assert self._tasks is not None, "run() comes first"
        self._tasks.create_task(self._live(rank), name=f"rank {rank.id}")

    async def _live(self, rank: Rank) -> None:
        """From exec to the end of the process."""
        try:
            rank.words = await asyncio.to_thread(text.read, rank.folder)
        except (OSError, ValueError) as error:
            cause = ExitCause("LOAD_FAILED", str(error), RankState.STARTING, 0, 0.0, permanent=True)
            return self._gone(rank, cause)
        try:
            arguments = self._command(self._settings, rank.id, self._socket)
            rank.process = await rank_process.start(self._settings, rank.id, arguments)
        except OSError as error:
            return self._gone(rank, ExitCause("SPAWN_FAILED", str(error), RankState.STARTING, 0, 0.0))
        log.info("rank started", extra={"rank": str(rank.id), "pid": rank.process.pid})
        if rank.goal is Goal.ABSENT:
            self._terminate(rank)
        self.changes.notify()
        status = await rank.process.wait()
        asked = rank.goal is Goal.ABSENT
        words = await asyncio.to_thread(rank_process.last_words, self._settings, rank.id)
        uptime_s = time.monotonic() - rank.started_s
        state = rank.state if rank.cause is None else rank.cause.state
        self._gone(rank, name_cause(status, asked, rank.cause, words, state, rank.process.pid, uptime_s))

    def _gone(self, rank: Rank, cause: ExitCause) -> None:
        """No process is left: routes close, streams end, the map goes."""
        rank.cause = cause
        self._enter(rank, RankState.ABSENT)
        level = logging.INFO if cause.name == "STOPPED" else logging.ERROR
        log.log(level, "rank ended", extra={"rank": str(rank.id), "cause": cause.name, "detail": cause.detail})
        if cause.name != "STOPPED":
            RESTARTS.labels(cause.name).inc()
        self.fail_generations(rank, InstanceFailed(f"rank {rank.id.rank} ended: {cause.name}: {cause.detail}"))
        rank_process.forget(self._settings, rank.id)
        RUNNING.labels(rank.id.instance).set(0)
        KV.labels(rank.id.instance).set(0)
        ended = sorted((one for one in self._ranks.values() if one.state is RankState.ABSENT), key=lambda r: r.since_s)
        for old in ended[:-ENDED_COUNT_MAX]:
            del self._ranks[old.id]

    def _end(self, rank: Rank) -> None:
        if rank.goal is Goal.ABSENT or rank.state is RankState.ABSENT:
            return
        rank.goal = Goal.ABSENT
        if rank.process is not None:
            self._terminate(rank)

    def _terminate(self, rank: Rank) -> None:
        assert self._tasks is not None and rank.process is not None
        self._enter(rank, RankState.STOPPING)
        self.fail_generations(rank, InstanceFailed(f"rank {rank.id.rank} is told to end"))
        self._tasks.create_task(rank_process.end(rank.process, self._settings.limits.rank_stop_grace_s))

    async def end_all(self, grace_s: float) -> None:
        """Ends every process of ours; for Ctrl-C."""
        for rank in self._ranks.values():
            rank.goal = Goal.ABSENT
        living = [rank.process for rank in self._ranks.values() if rank.process and rank.process.returncode is None]
        await asyncio.gather(*(rank_process.end(process, grace_s) for process in living))

    def maybe_load(self, rank: Rank) -> None:
        """Sends Load once: when the rank is PREPARED and its goal is READY, in whichever order that came."""
        if rank.load_sent or rank.goal is not Goal.READY or rank.state is not RankState.PREPARED:
            return
        assert rank.words is not None
        rank.load_sent = True
        load = rank_pb2.Load(placement=rank.placement, folder=str(rank.folder), end_token_ids=rank.words.end_token_ids)
        rank.outbox.put_nowait(rank_pb2.AttachResponse(load=load))

    def on_state(self, rank: Rank, change: rank_pb2.StateChange) -> None:
        """What a rank says of itself."""
        state = RankState(change.state)
        if change.HasField("load"):
            if rank.load is None or change.load.loaded_bytes > rank.load.load.loaded_bytes:
                rank.entered_s = time.monotonic()
            rank.load = change
        if change.HasField("engine"):
            rank.engine = change.engine
        if change.HasField("cause"):
            told = change.cause
            pid = rank.process.pid if rank.process else 0
            uptime_s = time.monotonic() - rank.started_s
            rank.cause = ExitCause(told.name, told.detail, rank.state, pid, uptime_s, told.permanent)
        if state is not rank.state and may_follow(rank.state, state):
            self._enter(rank, state)
        if state is RankState.FAILED:
            self.fail_generations(rank, InstanceFailed(f"rank {rank.id.rank} failed: {change.cause.detail}"))
        self.maybe_load(rank)
        self.changes.notify()

    def on_step(self, rank: Rank, step: rank_pb2.StepReport) -> None:
        """Everything that one engine step gave, to those who wait for it."""
        moved = (step.running_count, step.waiting_count) != (rank.step.running_count, rank.step.waiting_count)
        rank.step = step
        STEP.observe(step.duration_us / 1e6)
        PREFILLED.inc(step.prefill_tokens)
        GENERATED.inc(sum(len(one.token_ids) for one in step.sequences))
        RUNNING.labels(rank.id.instance).set(step.running_count + step.waiting_count)
        KV.labels(rank.id.instance).set(step.kv_tokens)
        for news in step.sequences:
            if generation := rank.generations.get(news.key):
                generation.on_tokens(news)
        if moved:
            self.changes.notify()

    def on_reset(self, rank: Rank, reset: rank_pb2.EngineReset) -> None:
        """The engine dropped these sequences."""
        log.error("engine reset", extra={"rank": str(rank.id), "cause": reset.cause, "sequences": len(reset.keys)})
        for key in reset.keys:
            if generation := rank.generations.get(key):
                generation.fail(EngineReset(f"the engine raised and was made anew: {reset.cause}"))

    def fail_generations(self, rank: Rank, error: ClusterError) -> None:
        for generation in list(rank.generations.values()):
            generation.fail(error)

    def _enter(self, rank: Rank, state: RankState) -> None:
        for one in RankState:
            RANK_STATE.labels(rank.id.instance, rank.id.rank, one.name).set(one is state)
        rank.state, rank.since_s, rank.entered_s = state, time.time(), time.monotonic()
        self.changes.notify()

    def _check_deadline(self, rank: Rank) -> None:
        limits = self._settings.limits
        allowed_s = {
            RankState.STARTING: limits.prepare_s,
            RankState.LOADING: limits.load_stall_s,
            RankState.WARMING: limits.warm_up_s,
        }.get(rank.state)
        if allowed_s is None or time.monotonic() - rank.entered_s < allowed_s or rank.process is None:
            return
        if rank.cause is None:
            detail = f"{rank.state.name} for more than {allowed_s:.0f} s"
            uptime_s = time.monotonic() - rank.started_s
            rank.cause = ExitCause("PHASE_DEADLINE", detail, rank.state, rank.process.pid, uptime_s)
            self._terminate(rank)


def _cause_to_proto(cause: ExitCause) -> cluster_pb2.ExitCause:
    return cluster_pb2.ExitCause(
        name=cause.name,
        detail=cause.detail,
        state=cause.state.value,  # type: ignore[arg-type]
        pid=cause.pid,
        uptime_s=cause.uptime_s,
        permanent=cause.permanent,
    )
