"""The HTTP endpoints: translate, call the scheduler, translate back."""

import asyncio
import contextlib
import logging
import random
import time
import uuid
import weakref
from collections.abc import Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError, Draining, InternalError, InvalidRequest, NotFound, Unreachable
from thunderline.cluster.limits import Limits
from thunderline.gateway import metrics, openai_requests
from thunderline.gateway.answering import Answering
from thunderline.gateway.bodies import BodyTooLarge, json_object
from thunderline.gateway.event_stream import EventStream, disconnected
from thunderline.gateway.keys import BRIEF
from thunderline.gateway.openai_errors import HttpError, http_error, to_http
from thunderline.gateway.openai_requests import Asked
from thunderline.gateway.openai_responses import Answer
from thunderline.v1 import cluster_pb2

# How long what is deployed is taken as known: only labels of metrics depend on it.
NAMES_KNOWN_S = 5.0
LOOK_DEADLINE_S = 3.0
# A name that is not known is looked up no more often than this.
LOOK_AGAIN_S = 0.5
CLIENT_CLOSED = 499
# Beyond the queue wait: its refusal has to travel back.
PATIENCE_MARGIN_S = 2.0
# After the request's deadline its error has to reach the client too.
READ_MARGIN_S = 5.0
# A body that does not come keeps nothing waiting for longer.
BODY_DEADLINE_S = 60.0

log = logging.getLogger(__name__)


class Gateway:
    """`draining` refuses new requests."""

    def __init__(self, scheduler: SchedulerClient, limits: Limits) -> None:
        self._scheduler = scheduler
        self._limits = limits
        self._names: frozenset[str] = frozenset()
        self._looked_s = 0.0
        self._answering: weakref.WeakSet[Answering] = weakref.WeakSet()
        self.draining = False

    def interrupt(self) -> None:
        """Refuses new requests and ends those in flight, each with its typed error."""
        self.draining = True
        for one in list(self._answering):
            one.interrupt(Draining("the gateway is stopping", retry_after_s=1.0))

    def app(self) -> Starlette:
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/v1/models/{name}", self.model),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/metrics", self.metrics),
            ],
            exception_handlers={
                ClusterError: _on_cluster_error,
                BodyTooLarge: _on_large_body,
                HTTPException: _on_http_exception,
                Exception: _on_bug,
            },
        )
        app.router.redirect_slashes = False
        return app

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, openai_requests.chat)

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, openai_requests.completion)

    async def _answer(self, request: Request, parse: Callable[[dict[str, Any], int], Asked]) -> Response:
        label = "unknown"
        try:
            if self.draining:
                raise Draining("the gateway is stopping", retry_after_s=1.0)
            body = await json_object(request, self._limits.body_bytes_max, BODY_DEADLINE_S)
            asked = _parsed(parse, body)
            label = await self._label(asked.model)
            answer = Answer(
                id=f"{'chatcmpl' if asked.is_chat else 'cmpl'}-{uuid.uuid4().hex}",
                created_s=int(time.time()),
                model=asked.model,
                is_chat=asked.is_chat,
                choices_per_prompt=asked.choices_per_prompt,
            )
            answering = Answering(self._scheduler, asked, answer, label, self._limits.request_deadline_s)
            self._answering.add(answering)
            return await (self._stream if asked.stream else self._whole)(request, answering, answer, label)
        except ClusterError as error:
            return _counted(label, _error_response(to_http(error)))
        except BodyTooLarge as error:
            return _counted(label, _error_response(http_error(413, "invalid_request_error", str(error))))
        except ClientDisconnect:
            metrics.DISCONNECTS.inc()
            return _counted(label, Response(status_code=CLIENT_CLOSED))

    async def _whole(self, request: Request, answering: Answering, answer: Answer, label: str) -> Response:
        """Everything at once; a client that leaves meanwhile cancels it."""
        with metrics.IN_FLIGHT.track_inprogress():
            async with answering:
                reading = asyncio.create_task(_read_all(answering, self._limits.request_deadline_s))
                leaving = asyncio.create_task(disconnected(request.receive))
                try:
                    await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
                    if not reading.done():
                        raise ClientDisconnect
                    reading.result()
                finally:
                    for task in (reading, leaving):
                        task.cancel()
                    await asyncio.gather(reading, leaving, return_exceptions=True)
            return _counted(label, JSONResponse(answer.whole(answering.choices)))

    async def _stream(self, request: Request, answering: Answering, answer: Answer, label: str) -> Response:
        """The response begins with its first event: what fails before that has a status of its own."""
        metrics.IN_FLIGHT.inc()
        stack = contextlib.AsyncExitStack()
        stack.callback(metrics.IN_FLIGHT.dec)
        try:
            await stack.enter_async_context(answering)
            events = await stack.enter_async_context(
                contextlib.aclosing(
                    answering.events(self._limits.sse_keep_alive_s, self._limits.queue_wait_s + PATIENCE_MARGIN_S)
                )  # type: ignore[type-var]
            )
            leaving = asyncio.create_task(disconnected(request.receive))
            first = asyncio.ensure_future(anext(events))
            stack.push_async_callback(_cancelled, leaving, first)
            await asyncio.wait({first, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                raise ClientDisconnect
            beginning = first.result()
            leaving.cancel()
        except BaseException:
            await stack.aclose()
            raise

        def ended(finished: bool) -> None:
            failed = answering.failed_with
            if not finished:
                metrics.DISCONNECTS.inc()
            code = failed.status if failed else 200 if finished else CLIENT_CLOSED
            metrics.REQUESTS.labels(label, str(code)).inc()

        return EventStream(beginning, events, stack, self._limits.request_deadline_s + READ_MARGIN_S, ended)

    async def keep_names(self) -> None:
        """Until cancelled: the deployments' names, as labels; they are looked up, not taken from requests."""
        while True:
            with contextlib.suppress(ClusterError):
                self._names = frozenset(one.spec.name for one in await self._deployments())
            await asyncio.sleep(NAMES_KNOWN_S)

    async def _label(self, model: str) -> str:
        """The model as a label, if it is a deployment's name: what clients make up is no label."""
        if model not in self._names and time.monotonic() - self._looked_s > LOOK_AGAIN_S:
            self._looked_s = time.monotonic()
            with contextlib.suppress(ClusterError):
                await self._deployments()
        return model if model in self._names else "unknown"

    async def _deployments(self) -> list[cluster_pb2.Deployment]:
        try:
            async with asyncio.timeout(LOOK_DEADLINE_S):
                found = await self._scheduler.deployments()
        except TimeoutError:
            raise Unreachable("the scheduler does not answer", retry_after_s=1.0) from None
        self._names = frozenset(one.spec.name for one in found)
        return found

    async def models(self, request: Request) -> Response:
        ready = [one for one in await self._deployments() if one.state == cluster_pb2.DEPLOYMENT_STATE_READY]
        return JSONResponse({"object": "list", "data": [_model(one) for one in ready]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        for one in await self._deployments():
            if one.spec.name == name and one.state == cluster_pb2.DEPLOYMENT_STATE_READY:
                return JSONResponse(_model(one))
        raise NotFound(f"the model {name!r} is not being served", param="model")

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """200 when a model can answer; else every deployment's own sentence, for who may know."""
        is_brief = request.scope.get(BRIEF, False)
        try:
            found = await self._deployments()
        except ClusterError as error:
            if is_brief:
                return JSONResponse({"ready": False}, 503)
            return JSONResponse({"ready": False, "reason": f"the scheduler cannot be reached: {error}"}, 503)
        ready = not self.draining and any(one.state == cluster_pb2.DEPLOYMENT_STATE_READY for one in found)
        if is_brief:
            return JSONResponse({"ready": ready}, 200 if ready else 503)
        body = {"ready": ready, "deployments": [_standing(one) for one in found]}
        if not ready:
            body["reason"] = "nothing is deployed" if not found else "no deployment is READY"
        return JSONResponse(body, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _read_all(answering: Answering, silence_s: float) -> None:
    async for _ in answering.pieces(silence_s):
        pass


async def _cancelled(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _parsed(parse: Callable[[dict[str, Any], int], Asked], body: dict[str, Any]) -> Asked:
    try:
        return parse(body, random.randrange(2**63))
    except UnicodeEncodeError:
        raise InvalidRequest("a string holds half of a surrogate pair, which is no text") from None


def _counted(label: str, response: Response) -> Response:
    metrics.REQUESTS.labels(label, str(response.status_code)).inc()
    return response


def _error_response(error: HttpError) -> Response:
    return JSONResponse(error.body, error.status, headers=dict(error.headers))


async def _on_cluster_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClusterError)
    return _error_response(to_http(error))


async def _on_large_body(request: Request, error: Exception) -> Response:
    return _error_response(http_error(413, "invalid_request_error", str(error)))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not allowed here"}
    message = text.get(error.status_code, error.detail)
    return _error_response(http_error(error.status_code, "invalid_request_error", message, headers=error.headers))


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("a request failed by a bug", exc_info=error)
    return _error_response(to_http(InternalError(f"{type(error).__name__}: {error}")))


def _model(one: cluster_pb2.Deployment) -> dict[str, Any]:
    return {"id": one.spec.name, "object": "model", "created": one.state_since.seconds, "owned_by": "thunderline"}


def _standing(one: cluster_pb2.Deployment) -> dict[str, Any]:
    return {
        "name": one.spec.name,
        "state": cluster_pb2.DeploymentState.Name(one.state).removeprefix("DEPLOYMENT_STATE_"),
        "since": one.state_since.ToJsonString(),
        "reason": one.reason,
        "waits_for": one.waits_for,
    }
