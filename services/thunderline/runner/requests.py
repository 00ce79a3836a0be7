"""The requests that run at this node's ranks: begun, taken over, cancelled, ended."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from thunderline.cluster import RankId
from thunderline.cluster.errors import DeadlinePassed, Draining, Full, InstanceFailed, Superseded
from thunderline.cluster.limits import Limits
from thunderline.runner import measures, validate
from thunderline.runner.generation import Generation
from thunderline.runner.known_rank import KnownRank
from thunderline.runner.ranks import Ranks
from thunderline.runner.tokenizing import ModelText
from thunderline.v1 import cluster_pb2, rank_pb2

RETRY_AFTER_S = 1.0
# A resume is let in beyond the bound, up to this many times it: it waits at the rank, before all new requests.
RESUME_SHARE = 2
# gRPC's clock and the loop's differ by this at most.
DEADLINE_SLACK_S = 0.1
# As long as the rank keeps them, and so many.
PARKED_S, PARKED_COUNT_MAX = 60.0, 256


@dataclass(eq=False)
class Running:
    """One request at its rank. `key` is 0 for one that needs no step; `deadline_s` is of the event loop's clock."""

    requests: "Requests"
    rank: KnownRank
    key: int
    generation: Generation
    deadline_s: float

    def end(self) -> None:
        """Nobody reads any more: the sequence is dropped within one step. Twice is no error."""
        is_newest = self.requests.forget(self)
        if self.key in self.rank.generations:
            measures.CANCELLED.inc()
            self.rank.drop(self.key)
        elif self.generation.is_parked and is_newest:
            self.requests.remember_parked(self)

    def lost(self) -> None:
        """The stream broke, and nobody has said why: the scheduler or its way to us may have died (protocols F).

        At its deadline gRPC breaks it by itself: nobody comes back for that one.
        """
        if asyncio.get_running_loop().time() >= self.deadline_s - DEADLINE_SLACK_S:
            return self.end()
        if self.key in self.rank.generations:
            self.requests.remember_parked(self)
            self.rank.park(self.key)
        self.requests.forget(self)


class Requests:
    def __init__(self, ranks: Ranks, limits: Limits) -> None:
        self._ranks = ranks
        self._limits = limits
        self._running: dict[str, Running] = {}
        # Lost ones, oldest first: a cancel may come after the break that it belongs to.
        self._parked: OrderedDict[str, Running] = OrderedDict()

    async def begin(self, target: RankId, wish: cluster_pb2.Generation, remaining_s: float | None) -> Running:
        """Checks, renders, tokenizes, and gives the sequence to its rank; an older call of this request id ends.

        Raises InvalidRequest, ContextLengthExceeded, InstanceFailed, Full, Draining, DeadlinePassed.
        """
        loop = asyncio.get_running_loop()
        # A caller without a deadline gets ours: no request runs for ever.
        deadline_s = loop.time() + (self._limits.request_deadline_s if remaining_s is None else remaining_s)
        rank, words, bounds = self._ready(target)
        generation = await _prepared(wish, words, bounds)
        # Tokenizing a long prompt takes its time.
        rank, _, _ = self._ready(target)
        if loop.time() >= deadline_s:
            raise DeadlinePassed("the request's deadline passed before it reached the engine")
        if older := self._running.get(wish.request_id):
            older.generation.fail(Superseded("a newer call with this request id took over"))
            # What it has is the newer one's, if that goes on with it.
            older.lost() if is_resume(wish) else older.end()
        elif len(rank.generations) >= self._limits.rank_request_count_max * (RESUME_SHARE if is_resume(wish) else 1):
            raise Full(f"{len(rank.generations)} requests are at this rank", retry_after_s=RETRY_AFTER_S)
        parked = self._parked.pop(wish.request_id, None)
        key = 0 if generation.finished else rank.insert(_insert(generation), generation)
        if parked and (key == 0 or parked.rank is not rank):
            parked.rank.forget_parked(parked.key)
        running = Running(self, rank, key, generation, deadline_s)
        self._running[wish.request_id] = running
        return running

    def _ready(self, target: RankId) -> tuple[KnownRank, ModelText, validate.Bounds]:
        """Raises Draining, InstanceFailed."""
        if self._ranks.refusal is not None:
            raise Draining("the runner is stopping")
        rank = self._ranks.find(target)
        if rank is None or not rank.is_ready or rank.words is None or rank.engine is None:
            raise InstanceFailed(f"rank {target} is not READY here")
        engine = rank.engine
        bounds = validate.Bounds(engine.vocabulary_size, engine.context_length_tokens, engine.kv_budget_tokens)
        return rank, rank.words, bounds

    def cancel(self, request_id: str) -> None:
        """An unknown id is no error."""
        if running := self._running.get(request_id):
            running.generation.fail(Superseded("cancelled by CancelGeneration"))
            running.end()
        # Its stream to the rank may have broken before its caller left.
        if parked := self._parked.pop(request_id, None):
            parked.rank.forget_parked(parked.key)

    def remember_parked(self, running: Running) -> None:
        self._parked[running.generation.wish.request_id] = running
        while len(self._parked) > PARKED_COUNT_MAX:
            self._parked.popitem(last=False)
        asyncio.get_running_loop().call_later(PARKED_S, self._expire, running)

    def _expire(self, running: Running) -> None:
        if self._parked.get(running.generation.wish.request_id) is running:
            del self._parked[running.generation.wish.request_id]

    def forget(self, running: Running) -> bool:
        """A newer call with the same id stays; whether there is none."""
        newest = self._running.get(running.generation.wish.request_id, running)
        if newest is running:
            self._running.pop(running.generation.wish.request_id, None)
        return newest is running


def is_resume(wish: cluster_pb2.Generation) -> bool:
    """No new request: a rank has had it."""
    return wish.resume or bool(wish.resume_token_ids)


async def _prepared(wish: cluster_pb2.Generation, words: ModelText, bounds: validate.Bounds) -> Generation:
    """Everything checked, before anything of it reaches the rank. Raises InvalidRequest, ContextLengthExceeded."""
    validate.check_request_id(wish.request_id)
    validate.check_wish(_wish(wish), bounds)
    match wish.WhichOneof("prompt"):
        case "chat":
            param = "messages"
            if not wish.chat.messages:
                raise validate.invalid(param, "at least one message is needed")
            ids = await words.encode_chat([_message(message) for message in wish.chat.messages])
        case "text":
            param = "prompt"
            # An empty one stays empty: what the tokenizer adds is nothing to answer.
            ids = await words.encode_prompt(wish.text) if wish.text else []
        case "prompt_token_ids":
            param = "prompt"
            ids = list(wish.prompt_token_ids.ids)
        case _:
            raise validate.invalid("prompt", "chat, text or prompt_token_ids is needed")
    validate.check_ids(param, ids, bounds.vocabulary_size)
    validate.check_ids("resume_token_ids", wish.resume_token_ids, bounds.vocabulary_size)
    max_tokens = validate.tokens_to_make(param, len(ids), wish.max_tokens, bounds)
    return Generation(wish, ids, max_tokens, words)


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


def _insert(generation: Generation) -> rank_pb2.Insert:
    wish = generation.wish
    return rank_pb2.Insert(
        request_id=wish.request_id,
        prompt_token_ids=generation.prompt_token_ids,
        resume_token_ids=wish.resume_token_ids,
        sampling=wish.sampling,
        max_tokens=generation.max_tokens,
        logprobs=wish.logprobs,
        top_logprob_count=wish.top_logprob_count,
        ignore_eos=wish.ignore_eos,
        resume=is_resume(wish),
    )
