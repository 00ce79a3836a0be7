"""The gRPC shell of the runner: translate, decide, translate back."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from prometheus_client import Counter

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.errors import Draining, Full, InstanceFailed, InvalidRequest, NotOffered, Superseded
from thunderline.process.changes import watch
from thunderline.runner import fetch, validate
from thunderline.runner.fence import Goal
from thunderline.runner.generation import Generation
from thunderline.runner.models import Audit, Models, audit_folder
from thunderline.runner.ranks import Rank, Ranks
from thunderline.v1 import cluster_pb2, rank_pb2, runner_pb2, runner_pb2_grpc

WATCH_PACE_S = 0.05
RETRY_AFTER_S = 1.0

CANCELLED = Counter("thunderline_sequences_cancelled_total", "Sequences dropped before their end.")


class RunnerService(runner_pb2_grpc.RunnerServiceServicer):
    def __init__(self, node_id: NodeId, ranks: Ranks, models: Models, request_count_max: int) -> None:
        self._node_id = node_id
        self._ranks = ranks
        self._models = models
        self._request_count_max = request_count_max
        self._running: dict[str, tuple[Rank, int, Generation]] = {}
        self._fetching: set[str] = set()

    async def SetRank(self, request: runner_pb2.SetRankRequest, context: Any) -> runner_pb2.SetRankResponse:
        rank_id = _rank_id(request.id)
        if not request.store_id or not request.id.instance:
            raise InvalidRequest("store_id and id.instance are needed", param="id")
        try:
            goal = Goal(request.goal)
        except ValueError:
            raise InvalidRequest("goal must be PREPARED, READY or ABSENT", param="goal") from None
        rank = await self._ranks.command(request.store_id, rank_id, goal, request.placement)
        if rank is not None:
            return runner_pb2.SetRankResponse(rank=rank.report())
        absent = cluster_pb2.RankReport(id=request.id, state=cluster_pb2.RANK_STATE_ABSENT)
        return runner_pb2.SetRankResponse(rank=absent)

    async def WatchRanks(
        self, request: runner_pb2.WatchRanksRequest, context: Any
    ) -> AsyncIterator[runner_pb2.WatchRanksResponse]:
        def snapshot() -> runner_pb2.WatchRanksResponse:
            return runner_pb2.WatchRanksResponse(
                node_id=self._node_id,
                ranks=self._ranks.snapshot(),
                complete=self._ranks.complete,
                store_id=self._ranks.fence.store,
            )

        async for response in watch(self._ranks.changes, snapshot, WATCH_PACE_S):
            yield response

    async def Generate(
        self, request: runner_pb2.RunnerServiceGenerateRequest, context: Any
    ) -> AsyncIterator[runner_pb2.RunnerServiceGenerateResponse]:
        wish = request.generation
        rank = self._ranks.find(_rank_id(request.target))
        if self._ranks.refusal is not None:
            raise Draining("the runner is stopping")
        if rank is None or not rank.is_ready or rank.words is None or rank.engine is None:
            raise InstanceFailed(f"rank {_rank_id(request.target)} is not READY here")
        generation = await self._prepare(wish, rank, rank.engine)
        if not rank.is_ready:
            raise InstanceFailed(f"rank {rank.id} is not READY any more")
        if older := self._running.get(wish.request_id):
            older[2].fail(Superseded("a newer call with this request id took over"))
        elif len(rank.generations) >= self._request_count_max:
            raise Full(f"{len(rank.generations)} requests are at this rank", retry_after_s=RETRY_AFTER_S)
        rank.key_count += 1
        key = rank.key_count
        entry = self._running[wish.request_id] = (rank, key, generation)
        rank.generations[key] = generation
        remaining = context.time_remaining()
        deadline_s = None if remaining is None else asyncio.get_running_loop().time() + remaining
        done = False
        try:
            if not generation.finished:
                rank.send(insert=_insert(key, generation))
            async for delta in generation.deltas(deadline_s):
                yield runner_pb2.RunnerServiceGenerateResponse(delta=delta)
            done = True
        finally:
            del rank.generations[key]
            if self._running.get(wish.request_id) is entry:
                del self._running[wish.request_id]
            if rank.is_ready:
                # Unknown keys are no error: a sequence that ended by itself is gone already.
                rank.send(remove=rank_pb2.Remove(key=key))
            if not done:
                CANCELLED.inc()

    async def _prepare(self, wish: cluster_pb2.Generation, rank: Rank, engine: cluster_pb2.EngineFacts) -> Generation:
        """Checks everything, renders, tokenizes. Raises InvalidRequest."""
        words = rank.words
        assert words is not None
        bounds = validate.Bounds(engine.vocabulary_size, engine.context_length_tokens, engine.kv_budget_tokens)
        validate.check_request_id(wish.request_id)
        validate.check_wish(_wish(wish), bounds)
        match wish.WhichOneof("prompt"):
            case "chat":
                param = "messages"
                messages = [_message(message) for message in wish.chat.messages]
                if not messages:
                    raise validate.invalid(param, "at least one message is needed")
                # A template writes its own BOS.
                ids = await words.encode(words.render(messages), add_special_tokens=False)
            case "text":
                param = "prompt"
                ids = await words.encode(wish.text, add_special_tokens=True)
            case "prompt_token_ids":
                param = "prompt"
                ids = list(wish.prompt_token_ids.ids)
            case _:
                raise validate.invalid("prompt", "chat, text or prompt_token_ids is needed")
        validate.check_ids(param, ids, bounds.vocabulary_size)
        validate.check_ids("resume_token_ids", wish.resume_token_ids, bounds.vocabulary_size)
        max_tokens = validate.tokens_to_make(param, len(ids), wish.max_tokens, bounds)
        return Generation(wish, ids, max_tokens, words)

    async def CancelGeneration(
        self, request: runner_pb2.CancelGenerationRequest, context: Any
    ) -> runner_pb2.CancelGenerationResponse:
        if found := self._running.get(request.request_id):
            found[2].fail(Superseded("cancelled by the caller"))
        return runner_pb2.CancelGenerationResponse()

    async def AuditModel(self, request: runner_pb2.AuditModelRequest, context: Any) -> runner_pb2.AuditModelResponse:
        audit = await self._models.audit(request.model)
        return runner_pb2.AuditModelResponse(
            verdict=audit.verdict.value,  # type: ignore[arg-type]
            problems=audit.problems,
            facts=_facts(audit),
            usable_memory_bytes=self._models.usable_memory_bytes,
            folder=str(audit.folder or ""),
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
            raise Full(f"{request.model} is being fetched already", retry_after_s=RETRY_AFTER_S)
        self._fetching.add(request.model)
        try:
            async for progress in fetch.fetch(request.model, self._models.fetched_folder(request.model)):
                yield runner_pb2.FetchModelResponse(
                    fetched_bytes=progress.fetched_bytes, total_bytes=progress.total_bytes, done=progress.done
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
        for rank in self._ranks.snapshot():
            # A model in a model root is known by who runs it.
            held = self._ranks.find(_rank_id(rank.id))
            if held is not None and held.folder not in {audit.folder for audit in listed.values()}:
                listed[str(held.folder)] = await asyncio.to_thread(audit_folder, held.folder)
        return runner_pb2.ListModelsResponse(
            node_id=self._node_id,
            models=[
                runner_pb2.Model(name=name, folder=str(audit.folder), facts=_facts(audit), problems=audit.problems)
                for name, audit in sorted(listed.items())
            ],
        )


def _rank_id(wire: cluster_pb2.RankId) -> RankId:
    return RankId(InstanceId(wire.instance), wire.epoch, wire.rank)


def _message(message: cluster_pb2.ChatMessage) -> Mapping[str, str]:
    found = {"role": message.role, "content": message.content}
    return {**found, "name": message.name} if message.name else found


def _wish(wish: cluster_pb2.Generation) -> validate.Wish:
    sampling = wish.sampling
    return validate.Wish(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=dict(sampling.logit_bias),
        max_tokens=wish.max_tokens,
        stop=tuple(wish.stop),
        top_logprob_count=wish.top_logprob_count,
        logprobs=wish.logprobs,
    )


def _insert(key: int, generation: Generation) -> rank_pb2.Insert:
    wish = generation.wish
    return rank_pb2.Insert(
        key=key,
        request_id=wish.request_id,
        prompt_token_ids=generation.prompt_token_ids,
        resume_token_ids=wish.resume_token_ids,
        sampling=wish.sampling,
        max_tokens=generation.max_tokens,
        logprobs=wish.logprobs,
        top_logprob_count=wish.top_logprob_count,
        ignore_eos=wish.ignore_eos,
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
    )
