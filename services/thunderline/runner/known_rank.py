"""One rank of this node: what is wanted of it, what it says of itself, who waits for its tokens."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from thunderline.cluster import RankId
from thunderline.cluster.errors import RANK_LOST_FACT, ClusterError, EngineReset, InstanceFailed, RankHung
from thunderline.cluster.ranks import RankState
from thunderline.runner import measures
from thunderline.runner.exit_cause import RANK_HUNG, ExitCause
from thunderline.runner.fence import Goal
from thunderline.runner.generation import Generation
from thunderline.runner.rank_life import LIFE, SAYS, Signal
from thunderline.runner.rank_process import RankProcess
from thunderline.runner.tokenizing import ModelText
from thunderline.v1 import cluster_pb2, rank_pb2

# Commands on their way to a rank: inserts are bounded by the request limit, removals by the inserts.
OUTBOX_SIZE_MAX = 4096
# Whose stream has just broken may have died: its requests are told within this time which of the two it was.
DOUBT_S = 1.0
# A key is the number of its insert, and of the stream that it went down: a broken stream's numbers are used again.
STREAM_SHIFT = 40

# By the number on the wire; a rank of another version may say what we do not know.
_SAID = {state.value: signal for state, signal in SAYS.items()}

log = logging.getLogger(__name__)

Outbox = asyncio.Queue[rank_pb2.AttachResponse | None]


@dataclass(eq=False)
class KnownRank:
    """Belongs to the event loop. `words` is set once its model's text side has been read."""

    id: RankId
    placement: cluster_pb2.Placement
    folder: Path | None
    notify: Callable[[], None]
    goal: Goal = Goal.PREPARED
    state: RankState = RankState.STARTING
    # Wall clock, for people; and monotonic ones, for deadlines.
    since_s: float = field(default_factory=time.time)
    started_s: float = field(default_factory=time.monotonic)
    entered_s: float = field(default_factory=time.monotonic)
    terminated_s: float | None = None
    process: RankProcess | None = None
    # Whether it was started by a runner before this one.
    is_adopted: bool = False
    words: ModelText | None = None
    # What the architecture audit allows; known with the words.
    batching: str = ""
    batching_reason: str = ""
    cause: ExitCause | None = None
    # Whether the cause is ours, not the rank's own word.
    unheard: bool = False
    load: cluster_pb2.LoadProgress | None = None
    engine: cluster_pb2.EngineFacts | None = None
    step: rank_pb2.StepReport = field(default_factory=rank_pb2.StepReport)
    # Of the one Attach stream that counts; None while it is not dialled in.
    outbox: Outbox | None = None
    load_sent: bool = False
    stream_count: int = 0
    # When its stream broke, while its requests do not know yet why.
    broken_s: float | None = None
    operation_count: int = 0
    generations: dict[int, Generation] = field(default_factory=dict)
    # Sequences that a rank may still hold though their clients left while it could not be told.
    orphans: set[int] = field(default_factory=set)

    @property
    def is_ready(self) -> bool:
        return self.state is RankState.READY and self.outbox is not None

    @property
    def is_attached(self) -> bool:
        """Whether it is dialled in; a READY one, whether it takes requests."""
        return self.outbox is not None and (self.words is not None or self.state is not RankState.READY)

    def is_undecided(self, may_dial_in: bool) -> bool:
        """Whether a view without it would still be incomplete: an adopted one that may yet dial in, or even appear."""
        waits = self.is_adopted and self.state is not RankState.ABSENT and self.outbox is None
        return waits and (may_dial_in or self.pid == 0)

    @property
    def is_hung(self) -> bool:
        return self.cause is not None and self.cause.name == RANK_HUNG

    @property
    def is_told_to_end(self) -> bool:
        return self.goal is Goal.ABSENT

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def enter(self, signal: Signal) -> bool:
        """Moves on; whether the state is another one now."""
        after = LIFE[self.state][signal]
        if after is self.state:
            return False
        self.state, self.since_s, self.entered_s = after, time.time(), time.monotonic()
        if after is not RankState.ABSENT:
            measures.show_state(self.id, after)
        self.notify()
        return True

    def fail(self, signal: Signal, name: str, detail: str, permanent: bool = False) -> None:
        """The runner's own verdict. What the rank said first stays."""
        before = self.state
        if self.enter(signal) and self.cause is None:
            self.cause = self.caused(name, detail, before, permanent)
            self.unheard = True
            self.fail_generations(self.lost(f"failed: {name}: {detail}"))

    def lost(self, how: str) -> ClusterError:
        """What its requests are told of its end."""
        message = f"rank {self.id.rank} {how}"
        if self.is_hung:
            return RankHung(message)
        error = InstanceFailed(message)
        if not self.is_told_to_end:
            error.facts[RANK_LOST_FACT] = "1"
        return error

    def caused(self, name: str, detail: str, state: RankState, permanent: bool = False) -> ExitCause:
        return ExitCause(name, detail, state, self.pid, time.monotonic() - self.started_s, permanent)

    # What the scheduler wants.

    def want(self, goal: Goal) -> None:
        """READY is remembered until the rank is PREPARED; ABSENT is final."""
        if self.goal is Goal.ABSENT:
            return
        if goal is Goal.ABSENT:
            self.goal = goal
            self.enter(Signal.TOLD_TO_END)
            self.fail_generations(InstanceFailed(f"rank {self.id.rank} is told to end"))
        elif goal is Goal.READY and self.goal is Goal.PREPARED:
            self.goal = goal
            self.maybe_load()

    def maybe_load(self) -> None:
        """Sends Load once per stream: when the rank is PREPARED, its text is read, and its goal is READY."""
        if self.load_sent or self.outbox is None or self.words is None or self.goal is not Goal.READY:
            return
        if self.state is RankState.PREPARED:
            load = rank_pb2.Load(
                placement=self.placement,
                folder=str(self.folder),
                end_token_ids=self.words.end_token_ids,
                batching=self.batching,
                batching_reason=self.batching_reason,
            )
            self.load_sent = True
            self.outbox.put_nowait(rank_pb2.AttachResponse(load=load))

    # Its stream.

    def attach(self, hello: rank_pb2.Hello) -> Outbox:
        """A stream has said hello; an older one ends. What the rank may have missed is said again."""
        if self.outbox is not None:
            self.detach(self.outbox)
        self._stream_lost()
        self.stream_count += 1
        self.outbox = Outbox(maxsize=OUTBOX_SIZE_MAX)
        self.operation_count = hello.last_operation
        self.load_sent = False
        change = rank_pb2.StateChange(state=hello.state)
        if hello.HasField("engine"):
            change.engine.CopyFrom(hello.engine)
        self.on_state(change)
        for key in sorted(self.orphans):
            self._send(rank_pb2.Operation(remove=rank_pb2.Remove(key=key)))
        self.orphans.clear()
        return self.outbox

    def detach(self, outbox: Outbox) -> None:
        """The stream broke: tokens may be lost between us, so its requests end soon, to be resumed.

        The rank parks all that it runs, if it lives: whether it does is known in a moment.
        """
        if self.outbox is not outbox:
            return
        self.outbox = None
        # Wakes the stream that is no more than a reader of an old queue; a full one is emptied for it.
        while outbox.full():
            outbox.get_nowait()
        outbox.put_nowait(None)
        self.broken_s = time.monotonic()
        self.notify()

    def settle(self, now_s: float) -> None:
        """It has not died of what broke its stream, or not yet."""
        if self.broken_s is not None and now_s - self.broken_s >= DOUBT_S:
            self._stream_lost()

    def _stream_lost(self) -> None:
        self.broken_s = None
        for generation in self.generations.values():
            generation.is_parked = True
        self.fail_generations(InstanceFailed(f"rank {self.id.rank} lost its stream to the runner"))

    def _send(self, operation: rank_pb2.Operation) -> bool:
        """Numbers an operation and queues it; False when it cannot be queued."""
        if self.outbox is None or self.outbox.full():
            return False
        self.operation_count += 1
        operation.number = self.operation_count
        self.outbox.put_nowait(rank_pb2.AttachResponse(operation=operation))
        return True

    # Its sequences.

    def insert(self, insert: rank_pb2.Insert, generation: Generation) -> int:
        """Its key. Raises InstanceFailed when the rank takes nothing more."""
        insert.key = (self.stream_count << STREAM_SHIFT) + self.operation_count + 1
        if not self._send(rank_pb2.Operation(insert=insert)):
            raise InstanceFailed(f"rank {self.id} takes no more operations")
        self.generations[insert.key] = generation
        return insert.key

    def drop(self, key: int) -> None:
        """Ends a sequence within one step. One that has ended is no error."""
        if self.generations.pop(key, None) is None:
            return
        if not self._send(rank_pb2.Operation(remove=rank_pb2.Remove(key=key))):
            self.orphans.add(key)

    def park(self, key: int) -> None:
        """Keeps a sequence whose reader was lost, for the resume that may come."""
        if self.generations.pop(key, None) is None:
            return
        # A rank that is not dialled in parks by itself.
        if self.outbox is not None and not self._send(rank_pb2.Operation(park=rank_pb2.Park(key=key))):
            self.orphans.add(key)

    def forget_parked(self, key: int) -> None:
        """Its client has left after all."""
        if not self._send(rank_pb2.Operation(remove=rank_pb2.Remove(key=key))):
            self.orphans.add(key)

    def fail_generations(self, error: ClusterError) -> None:
        for generation in self.generations.values():
            generation.fail(error)
        self.generations.clear()

    # What it says.

    def on_state(self, change: rank_pb2.StateChange) -> None:
        """What a rank says of itself."""
        if change.HasField("load"):
            if self.load is None or change.load.loaded_bytes > self.load.loaded_bytes:
                self.entered_s = time.monotonic()
            self.load = change.load
        if change.HasField("engine"):
            self.engine = change.engine
        if change.HasField("cause") and self.cause is None:
            told = change.cause
            self.cause = self.caused(told.name, told.detail, self.state, told.permanent)
        said = _SAID.get(change.state)
        if said is not None and self.enter(said) and self.state is RankState.FAILED:
            detail = self.cause.detail if self.cause else "without a word"
            self.fail_generations(self.lost(f"failed: {detail}"))
        self.maybe_load()
        self.notify()

    def on_step(self, step: rank_pb2.StepReport) -> None:
        """Everything that one engine step gave, to those who wait for it."""
        moved = (step.running_count, step.waiting_count) != (self.step.running_count, self.step.waiting_count)
        self.step = step
        measures.show_step(self.id, step)
        for news in step.sequences:
            generation = self.generations.get(news.key)
            if generation is None:
                continue
            generation.on_tokens(news)
            if news.cached_tokens and not generation.wish.resume_token_ids:
                # What a resume is told again was counted the first time.
                measures.FOUND.inc(news.cached_tokens)
            if news.finish_reason:
                del self.generations[news.key]
            elif generation.finished:
                # A stop string: the engine knows only token ids, and would go on.
                self.drop(news.key)
        if moved:
            self.notify()

    def on_reset(self, reset: rank_pb2.EngineReset) -> None:
        """The engine dropped these sequences."""
        log.error("engine reset", extra={"rank": str(self.id), "cause": reset.cause, "sequences": len(reset.keys)})
        for key in reset.keys:
            if generation := self.generations.pop(key, None):
                generation.fail(EngineReset(f"the engine raised and was made anew: {reset.cause}"))
