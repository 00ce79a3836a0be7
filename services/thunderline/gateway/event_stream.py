"""A response of server-sent events that notices at once when its client leaves, even while nothing is sent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class EventStream(Response):
    """`first` has come already; `stack` holds what ends with the stream, however it ends."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: bytes,
        events: AsyncIterator[bytes],
        stack: contextlib.AsyncExitStack,
        deadline_s: float,
        ended: Callable[[bool], None],
    ) -> None:
        """`ended` is told whether the client got everything; one that does not read is left at the deadline."""
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        # Its length is not known.
        del self.headers["content-length"]
        self._first = first
        self._events = events
        self._stack = stack
        self._deadline_s = deadline_s
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            sending = asyncio.create_task(self._send(send))
            leaving = asyncio.create_task(disconnected(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED, timeout=self._deadline_s)
                finished = sending.done()
                if finished:
                    sending.result()
            finally:
                for task in (sending, leaving):
                    task.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)
        self._ended(finished)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self._first, "more_body": True})
        async for one in self._events:
            await send({"type": "http.response.body", "body": one, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def disconnected(receive: Receive) -> None:
    """Returns when the client has left. The request's body has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
