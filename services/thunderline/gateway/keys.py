"""Lets nobody without an API key to /v1, where keys are configured. Health, readiness and metrics stay open."""

import logging
import time
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from thunderline.cluster.api_keys import refusal
from thunderline.gateway import metrics
from thunderline.gateway.openai_errors import http_error

LOG_EVERY_S = 60.0

log = logging.getLogger(__name__)


class AsksForKey:
    """In front of the app. `digests` are those of [gateway] api_keys; a refused key is never logged."""

    def __init__(self, app: ASGIApp, digests: Collection[str]) -> None:
        self._app = app
        self._digests = frozenset(digests)
        self._logged_s = -LOG_EVERY_S
        self._unlogged = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_asked(scope["path"]):
            await self._app(scope, receive, send)
            return
        why = refusal(Headers(scope=scope).get("authorization", ""), self._digests)
        if not why:
            await self._app(scope, receive, send)
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


def _is_asked(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")
