"""What a connection may cost outside its requests: uvicorn bounds neither their number, nor a header that does not
end or does not come, nor an answer that nobody reads. A request itself has its own deadline.
"""

import asyncio
import http
import json
import resource
import time
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from thunderline.cluster.errors import Full
from thunderline.cluster.limits import Limits
from thunderline.gateway.bodies import DISCARD_FACTOR
from thunderline.gateway.metrics import CONNECTIONS
from thunderline.gateway.openai_errors import HttpError, http_error, to_http

LOOK_EVERY_S = 0.5
# Beyond the limit so many are told why; more are closed without a word.
REFUSED_COUNT_MAX = 64
# A refused one gets this long to read why: closed at once it would be reset while it still sends.
REFUSED_S = 1.0
# A body of this many times the limit is not even thrown away any more: `bodies` has answered before.
BODY_FACTOR_MAX = 2 * DISCARD_FACTOR
# Files of the process that are no connections.
OTHER_FILE_COUNT = 64


class Connections:
    """All that are open; `protocol` makes one, `watch` closes those that took too long."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._count_max = min(limits.connection_count_max, allowed_count(limits.connection_count_max))
        self._open: set[Connection] = set()

    def protocol(self, **uvicorns: Any) -> "Connection":
        return Connection(self, uvicorns)

    def enter(self, one: "Connection") -> None:
        self._open.add(one)
        CONNECTIONS.set(len(self._open))
        if len(self._open) > self._count_max + REFUSED_COUNT_MAX:
            one.transport.abort()
        elif len(self._open) > self._count_max:
            one.refuse(to_http(Full(f"{self._count_max} connections are open already", retry_after_s=1.0)))

    def leave(self, one: "Connection") -> None:
        self._open.discard(one)
        CONNECTIONS.set(len(self._open))

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = time.monotonic()
            for one in list(self._open):
                one.look(now_s)


class Connection(HttpToolsProtocol):
    """uvicorn's own, which also knows since when it waits for a header, and for its client to read."""

    def __init__(self, connections: Connections, uvicorns: dict[str, Any]) -> None:
        super().__init__(**uvicorns)
        self._connections = connections
        self._limits = connections.limits
        # Of its next request: since when none is under way, and what has come of its header.
        self._idle_since_s: float | None = time.monotonic()
        self._in_header = True
        self._header_bytes = 0
        self._header_count = 0
        self._body_bytes = 0
        self._unsent_since_s: float | None = None
        self._refused_s: float | None = None

    def look(self, now_s: float) -> None:
        """Closes it if it is time. Abruptly, where a close would wait for its client to read."""
        if not self.transport.get_write_buffer_size():
            self._unsent_since_s = None
        elif self._unsent_since_s is None:
            self._unsent_since_s = now_s
        if self._refused_s is not None:
            if now_s - self._refused_s > REFUSED_S:
                self.transport.abort()
        elif self._unsent_since_s is not None:
            if now_s - self._unsent_since_s > self._limits.request_deadline_s:
                self.transport.abort()
        elif self._idle_since_s is not None and now_s - self._idle_since_s > self._limits.connection_idle_s:
            if self._in_header and self._header_bytes:
                self.refuse(_error(408, f"no whole header came within {self._limits.connection_idle_s:g} s"))
            else:
                self.transport.close()

    def refuse(self, error: HttpError) -> None:
        """Says why; what comes from now on is not read as a request."""
        self._refused_s = time.monotonic()
        self._say(error)

    def _say(self, error: HttpError) -> None:
        body = json.dumps(error.body).encode()
        headers = {"content-type": "application/json", "content-length": len(body), "connection": "close"}
        lines = [f"HTTP/1.1 {error.status} {http.HTTPStatus(error.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in {**headers, **error.headers}.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._connections.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused_s is not None:
            return
        was_in_header, headers = self._in_header, self._header_count
        super().data_received(data)
        if self.transport.is_closing():
            return
        if was_in_header and self._in_header:
            # A whole request may have come at once, and it was no header.
            self._header_bytes = self._header_bytes + len(data) if headers == self._header_count else 0
            if self._header_bytes > self._limits.header_bytes_max:
                self.refuse(_error(431, f"the header has more than {self._limits.header_bytes_max} bytes"))
        elif not self._in_header:
            # Trailers among them.
            self._body_bytes += len(data)
            if self._body_bytes > self._limits.body_bytes_max * BODY_FACTOR_MAX:
                self.transport.abort()

    # What the parser and the response call.

    def on_headers_complete(self) -> None:
        self._idle_since_s = None
        self._in_header = False
        self._header_count += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_header = True
        self._header_bytes = self._body_bytes = 0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Another one may have been sent behind it.
        if self.cycle.response_complete:
            self._idle_since_s = time.monotonic()


def _error(status: int, message: str) -> HttpError:
    return http_error(status, "invalid_request_error", message)


def allowed_count(wanted: int) -> int:
    """How many the operating system lets us have: raises our own limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + REFUSED_COUNT_MAX + OTHER_FILE_COUNT
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return files - REFUSED_COUNT_MAX - OTHER_FILE_COUNT
