"""The engine thread: loads, warms up, then steps while there is work and sleeps while there is none."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any

from thunderline.cluster.context import context_length_tokens
from thunderline.cluster.rank_map import Stand
from thunderline.cluster.ranks import RankState
from thunderline.rank import wire
from thunderline.rank.mark import Mark
from thunderline.rank.step_deadline import StepTimes
from thunderline.v1 import cluster_pb2, rank_pb2

# Progress of a load is told this often at most.
PROGRESS_EVERY_S = 0.2
WARM_UP_PROMPTS, WARM_UP_PROMPT_TOKENS, WARM_UP_TOKENS = 2, 24, 2
EXPIRE_EVERY_S = 1.0
# Who waits for what is parked looks again so often.
IDLE_WAIT_S = 0.1
# The engine waits while so many of its reports are unread: at 100 steps a second 10 s of a runner that stands still.
UNSENT_COUNT_MAX = 1024
UNSENT_WAIT_S = 0.02
KV_BUDGET_DEFAULT = 8192
CONTEXT_DEFAULT = 8192

log = logging.getLogger(__name__)

Send = Callable[[rank_pb2.AttachRequest], None]


class Order(Enum):
    """What the process itself wants of its engine; not numbered, since no other rank has to do the same."""

    STOP = auto()
    PARK_ALL = auto()


class Worker:
    """Owns everything of MLX. `send` may be called from its thread; `operations` is filled from others."""

    def __init__(
        self,
        mark: Mark,
        blas: str,
        send: Send,
        unsent_count: Callable[[], int],
        ready: Callable[[], None],
        ended: Callable[[int], None],
        on_step: Callable[[Any], Any] | None = None,
    ) -> None:
        """All are called from the engine thread: `ready` just before READY is said, `ended` with an exit code."""
        self._on_step = on_step
        self._unsent_count = unsent_count
        self._ready = ready
        self._mark = mark
        self._blas = blas
        self._post = send
        # A step's report, which goes as the next step's computation begins.
        self._held: rank_pb2.AttachRequest | None = None
        self._ended = ended
        self._operations: queue.SimpleQueue[rank_pb2.Operation | Order] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.last_operation = 0
        self.facts: cluster_pb2.EngineFacts | None = None

    def start(self, load: rank_pb2.Load) -> None:
        """Begins to load; a second call changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(load,), name="engine", daemon=True)
            self._thread.start()

    def put(self, operation: rank_pb2.Operation) -> None:
        """One more operation; a number that is known already is ignored."""
        if operation.number > self.last_operation:
            self.last_operation = operation.number
            self._operations.put(operation)

    def park_all(self) -> None:
        """Nobody reads any more: everything is kept for the resumes that may come, before any later operation."""
        self._operations.put(Order.PARK_ALL)

    def stop(self, wait_s: float) -> None:
        """Lets the step under way end."""
        self._stopping.set()
        self._operations.put(Order.STOP)
        if self._thread is not None:
            self._thread.join(wait_s)

    def _run(self, load: rank_pb2.Load) -> None:
        from thunderline.rank.load import LoadFailed

        try:
            engine = self._load(load)
        except LoadFailed as error:
            return self._failed("LOAD_FAILED", str(error), 3, permanent=True)
        except BaseException as error:  # the border of the process: whatever it is, it is named, and the process ends
            log.exception("the engine could not start")
            return self._failed("ENGINE_EXCEPTION", f"{type(error).__name__}: {error}", 4)
        try:
            self._serve(engine)
        # The same border, for SystemExit too: a rank whose engine thread is gone must not look READY.
        except BaseException as error:
            log.exception("the engine thread raised")
            self._failed("ENGINE_EXCEPTION", f"{type(error).__name__}: {error}", 4)

    def _load(self, load: rank_pb2.Load) -> Any:
        import mlx.core as mx

        from thunderline.rank.architecture import BATCHINGS, ONE_PROMPT
        from thunderline.rank.engine import Engine
        from thunderline.rank.load import load as load_model

        told_s = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal told_s
            if time.monotonic() - told_s >= PROGRESS_EVERY_S or done == total:
                told_s = time.monotonic()
                self._enter(RankState.LOADING, load=cluster_pb2.LoadProgress(loaded_bytes=done, total_bytes=total))

        self._enter(RankState.LOADING)
        model, config = load_model(Path(load.folder), progress)
        self._enter(RankState.WARMING)
        budget = load.placement.kv_budget_tokens or KV_BUDGET_DEFAULT
        batching = BATCHINGS.get(load.batching, ONE_PROMPT)
        engine = Engine(
            model,
            load.end_token_ids,
            budget,
            batching.batch_size_max,
            batching.prompt_count_max,
            self._on_step,
            on_dispatch=self._send_held,
        )
        _warm_up(engine)
        values = {**config, **(config.get("text_config") or {})}
        self.facts = cluster_pb2.EngineFacts(
            kv_budget_tokens=budget,
            context_length_tokens=context_length_tokens(config) or CONTEXT_DEFAULT,
            vocabulary_size=int(values.get("vocab_size") or model_vocabulary(model)),
            batching=batching.name,
            batching_reason=load.batching_reason,
            blas=self._blas,
            device="gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu",
        )
        how = {"batching": batching.name, "batching_reason": load.batching_reason}
        log.info("ready", extra={"blas": self._blas, "kv_budget_tokens": budget, **how})
        self._ready()
        self._enter(RankState.READY, engine=self.facts)
        return engine

    def _serve(self, engine: Any) -> None:
        step, times = 0, StepTimes()
        while not self._stopping.is_set():
            worked = engine.has_work
            self._take(engine, IDLE_WAIT_S if engine.is_stuck else 0.0 if worked else None)
            if self._stopping.is_set() or not engine.has_work:
                if worked:
                    # The last sequence was removed: nobody would hear of it in a step.
                    self._send(wire.step_report(engine.report()))
                # Also of what needed no step it is seen that it was taken.
                self._mark.step(step, Stand.IDLE)
                continue
            if not engine.is_decoding:
                # Who was at work was removed.
                self._send_held()
            if self._unsent_count() >= UNSENT_COUNT_MAX:
                # Nothing that was generated may be lost on the way: who does not read, waits.
                self._mark.step(step, Stand.IDLE)
                self._stopping.wait(UNSENT_WAIT_S)
                continue
            step += 1
            self._mark.step(step, Stand.COMPUTE, times.allowed_s(engine.prefill_s))
            try:
                report = engine.step()
            except Exception as error:  # containment: an exception in a step may have changed others' tokens
                self._reset(engine, error)
            else:
                times.note(report.duration_s, report.prefill_tokens)
                self._send_held()
                self._held = wire.step_report(report)
            if not engine.is_decoding:
                self._send_held()
            if not engine.has_work:
                self._mark.step(step, Stand.IDLE)
        self._send_held()

    def _take(self, engine: Any, wait_s: float | None) -> None:
        """Applies what has come; waits so long for the first, with None as long as there is nothing to do."""
        if wait_s is None and engine.parked_count:
            # What is parked expires while nothing comes.
            wait_s = EXPIRE_EVERY_S
        try:
            while True:
                operation = self._operations.get(block=wait_s != 0, timeout=wait_s or None)
                wait_s = 0
                if operation is Order.STOP:
                    return
                self._apply(engine, operation)
        except queue.Empty:
            engine.expire()

    def _apply(self, engine: Any, operation: rank_pb2.Operation | Order) -> None:
        try:
            if isinstance(operation, Order):
                engine.park_all()
                return
            match operation.WhichOneof("operation"):
                case "insert":
                    engine.insert(wire.insert(operation.insert))
                case "remove":
                    engine.remove(operation.remove.key)
                case "park":
                    engine.park(operation.park.key)
                case other:
                    log.warning("an operation is not known", extra={"operation": other})
        except Exception as error:  # as in a step
            self._reset(engine, error)

    def _send(self, message: rank_pb2.AttachRequest) -> None:
        self._send_held()
        self._post(message)

    def _send_held(self) -> None:
        """Held, because whoever sends it takes the interpreter for a while: after a step the engine waits for it."""
        if self._held is not None:
            held, self._held = self._held, None
            self._post(held)

    def _reset(self, engine: Any, error: Exception) -> None:
        """Drops everything that the engine holds, and says so."""
        log.error("the engine raised", exc_info=error)
        reset = rank_pb2.EngineReset(keys=engine.drop(), cause=f"{type(error).__name__}: {error}")
        self._send(rank_pb2.AttachRequest(reset=reset))

    def _enter(
        self,
        state: RankState,
        load: cluster_pb2.LoadProgress | None = None,
        engine: cluster_pb2.EngineFacts | None = None,
    ) -> None:
        self._mark.enter(state)
        change = rank_pb2.StateChange(state=state.value, load=load, engine=engine)  # type: ignore[arg-type]
        self._send(rank_pb2.AttachRequest(state=change))

    def _failed(self, name: str, detail: str, code: int, permanent: bool = False) -> None:
        # The map keeps the phase in which it failed.
        cause = cluster_pb2.ExitCause(name=name, detail=detail[:500], permanent=permanent)
        change = rank_pb2.StateChange(state=RankState.FAILED.value, cause=cause)  # type: ignore[arg-type]
        self._send(rank_pb2.AttachRequest(state=change))
        self._ended(code)


def _warm_up(engine: Any) -> None:
    """Two short prompts: what is compiled or allocated at first use is then, and the speed of prefill is known, before
    a client waits for either.
    """
    from thunderline.rank.sampler import Params
    from thunderline.rank.values import Insert

    for key in range(WARM_UP_PROMPTS):
        engine.insert(Insert(key, "", (key,) * WARM_UP_PROMPT_TOKENS, (), Params(), WARM_UP_TOKENS, ignore_eos=True))
        while engine.has_work:
            engine.step()
    # Nobody asks for these again.
    engine.drop()


def model_vocabulary(model: Any) -> int:
    """From the embedding, when the config does not say."""
    from mlx.utils import tree_flatten

    rows = [array.shape[0] for name, array in tree_flatten(model.parameters()) if "embed" in name]
    return max(rows, default=0)
