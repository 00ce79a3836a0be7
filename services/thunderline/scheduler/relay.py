"""Generate: admission, then the runner's messages, passed on as bytes."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
from prometheus_client import Counter

from thunderline.cluster.errors import ClusterError, DeadlinePassed, InstanceFailed, InvalidRequest
from thunderline.scheduler.admission import Admission
from thunderline.scheduler.control import Control
from thunderline.v1 import scheduler_pb2, scheduler_pb2_grpc

# The answer has to travel back before the caller's own deadline.
DEADLINE_MARGIN_S = 0.2
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

    async def generate(
        self, request: scheduler_pb2.SchedulerServiceGenerateRequest, context: Any
    ) -> AsyncIterator[bytes]:
        wish = request.generation
        if not REQUEST_ID.fullmatch(wish.request_id):
            raise InvalidRequest("request_id: must be a UUID, made by the client for each request", param="request_id")
        loop = asyncio.get_running_loop()
        given_s = context.time_remaining()
        deadline_s = loop.time() + min(self._deadline_s, given_s or self._deadline_s) - DEADLINE_MARGIN_S
        known = self._control.named(wish.model) is not None
        label = wish.model if known else UNKNOWN
        outcome = "cancelled"
        try:
            async with self._admission.admitted(wish.model, bool(wish.resume_token_ids), deadline_s) as instance:
                route = self._control.route(instance)
                if route is None:
                    raise InstanceFailed("the instance was lost before the request reached it")
                node, rank = route
                ended = False
                try:
                    left_s = deadline_s - loop.time()
                    if left_s <= 0:
                        raise DeadlinePassed("the request's deadline passed while it waited")
                    messages = self._control.runners.generate(node, rank, wish, left_s)
                    async with contextlib.aclosing(messages):
                        async for message in messages:
                            yield message
                    ended = True
                except ClusterError:
                    ended = True
                    raise
                finally:
                    if not ended:
                        # Our caller has left: the runner could not tell that from our death.
                        self._control.spawn(self._control.runners.cancel(node, wish.request_id), "cancel")
            outcome = "finished"
            self._control.spawn(self._control.answered(rank), "answered")
        except ClusterError as error:
            outcome = error.reason
            raise
        finally:
            GENERATIONS.labels(label, outcome).inc()
            self._shown.add(label)

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


class _Handlers:
    """What generated code registers, caught."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers again, in a form that cannot be changed."""

    def add_registered_method_handlers(self, name: str, handlers: dict[str, Any]) -> None:
        self.by_name.update(handlers)
