"""A runner in the test's process, behind a real socket: the real fence, and ranks that are values."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from thunderline.cluster import InstanceId, NodeId, RankId, StoreId
from thunderline.cluster.errors import RANK_LOST_FACT, ClusterError, HubUnreachable, InstanceFailed
from thunderline.process.changes import Changes, watch
from thunderline.rpc.server import Server, serving
from thunderline.runner.fence import Fence, Goal, Verdict, adopt, judge
from thunderline.v1 import cluster_pb2, runner_pb2

SERVICE = "thunderline.v1.RunnerService"
GIB = 2**30
PREPARED, LOADING, READY = (
    cluster_pb2.RANK_STATE_PREPARED,
    cluster_pb2.RANK_STATE_LOADING,
    cluster_pb2.RANK_STATE_READY,
)
ABSENT, FAILED = cluster_pb2.RANK_STATE_ABSENT, cluster_pb2.RANK_STATE_FAILED
LOST = InstanceFailed("the rank died", retry_after_s=None, **{RANK_LOST_FACT: "SIGKILL"})
CRASH = cluster_pb2.ExitCause(name="SIGNAL", detail="SIGSEGV", state=LOADING)

# What a Generate sends, given the request and gRPC's context.
Answer = Callable[[cluster_pb2.Generation, Any], AsyncIterator[bytes]]


def message(**delta: Any) -> bytes:
    return runner_pb2.RunnerServiceGenerateResponse(delta=cluster_pb2.GenerationDelta(**delta)).SerializeToString()


PROMPT = message(prompt_token_ids=[1, 2])
FIRST = message(prompt_token_ids=[1, 2], token_ids=[3], text="three")
LAST = message(token_ids=[4], finish_reason=1, usage=cluster_pb2.Usage(prompt_tokens=2, completion_tokens=2))


async def finished(_: cluster_pb2.Generation, __: Any) -> AsyncIterator[bytes]:
    yield FIRST
    yield LAST


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


class LittleRunner:
    """`refuses`, `fails`, `ignores` and `holds_loading` say what goes wrong; `commands` what the scheduler said."""

    def __init__(self, node: NodeId, address: str) -> None:
        self.node = node
        self.address = address
        self.engine = cluster_pb2.EngineFacts(batching="batch", kv_budget_tokens=8_192)
        # The next starts of a rank: each takes one, and fails while LOADING or is refused with it.
        self.fails: list[cluster_pb2.ExitCause] = []
        self.refuses: list[ClusterError] = []
        self.holds_loading = False
        # Up to this epoch ranks stay PREPARED whatever they are told.
        self.ignores = 0
        # The files are on the hub until this is set.
        self.has_files = asyncio.Event()
        self.has_files.set()
        # What it knows of every model; also of those that only the hub has, if it `reaches_hub`.
        self.facts = cluster_pb2.ModelFacts(
            architecture="little",
            layer_count=4,
            weight_bytes=GIB,
            kv_bytes_per_token=1_024,
            context_length_tokens=2_048,
        )
        self.splits = cluster_pb2.SplitFacts(pipeline_reason="nobody has tried", tensor_reason="nobody has tried")
        self.memory_bytes = 8 * GIB
        self.reaches_hub = True
        # Audits are refused with it.
        self.audit_problem: ClusterError | None = None
        self.audits: list[runner_pb2.AuditModelRequest] = []
        self.answer: Answer = finished
        self.commands: list[tuple[str, int]] = []
        self.cancelled: list[str] = []
        self.cancel_seen = asyncio.Event()
        # A cancel takes until this is set.
        self.cancels = asyncio.Event()
        self.cancels.set()
        # Requests whose stream was broken from the scheduler's side.
        self.broken: list[str] = []
        self.begin_afresh()

    def begin_afresh(self) -> None:
        """A new process: it has no ranks. Its fence is on disk."""
        self.fence = getattr(self, "fence", Fence())
        self.ranks: dict[RankId, cluster_pb2.RankReport] = {}
        self.changes = Changes()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        async with serving(self.address, [SERVICE], self._register) as server:
            try:
                yield server
            finally:
                self.changes.stop()

    def _register(self, server: grpc.aio.Server) -> None:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        pb = runner_pb2
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "SetRank": unary(self._set_rank, pb.SetRankRequest.FromString, _bytes),
            "AdoptStore": unary(self._adopt_store, pb.AdoptStoreRequest.FromString, _bytes),
            "AuditModel": unary(self._audit, pb.AuditModelRequest.FromString, _bytes),
            "CancelGeneration": unary(self._cancel, pb.CancelGenerationRequest.FromString, _bytes),
            "FetchModel": stream(self._fetch, pb.FetchModelRequest.FromString, _bytes),
            "WatchRanks": stream(self._watch, pb.WatchRanksRequest.FromString, _bytes),
            # Bytes as they are: a test sends what no serializer would.
            "Generate": stream(self._generate, pb.RunnerServiceGenerateRequest.FromString, None),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    # What happens to a rank.

    def move(self, epoch: int, state: int, cause: cluster_pb2.ExitCause | None = None) -> None:
        rank = next(report for id, report in self.ranks.items() if id.epoch == epoch)
        rank.state = state  # type: ignore[assignment]
        if cause is not None:
            rank.cause.CopyFrom(cause)
        if state == READY:
            rank.engine.CopyFrom(self.engine)
        self.changes.notify()

    def states(self) -> dict[int, int]:
        return {id.epoch: report.state for id, report in self.ranks.items()}

    # Its RPCs.

    async def _set_rank(self, request: runner_pb2.SetRankRequest, _: Any) -> runner_pb2.SetRankResponse:
        goal = Goal(request.goal)
        self.commands.append((goal.name, request.id.epoch))
        rank = RankId(InstanceId(request.id.instance), request.id.epoch, request.id.rank)
        placement = request.placement.SerializeToString(deterministic=True)
        if goal is not Goal.ABSENT and self.refuses:
            raise self.refuses.pop(0)
        store = StoreId(request.store_id)
        verdict, self.fence = judge(self.fence, store, rank, goal, placement, request.forget)
        if verdict is Verdict.START:
            report = cluster_pb2.RankReport(id=request.id, state=PREPARED, placement=request.placement, attached=True)
            self.ranks[rank] = report
        known = self.ranks.get(rank)
        if known is None:
            return runner_pb2.SetRankResponse(rank=cluster_pb2.RankReport(id=request.id, state=ABSENT))
        if goal is Goal.ABSENT and known.state != ABSENT:
            self.move(
                rank.epoch, ABSENT, cluster_pb2.ExitCause(name="STOPPED", detail="told to end", state=known.state)
            )
        elif goal is Goal.READY and known.state == PREPARED:
            self._load(rank.epoch)
        self.changes.notify()
        return runner_pb2.SetRankResponse(rank=known)

    def _load(self, epoch: int) -> None:
        if epoch <= self.ignores:
            return
        self.move(epoch, LOADING)
        if self.fails:
            self.move(epoch, FAILED, self.fails.pop(0))
        elif not self.holds_loading:
            self.move(epoch, READY)

    async def _adopt_store(self, request: runner_pb2.AdoptStoreRequest, _: Any) -> runner_pb2.AdoptStoreResponse:
        if request.store_id:
            if self.refuses:
                raise self.refuses.pop(0)
            keep = {RankId(InstanceId(one.instance), one.epoch, one.rank) for one in request.keep}
            former = StoreId(request.former_store_id)
            self.fence = adopt(self.fence, StoreId(request.store_id), former, keep)
            for rank, report in self.ranks.items():
                if rank not in keep:
                    report.state = ABSENT
            self.changes.notify()
        return runner_pb2.AdoptStoreResponse(
            store_id=self.fence.store,
            highest_epoch=self.fence.highest,
            placements=[cluster_pb2.Placement.FromString(one.placement) for one in self.fence.started.values()],
            ranks=list(self.ranks.values()),
        )

    async def _audit(self, request: runner_pb2.AuditModelRequest, _: Any) -> runner_pb2.AuditModelResponse:
        self.audits.append(request)
        if self.audit_problem is not None:
            raise self.audit_problem
        is_here, verdict = self.has_files.is_set(), runner_pb2.MODEL_VERDICT_FETCHABLE
        if request.look_up and not is_here and not self.reaches_hub:
            raise HubUnreachable("Hugging Face does not answer")
        is_known = is_here or request.look_up
        return runner_pb2.AuditModelResponse(
            verdict=runner_pb2.MODEL_VERDICT_USABLE if is_here else verdict,
            facts=self.facts if is_known else None,
            splits=self.splits if is_known and request.splits else None,
            usable_memory_bytes=self.memory_bytes,
        )

    async def _fetch(self, request: Any, _: Any) -> AsyncIterator[runner_pb2.FetchModelResponse]:
        yield runner_pb2.FetchModelResponse(fetched_bytes=43, total_bytes=100)
        await self.has_files.wait()

    async def _watch(self, request: Any, _: Any) -> AsyncIterator[runner_pb2.WatchRanksResponse]:
        async for view in watch(self.changes, self._view, 0.01):
            yield view

    def _view(self) -> runner_pb2.WatchRanksResponse:
        return runner_pb2.WatchRanksResponse(
            node_id=self.node,
            ranks=list(self.ranks.values()),
            complete=True,
            store_id=self.fence.store,
            highest_epoch=self.fence.highest,
        )

    async def _generate(self, request: runner_pb2.RunnerServiceGenerateRequest, context: Any) -> AsyncIterator[bytes]:
        ended = False
        try:
            async with contextlib.aclosing(self.answer(request.generation, context)) as answers:  # type: ignore[type-var]
                async for answer in answers:
                    yield answer
            ended = True
        except ClusterError:
            ended = True
            raise
        finally:
            if not ended:
                self.broken.append(request.generation.request_id)

    async def _cancel(self, request: runner_pb2.CancelGenerationRequest, _: Any) -> runner_pb2.CancelGenerationResponse:
        self.cancel_seen.set()
        await self.cancels.wait()
        self.cancelled.append(request.request_id)
        return runner_pb2.CancelGenerationResponse()


async def at_once() -> None:
    """Nothing to wait for."""


def first_then(wait: Callable[[], Awaitable[Any]], first: bytes = FIRST) -> Answer:
    """One message, then whatever the test waits for or raises, then the last."""

    async def answer(_: cluster_pb2.Generation, __: Any) -> AsyncIterator[bytes]:
        yield first
        await wait()
        yield LAST

    return answer
