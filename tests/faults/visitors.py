"""A crowd at the HTTP door: clients that read to the end, that leave at some point, that read a byte a second."""

import asyncio
import contextlib
import json
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from installation import DEMO

TOKENS = 32
# Whoever leaves has read no more than this: it leaves before the end. One in the queue leaves when it is its turn.
EVENTS_MAX = 16
# A narrow window and small segments: what is sent and not read then waits at the server, not in buffers of ours.
RECEIVE_BUFFER_BYTES = 1024
SEGMENT_BYTES = 536
CONNECT_S = 30


class Leaves(Enum):
    NEVER = "never"
    BEFORE_HEADERS = "before headers"
    IN_THE_QUEUE = "in the queue"
    AFTER_EVENTS = "after events"


@dataclass(eq=False)
class Visitor:
    """One client. `patience_s` is from its request on; its seed tells it from all others, at the rank too."""

    seed: int
    leaves: Leaves = Leaves.NEVER
    patience_s: float = 0.0
    patience_events: int = 10**9
    is_slow: bool = False
    events: int = 0
    text: str = ""
    finish: str = ""
    completion_tokens: int = 0
    is_done: bool = False
    problem: str = ""
    # On the machine's monotonic clock.
    closed_s: float = 0.0
    data: bytearray = field(default_factory=bytearray)

    @property
    def request(self) -> bytes:
        body = json.dumps(
            {
                "model": DEMO,
                "prompt": f"Tale number {self.seed}: once upon a time",
                "max_tokens": TOKENS,
                "temperature": 0.8,
                "seed": self.seed,
                # Without an end token every answer has all its tokens.
                "logit_bias": {"0": -100, "2": -100},
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def line(self, line: bytes) -> None:
        """One line of the answer."""
        if line.startswith(b"HTTP/1.1 ") and not line.startswith(b"HTTP/1.1 200"):
            self.problem = line.decode()
        if line.strip() == b"data: [DONE]":
            self.is_done = True
        elif line.startswith(b"data: "):
            self.events += 1
            self._event(json.loads(line.removeprefix(b"data: ")))

    def _event(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self.problem = str(event["error"])
        for choice in event.get("choices", ()):
            self.text += choice["text"]
            self.finish = self.finish or choice["finish_reason"] or ""
        if usage := event.get("usage"):
            self.completion_tokens = usage["completion_tokens"]

    @property
    def is_whole(self) -> bool:
        return (self.is_done, self.finish, self.completion_tokens, self.problem) == (True, "length", TOKENS, "")


def crowd(count: int, slow_count: int, queue_s: float, seed: int) -> list[Visitor]:
    """Half of them leave, a third of those each way; `queue_s` is how long the queue lasts, about."""
    draw = random.Random(seed)
    ways = [Leaves.BEFORE_HEADERS, Leaves.IN_THE_QUEUE, Leaves.AFTER_EVENTS]
    found = []
    for number in range(count // 2):
        way = ways[number % len(ways)]
        patience_s = {Leaves.BEFORE_HEADERS: draw.uniform(0, 0.3), Leaves.IN_THE_QUEUE: draw.uniform(0.3, queue_s)}
        events = draw.randint(1, EVENTS_MAX) if way is Leaves.AFTER_EVENTS else 1
        found.append(Visitor(0, way, patience_s.get(way, 0.0), events))
    found += [Visitor(0, is_slow=number < slow_count) for number in range(count - len(found))]
    draw.shuffle(found)
    for number, one in enumerate(found):
        one.seed = number + 1
    return found


async def visit(url: str, visitor: Visitor) -> None:
    """From connecting until it has its answer or has left."""
    address = urlsplit(url)
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(visitor.request)
    reading = asyncio.create_task(_read(reader, visitor))
    try:
        match visitor.leaves:
            case Leaves.BEFORE_HEADERS | Leaves.IN_THE_QUEUE:
                await asyncio.wait({reading}, timeout=visitor.patience_s)
            case _:
                await reading
    finally:
        reading.cancel()
        visitor.closed_s = time.monotonic()
        # At once, as a client that is gone: what has come and was not read is lost.
        writer.transport.abort()
        await asyncio.gather(reading, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, visitor: Visitor) -> None:
    while line := await reader.readline():
        visitor.line(line)
        if visitor.is_done or visitor.problem or visitor.events >= visitor.patience_events:
            return


class SlowReader:
    """Reads a byte a second until it is told to hurry."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self.hurry = asyncio.Event()

    async def visit(self, url: str) -> None:
        address, loop = urlsplit(url), asyncio.get_running_loop()
        with socket.socket() as mine:
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
            mine.setblocking(False)
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(mine, (address.hostname, address.port))
                await loop.sock_sendall(mine, self.visitor.request)
            while not self.visitor.data.endswith(b"0\r\n\r\n"):
                # Once in a hurry, everything that there is.
                piece = await loop.sock_recv(mine, 65536 if self.hurry.is_set() else 1)
                if not piece:
                    break
                self.visitor.data += piece
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.hurry.wait(), 1.0)
            self.visitor.closed_s = time.monotonic()
        for line in bytes(self.visitor.data).splitlines():
            self.visitor.line(line)


async def visits(url: str, visitors: Sequence[Visitor], between: Callable[[], Awaitable[None]]) -> None:
    """All of them at once. `between` runs when all but the slow ones are done; then those hurry."""
    slow = [SlowReader(one) for one in visitors if one.is_slow]
    reading = [asyncio.create_task(one.visit(url)) for one in slow]
    try:
        async with asyncio.TaskGroup() as group:
            for one in visitors:
                if not one.is_slow:
                    group.create_task(visit(url, one))
        await between()
        for reader in slow:
            reader.hurry.set()
        await asyncio.gather(*reading)
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
