"""Generate: admission, then the runner's messages, passed on as bytes."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import Any

import grpc
from prometheus_client import Counter

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.errors import (
    ClusterError,
    DeadlinePassed,
    Draining,
    InstanceFailed,
    InvalidRequest,
    Superseded,
    has_lost_a_rank,
)
from thunderline.scheduler import routing
from thunderline.scheduler.admission import Admission, Place
from thunderline.scheduler.control import Control
from thunderline.scheduler.routing import Kind
from thunderline.scheduler.runners import CANCEL_DEADLINE_S
from thunderline.v1 import cluster_pb2, scheduler_pb2, scheduler_pb2_grpc

# The answer has to travel back before the caller's own deadline.
DEADLINE_MARGIN_S = 0.2
# A little longer than a cancel's own deadline.
CANCEL_WAIT_S = CANCEL_DEADLINE_S + 0.5
STOPPING = "the scheduler is stopping; ask again in a moment, and the answer goes on"
SERVICE = "thunderline.v1.SchedulerService"
# A request's model that no deployment has: whatever clients send makes one series.
UNKNOWN = "unknown"
REQUEST_ID = re.compile(r"[0-9a-fA-F-]{32,36}")

GENERATIONS = Counter("thunderline_generations_total", "Requests by how they ended.", ["deployment", "outcome"])


class Relay:
    """The handler of Generate, outside the generated code: its responses are bytes already."""

    def __init__(self, control: Control, admission: Admission, deadline_s: float) -> None:
        self._control = control
        self._admission = admission
        self._deadline_s = deadline_s
        # Deployments whose requests are counted.
        self._shown: set[str] = set()
        # The newest call of each request id: only its end cancels what runs at the runner.
        self._newest: dict[str, object] = {}
        # Cancels on their way to a runner: a resume of the same request must not be overtaken by one.
        self._cancels: dict[str, asyncio.Event] = {}
        # One for each stream that waits for its runner's next message.
        self._patience: set[asyncio.Timeout] = set()
        self._stopping = False

    def stop(self) -> None:
        """Breaks every stream, without a cancel: what it was making is parked, and goes on at the next scheduler."""
        if self._stopping:
            return
        self._stopping = True
        self._admission.close(STOPPING)
        for one in self._patience:
            one.reschedule(asyncio.get_running_loop().time())

    async def generate(
        self, request: scheduler_pb2.SchedulerServiceGenerateRequest, context: Any
    ) -> AsyncIterator[bytes]:
        wish = request.generation
        if not REQUEST_ID.fullmatch(wish.request_id):
            raise InvalidRequest("request_id: must be a UUID, made by the client for each request", param="request_id")
        loop = asyncio.get_running_loop()
        given_s = context.time_remaining()
        deadline_s = loop.time() + min(self._deadline_s, given_s or self._deadline_s) - DEADLINE_MARGIN_S
        doors = self._control.doors(wish.model)
        label = doors[0].name if doors else UNKNOWN
        outcome, message = "cancelled", b""
        # Whether nothing of it can be at a runner that only we would end: it was routed, or its holder asks again.
        settled = False
        self._newest[wish.request_id] = context
        try:
            kind = routing.kind(_is_resume(wish), wish.lost_rank_count)
            asked = _asked(wish)
            async with self._admission.admitted(wish.model, kind, deadline_s, asked) as place:
                label = place.deployment
                route = self._control.route(place.instance)
                if route is None:
                    raise InstanceFailed("the instance was lost before the request reached it")
                left_s = await self._time_left(wish.request_id, deadline_s)
                if self._newest.get(wish.request_id) is not context:
                    raise Superseded("a newer call with this request id took over")
                settled, answering = True, route[1]
                async with contextlib.aclosing(self._routed(route, wish, place, left_s, context)) as messages:
                    async for message in messages:
                        yield message
            outcome = "finished"
        except ClusterError as error:
            outcome = error.reason
            settled = settled or error.resumable
            raise
        finally:
            if self._newest.get(wish.request_id) is context:
                del self._newest[wish.request_id]
                if not settled and _is_resume(wish):
                    self._drop_parked(wish)
            if outcome == "cancelled" and _is_last(message):
                # Its client had all it wanted, and did not wait for the end of the stream.
                outcome = "finished"
            if outcome == "finished":
                self._control.spawn(self._control.answered(answering), "answered")
            GENERATIONS.labels(label, outcome).inc()
            self._shown.add(label)

    async def _time_left(self, request_id: str, deadline_s: float) -> float:
        """After the cancel of an earlier call of this request has arrived. Raises DeadlinePassed."""
        if earlier := self._cancels.get(request_id):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_WAIT_S):
                    await earlier.wait()
        left_s = deadline_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise DeadlinePassed("the request's deadline passed while it waited")
        return left_s

    async def _routed(
        self, route: tuple[NodeId, RankId], wish: cluster_pb2.Generation, place: Place, left_s: float, call: object
    ) -> AsyncGenerator[bytes, None]:
        """The messages of one rank. Whoever stops reading early is cancelled there, unless it is us who stop."""
        node, rank = route
        ended, message = False, None
        try:
            async with contextlib.aclosing(self._control.runners.generate(node, rank, wish, left_s)) as messages:
                while (message := await self._next(messages)) is not None:
                    if place.kind is Kind.ALONE and not place.spoke and _has_news(message):
                        self._admission.spoke(place)
                    yield message
            ended = True
        except ClusterError as error:
            ended = True
            if place.kind is Kind.ALONE and not place.spoke and has_lost_a_rank(error):
                # Its holder gives up now: it would be refused here.
                self._control.note_poisoned(place.deployment, wish.request_id, error.message)
            raise
        finally:
            if not ended and not _is_last(message or b"") and self._newest.get(wish.request_id, call) is call:
                # Our caller has left: the runner could not tell that from our death.
                self._begin_cancel({node}, wish.request_id)

    async def _next(self, messages: AsyncGenerator[bytes, None]) -> bytes | None:
        """The next message; None after the last. Raises Draining once the role stops."""
        if self._stopping:
            raise Draining(STOPPING)
        patience = asyncio.timeout(None)
        self._patience.add(patience)
        try:
            async with patience:
                message = await anext(messages, None)
        except TimeoutError:
            if not patience.expired():
                raise
            raise Draining(STOPPING) from None
        finally:
            self._patience.discard(patience)
        return message

    def _drop_parked(self, wish: cluster_pb2.Generation) -> None:
        """Of a resume that left before it had a place: a runner may keep what it has made so far."""
        known = [self._control.named(door.name) for door in self._control.doors(wish.model)]
        self._begin_cancel({one.current.node for one in known if one and one.current}, wish.request_id)

    def _begin_cancel(self, nodes: Collection[NodeId], request_id: str) -> None:
        if self._stopping or request_id in self._cancels:
            # Callers only seem to leave while we stop: gRPC ends their calls. And one cancel is enough.
            return
        self._cancels[request_id] = arrived = asyncio.Event()
        self._control.spawn(self._cancel(nodes, request_id, arrived), "cancel")

    async def _cancel(self, nodes: Collection[NodeId], request_id: str, arrived: asyncio.Event) -> None:
        try:
            await asyncio.gather(*(self._control.runners.cancel(node, request_id) for node in nodes))
        finally:
            arrived.set()
            if self._cancels.get(request_id) is arrived:
                del self._cancels[request_id]

    def tidy(self) -> None:
        """Stops counting for deployments that are gone: names come and go without bound."""
        for name in [name for name in self._shown if name != UNKNOWN and self._control.named(name) is None]:
            self._shown.remove(name)
            GENERATIONS.remove_by_labels({"deployment": name})

    def register(self, service: scheduler_pb2_grpc.SchedulerServiceServicer, server: grpc.aio.Server) -> None:
        """The generated handlers of a service, with ours for Generate: it sends bytes as they are."""
        found = _Handlers()
        scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(service, found)  # type: ignore[arg-type]
        found.by_name["Generate"] = grpc.unary_stream_rpc_method_handler(
            self.generate,
            request_deserializer=scheduler_pb2.SchedulerServiceGenerateRequest.FromString,
            response_serializer=None,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, found.by_name),))


def _is_resume(wish: cluster_pb2.Generation) -> bool:
    return wish.resume or bool(wish.resume_token_ids)


def _asked(wish: cluster_pb2.Generation) -> routing.Request:
    # Its client says who had it: a scheduler that was started anew could not know. With a rank, or its engine, what
    # was parked there is lost too.
    had = InstanceId(wish.instance) if _is_resume(wish) and wish.instance and not wish.lost_rank_count else None
    resume_count = len(wish.resume_token_ids)
    return routing.request(len(wish.prompt_token_ids.ids), wish.ByteSize(), resume_count, wish.max_tokens, had)


def _is_last(message: bytes) -> bool:
    return bool(scheduler_pb2.SchedulerServiceGenerateResponse.FromString(message).delta.finish_reason)


def _has_news(message: bytes) -> bool:
    delta = scheduler_pb2.SchedulerServiceGenerateResponse.FromString(message).delta
    return bool(delta.token_ids or delta.finish_reason)


class _Handlers:
    """What generated code registers, caught."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers again, in a form that cannot be changed."""

    def add_registered_method_handlers(self, name: str, handlers: dict[str, Any]) -> None:
        self.by_name.update(handlers)
