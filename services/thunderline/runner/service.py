"""The gRPC shell of the runner: translate, decide, translate back."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from thunderline.cluster import NodeId, StoreId
from thunderline.cluster.errors import ClusterError, Full, InvalidRequest, NotOffered
from thunderline.cluster.limits import Limits
from thunderline.process.changes import watch
from thunderline.runner import fetch
from thunderline.runner.fence import Goal
from thunderline.runner.models import Audit, Models, audit_folder
from thunderline.runner.ranks import Ranks
from thunderline.runner.reports import rank_id, report
from thunderline.runner.requests import Requests
from thunderline.v1 import cluster_pb2, runner_pb2, runner_pb2_grpc

WATCH_PACE_S = 0.05
FETCH_AGAIN_S = 5.0
# It becomes a part of file names.
INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")
STORE_ID_LENGTH_MAX = 200
# It is kept on disk for each instance; one of a hundred ranks has 10 kB.
PLACEMENT_BYTES_MAX = 64 * 1024


class RunnerService(runner_pb2_grpc.RunnerServiceServicer):
    def __init__(self, node_id: NodeId, ranks: Ranks, models: Models, limits: Limits) -> None:
        self._node_id = node_id
        self._ranks = ranks
        self._models = models
        self._requests = Requests(ranks, limits)
        self._fetching: set[str] = set()

    async def SetRank(self, request: runner_pb2.SetRankRequest, context: Any) -> runner_pb2.SetRankResponse:
        if not 1 <= len(request.store_id) <= STORE_ID_LENGTH_MAX:
            raise InvalidRequest("store_id is needed", param="store_id")
        if not INSTANCE.fullmatch(request.id.instance) or request.id.epoch < 0 or request.id.rank < 0:
            raise InvalidRequest("id must name an instance, an epoch and a rank", param="id")
        try:
            goal = Goal(request.goal)
        except ValueError:
            raise InvalidRequest("goal must be PREPARED, READY or ABSENT", param="goal") from None
        if goal is not Goal.ABSENT and not request.HasField("placement"):
            raise InvalidRequest(f"goal {goal.name} needs a placement", param="placement")
        if request.placement.ByteSize() > PLACEMENT_BYTES_MAX:
            raise InvalidRequest(f"placement has more than {PLACEMENT_BYTES_MAX} bytes", param="placement")
        rank = await self._ranks.command(request.store_id, rank_id(request.id), goal, request.placement, request.forget)
        if rank is not None:
            return runner_pb2.SetRankResponse(rank=report(rank))
        absent = cluster_pb2.RankReport(id=request.id, state=cluster_pb2.RANK_STATE_ABSENT)
        return runner_pb2.SetRankResponse(rank=absent)

    async def WatchRanks(
        self, request: runner_pb2.WatchRanksRequest, context: Any
    ) -> AsyncIterator[runner_pb2.WatchRanksResponse]:
        def snapshot() -> runner_pb2.WatchRanksResponse:
            return runner_pb2.WatchRanksResponse(
                node_id=self._node_id,
                ranks=[report(rank) for rank in self._ranks.all()],
                complete=self._ranks.complete,
                store_id=self._ranks.fence.store,
                highest_epoch=self._ranks.fence.highest,
            )

        async for response in watch(self._ranks.changes, snapshot, WATCH_PACE_S):
            yield response

    async def AdoptStore(self, request: runner_pb2.AdoptStoreRequest, context: Any) -> runner_pb2.AdoptStoreResponse:
        if len(request.store_id) > STORE_ID_LENGTH_MAX:
            raise InvalidRequest(f"store_id has more than {STORE_ID_LENGTH_MAX} characters", param="store_id")
        if request.store_id:
            keep = {rank_id(one) for one in request.keep}
            await self._ranks.adopt_store(StoreId(request.store_id), StoreId(request.former_store_id), keep)
        return runner_pb2.AdoptStoreResponse(
            store_id=self._ranks.fence.store,
            highest_epoch=self._ranks.fence.highest,
            placements=self._ranks.placements(),
            ranks=[report(rank) for rank in self._ranks.all()],
        )

    async def Generate(
        self, request: runner_pb2.RunnerServiceGenerateRequest, context: Any
    ) -> AsyncIterator[runner_pb2.RunnerServiceGenerateResponse]:
        running = await self._requests.begin(rank_id(request.target), request.generation, context.time_remaining())
        # Also when the client is gone while its last message is being written, where no handler runs.
        context.add_done_callback(lambda _: running.lost())
        try:
            async for delta in running.generation.deltas(running.deadline_s):
                if delta.prompt_token_ids:
                    # The first one.
                    delta.instance = request.target.instance
                yield runner_pb2.RunnerServiceGenerateResponse(delta=delta)
        except ClusterError:
            running.end()
            raise
        finally:
            # After its end nothing is left to lose.
            running.lost()

    async def CancelGeneration(
        self, request: runner_pb2.CancelGenerationRequest, context: Any
    ) -> runner_pb2.CancelGenerationResponse:
        self._requests.cancel(request.request_id)
        return runner_pb2.CancelGenerationResponse()

    async def AuditModel(self, request: runner_pb2.AuditModelRequest, context: Any) -> runner_pb2.AuditModelResponse:
        audit = await self._models.audit(request.model, request.splits, request.look_up)
        return runner_pb2.AuditModelResponse(
            verdict=audit.verdict.value,  # type: ignore[arg-type]
            problems=audit.problems,
            facts=_facts(audit),
            usable_memory_bytes=self._models.usable_memory_bytes,
            folder=str(audit.folder or ""),
            splits=_splits(audit),
        )

    async def FetchModel(
        self, request: runner_pb2.FetchModelRequest, context: Any
    ) -> AsyncIterator[runner_pb2.FetchModelResponse]:
        place = self._models.locate(request.model)
        if place.folder is not None:
            yield runner_pb2.FetchModelResponse(done=True)
            return
        if place.problems:
            raise InvalidRequest(place.problems[0], param="model")
        if request.model in self._fetching:
            raise Full(f"{request.model} is being fetched already", retry_after_s=FETCH_AGAIN_S)
        self._fetching.add(request.model)
        try:
            folder = self._models.fetched_folder(request.model)
            async with contextlib.aclosing(fetch.fetch(request.model, folder)) as steps:
                async for step in steps:
                    yield runner_pb2.FetchModelResponse(
                        fetched_bytes=step.fetched_bytes, total_bytes=step.total_bytes, done=step.done
                    )
        finally:
            self._fetching.discard(request.model)

    async def FollowOperations(
        self, request: runner_pb2.FollowOperationsRequest, context: Any
    ) -> AsyncIterator[runner_pb2.FollowOperationsResponse]:
        raise NotOffered("an instance has one rank: there is nobody to follow")
        yield runner_pb2.FollowOperationsResponse()  # makes it a stream

    async def GatherBytes(self, request: runner_pb2.GatherBytesRequest, context: Any) -> runner_pb2.GatherBytesResponse:
        raise NotOffered("an instance has one rank: there is nothing to gather")

    async def ListModels(self, request: runner_pb2.ListModelsRequest, context: Any) -> runner_pb2.ListModelsResponse:
        listed = dict(await asyncio.to_thread(self._models.listed))
        shown = {audit.folder for audit in listed.values()}
        # A model in a model root is known by who runs it.
        for folder in {rank.folder for rank in self._ranks.all() if rank.folder is not None} - shown:
            listed[str(folder)] = await asyncio.to_thread(audit_folder, folder)
        return runner_pb2.ListModelsResponse(
            node_id=self._node_id,
            models=[
                runner_pb2.Model(name=name, folder=str(audit.folder), facts=_facts(audit), problems=audit.problems)
                for name, audit in sorted(listed.items())
            ],
        )


def _facts(audit: Audit) -> cluster_pb2.ModelFacts | None:
    facts = audit.facts
    if facts is None:
        return None
    return cluster_pb2.ModelFacts(
        architecture=facts.architecture,
        layer_count=facts.layer_count,
        weight_bytes=facts.weight_bytes,
        kv_bytes_per_token=facts.kv_bytes_per_token,
        context_length_tokens=facts.context_length_tokens,
        vocabulary_size=facts.vocabulary_size,
        digest=facts.digest,
        layers=[cluster_pb2.LayerFacts(**asdict(layer)) for layer in facts.layers],
        embedding_bytes=facts.embedding_bytes,
        head_bytes=facts.head_bytes,
        is_tied=facts.is_tied,
        other_bytes=facts.other_bytes,
        load_peak_bytes=facts.load_peak_bytes,
        hidden_size=facts.hidden_size,
        head_count=facts.head_count,
        key_value_head_count=facts.key_value_head_count,
        element_bytes=facts.element_bytes,
        quantization=facts.quantization,
        tensor_divisors=[cluster_pb2.TensorDivisor(name=name, count=count) for name, count in facts.tensor_divisors],
        unknowns=facts.unknowns,
    )


def _splits(audit: Audit) -> cluster_pb2.SplitFacts | None:
    splits = audit.splits
    if splits is None:
        return None
    return cluster_pb2.SplitFacts(
        pipeline=splits.pipeline,
        pipeline_reason=splits.pipeline_reason,
        tensor=splits.tensor,
        tensor_reason=splits.tensor_reason,
        engine=splits.engine,
        tensor_whole_share=splits.tensor_whole_share,
        tensor_kv_whole_share=splits.tensor_kv_whole_share,
    )
