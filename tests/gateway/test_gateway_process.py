"""`thunderline gateway` as it is started, with nobody behind it: its connections are bounded."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from installation import BIN, until
from thunderline.gateway.__main__ import listen

WAIT_S = 20


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_gateway_closes_what_is_idle_and_refuses_too_many(tmp_path: Path) -> None:
    port = free_port()
    limits = {"CONNECTION_IDLE_S": "1", "CONNECTION_COUNT_MAX": "3"}
    ours = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
    gateway = subprocess.Popen(
        [sys.executable, str(BIN / "thunderline"), "gateway", "--home", str(tmp_path), "--port", str(port)],
        env={**ours, **{f"THUNDERLINE_LIMITS_{key}": value for key, value in limits.items()}},
    )
    try:
        until("the gateway answers", lambda: alive(port), WAIT_S)
        # More than there is room for: the one that has just asked may still be counted.
        idle = [socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) for _ in range(5)]
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 429
        for one in idle:
            # It sends nothing, so the server closes it, at once or after a second.
            while said := one.recv(1000):
                assert said.startswith(b"HTTP/1.1 429")
            one.close()
        until("room again", lambda: alive(port), WAIT_S)
    finally:
        gateway.send_signal(signal.SIGINT)
        assert gateway.wait(WAIT_S) == 0


def alive(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=WAIT_S).status_code == 200
    except httpx.TransportError:
        return False


async def test_an_accepted_connection_does_not_wait_for_more_to_send() -> None:
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        answered.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = listen("127.0.0.1", 0)
    async with await asyncio.start_server(answer, sock=listener), asyncio.timeout(WAIT_S):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert await answered
        writer.close()
