"""Connections that send nothing, half a header, an endless one, too many of them, or that do not read."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thunderline.cluster.limits import Limits
from thunderline.gateway.__main__ import Server, listen
from thunderline.gateway.connections import LOOK_EVERY_S, Connections, allowed_count

GET = b"GET /small HTTP/1.1\r\nHost: here\r\n\r\n"
# Longer than what a kernel takes for a client that does not read.
LARGE_BYTES = 16 * 2**20
WAIT_S = 5


async def small(request: Request) -> Response:
    return Response("fine")


async def large(request: Request) -> Response:
    return Response(bytes(LARGE_BYTES))


@asynccontextmanager
async def door(**limits: float) -> AsyncIterator[int]:
    """A server with these connections; its port. When it ends none may be left."""
    connections = Connections(Limits(**limits))  # type: ignore[arg-type]
    listener = listen("127.0.0.1", 0)
    app = Starlette(routes=[Route("/small", small), Route("/large", large), Route("/body", small, methods=["POST"])])
    config = uvicorn.Config(
        app,
        http=connections.protocol,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    watching = asyncio.create_task(connections.watch())
    try:
        yield listener.getsockname()[1]
        async with asyncio.timeout(WAIT_S):
            while open_count():
                await asyncio.sleep(0.01)
    finally:
        server.should_exit = True
        await serving
        watching.cancel()
        listener.close()


def open_count() -> float:
    return REGISTRY.get_sample_value("thunderline_connections") or 0.0


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def said(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes."""
    async with asyncio.timeout(WAIT_S):
        return await reader.read()


def error_of(answer: bytes) -> str:
    return str(json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["message"])


@pytest.mark.parametrize("sent", [b"", GET], ids=["sends nothing", "sends nothing more"])
async def test_an_idle_connection_is_closed(sent: bytes) -> None:
    async with door(connection_idle_s=0.2) as port:
        reader, writer = await connected(port)
        writer.write(sent)
        answer = await said(reader)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200") if sent else not answer


@pytest.mark.parametrize("before", [b"", GET], ids=["at once", "after an answer"])
async def test_half_a_header_is_refused_however_slowly_it_goes_on(before: bytes) -> None:
    async with door(connection_idle_s=0.3) as port:
        reader, writer = await connected(port)
        writer.write(before + b"GET /small HTTP/1.1\r\n")
        reading = asyncio.create_task(asyncio.wait_for(reader.readuntil(b"}}"), WAIT_S))
        while not reading.done():
            writer.write(b"x")
            await asyncio.sleep(0.05)
        writer.close()
    assert b"HTTP/1.1 408" in reading.result()
    assert error_of(reading.result()[reading.result().index(b"HTTP/1.1 408") :]) == "no whole header came within 0.3 s"


async def test_an_endless_header_is_refused_early() -> None:
    async with door(header_bytes_max=1000) as port:
        reader, writer = await connected(port)
        writer.write(b"GET /small HTTP/1.1\r\n")
        # It goes on until it has read why; a reset would take that away.
        reading = asyncio.create_task(asyncio.wait_for(reader.readuntil(b"}}"), WAIT_S))
        sent = 0
        while not reading.done():
            writer.write(b"a: b\r\n" * 20)
            sent += 120
            await asyncio.sleep(0.01)
        writer.close()
    assert reading.result().startswith(b"HTTP/1.1 431")
    assert error_of(reading.result()) == "the header has more than 1000 bytes"
    assert sent < 100_000


@pytest.mark.parametrize("body_bytes", [10, 100_000], ids=["small", "longer than a header may be"])
async def test_a_request_that_comes_in_one_piece_is_no_header(body_bytes: int) -> None:
    post = f"POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: {body_bytes}\r\n\r\n".encode()
    async with door(header_bytes_max=65536, connection_idle_s=0.2) as port:
        reader, writer = await connected(port)
        writer.write(post + bytes(body_bytes))
        answer = await said(reader)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1


async def test_a_body_without_end_is_cut_off() -> None:
    async with door(body_bytes_max=1000) as port:
        _, writer = await connected(port)
        writer.write(b"POST /body HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(WAIT_S):
                while True:
                    writer.write(b"64\r\n" + b"x" * 100 + b"\r\n")
                    await writer.drain()
        writer.close()


async def test_too_many_connections_are_told_so_and_room_comes_back() -> None:
    async with door(connection_count_max=3) as port:
        kept = [await connected(port) for _ in range(3)]
        reader, writer = await connected(port)
        writer.write(GET)
        refused = await said(reader)
        writer.close()
        for _, one in kept[1:]:
            one.close()
        async with httpx.AsyncClient() as client:
            async with asyncio.timeout(WAIT_S):
                while open_count() > 1:
                    await asyncio.sleep(0.01)
            fine = await client.get(f"http://127.0.0.1:{port}/small")
        kept[0][1].write(GET)
        assert (await kept[0][0].readline()).startswith(b"HTTP/1.1 200")
        kept[0][1].close()
    assert refused.startswith(b"HTTP/1.1 429")
    assert b"Retry-After: 1\r\n" in refused
    assert json.loads(refused.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "queue_full"
    assert fine.status_code == 200


async def test_a_refused_one_that_sends_late_can_still_read_why() -> None:
    """A socket that is closed when something comes is reset, and its client fails while it sends, before it reads."""
    loop = asyncio.get_running_loop()
    async with door(connection_count_max=1) as port:
        _, kept = await connected(port)
        with socket.socket() as late:
            late.setblocking(False)
            await loop.sock_connect(late, ("127.0.0.1", port))
            await asyncio.sleep(LOOK_EVERY_S * 1.5)
            for part in (GET[:10], GET[10:]):
                await loop.sock_sendall(late, part)
                await asyncio.sleep(0.05)
            assert (await loop.sock_recv(late, 1000)).startswith(b"HTTP/1.1 429")
        kept.close()


async def test_a_flood_of_connections_is_closed_without_a_word() -> None:
    async with door(connection_count_max=2) as port:
        everyone = [await connected(port) for _ in range(100)]
        answers = await asyncio.gather(*(said(reader) for reader, _ in everyone[2:]), return_exceptions=True)
        for _, writer in everyone:
            writer.close()
    told = [one for one in answers if isinstance(one, bytes) and one.startswith(b"HTTP/1.1 429")]
    assert len(told) == 64


async def test_a_client_that_does_not_read_is_left_at_the_deadline() -> None:
    async with door(request_deadline_s=0.5) as port:
        _, writer = await connected(port)
        writer.write(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            while not open_count():
                await asyncio.sleep(0.01)
            while open_count():
                await asyncio.sleep(0.01)
        writer.transport.abort()


async def test_one_that_reads_slowly_gets_everything() -> None:
    async with door(connection_idle_s=0.2) as port:
        reader, writer = await connected(port)
        writer.write(b"GET /large HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        size = 0
        async with asyncio.timeout(WAIT_S):
            while piece := await reader.read(2**20):
                size += len(piece)
                await asyncio.sleep(0.05)
        writer.close()
    assert size > LARGE_BYTES


def test_a_process_may_open_as_many_files_as_its_connections_need() -> None:
    assert allowed_count(10) == 10
    assert 0 < allowed_count(2**40) < 2**40
