"""Lets nobody without an API key to /v1, where keys are configured; who comes from afar also sees less of the rest."""

import logging
import time
from collections.abc import Collection
from enum import Enum, auto

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from thunderline.cluster.api_keys import refusal
from thunderline.cluster.transport import is_loopback
from thunderline.gateway import metrics
from thunderline.gateway.openai_errors import http_error

LOG_EVERY_S = 60.0
# In the scope of a request that is told whether we are ready, and no more.
BRIEF = "thunderline.brief"

log = logging.getLogger(__name__)


class Without(Enum):
    """What is answered without a key."""

    ALL = auto()
    BRIEF = auto()  # Whether we are ready, not why.
    NOTHING = auto()


def without_key(path: str, is_near: bool, has_open_metrics: bool) -> Without:
    """`is_near`: it comes from loopback. `has_open_metrics`: [node] metrics_bind is wider than that."""
    if path == "/v1" or path.startswith("/v1/"):
        return Without.NOTHING
    if is_near:
        return Without.ALL
    if path == "/metrics" and not has_open_metrics:
        return Without.NOTHING
    return Without.BRIEF if path == "/readyz" else Without.ALL


class AsksForKey:
    """In front of the app. `digests` are those of [gateway] api_keys; a refused key is never logged."""

    def __init__(self, app: ASGIApp, digests: Collection[str], has_open_metrics: bool = False) -> None:
        self._app = app
        self._digests = frozenset(digests)
        self._has_open_metrics = has_open_metrics
        self._logged_s = -LOG_EVERY_S
        self._unlogged = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        allowed = without_key(scope["path"], _is_near(scope.get("client")), self._has_open_metrics)
        why = "" if allowed is Without.ALL else refusal(Headers(scope=scope).get("authorization", ""), self._digests)
        if not why or allowed is Without.BRIEF:
            await self._app({**scope, BRIEF: True} if why else scope, receive, send)
            return
        self._note(why, scope.get("client"))
        metrics.REQUESTS.labels("unknown", "401").inc()
        # As OpenAI's own: clients look at the code.
        error = http_error(401, "invalid_request_error", why, code="invalid_api_key")
        await JSONResponse(error.body, 401, headers={"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _note(self, why: str, peer: tuple[str, int] | None) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s < LOG_EVERY_S:
            self._unlogged += 1
            return
        more = {"more_refusals": self._unlogged} if self._unlogged else {}
        log.warning("refused a request: %s", why, extra={"peer": peer[0] if peer else "", **more})
        self._logged_s, self._unlogged = now_s, 0


def _is_near(peer: tuple[str, int] | None) -> bool:
    # A listener on [::] sees IPv4 so.
    return peer is not None and is_loopback(peer[0].removeprefix("::ffff:"))
