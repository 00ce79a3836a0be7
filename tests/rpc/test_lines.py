"""Calls that nobody holds any more end when they are collected: anywhere, at any time."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import grpc

from thunderline.rpc.lines import Line


class Channel:
    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def close(self, grace: float | None = None) -> None:
        self.closed.set()


class Call:
    """Its end is told when the test says so."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.ended = callback


async def with_a_call() -> tuple[Line, Call, Channel]:
    channel, call = Channel(), Call()
    line = Line(cast(grpc.aio.Channel, channel))
    line.entered(call)
    line.retire()
    return line, call, channel


async def test_a_call_that_is_collected_in_another_thread_lets_go_of_its_channel() -> None:
    line, call, channel = await with_a_call()
    assert not channel.closed.is_set()
    thread = threading.Thread(target=call.ended, args=(call,))
    thread.start()
    thread.join()
    async with asyncio.timeout(5):
        await channel.closed.wait()
    await line.left()
    assert line.is_gone


def test_a_call_that_is_collected_after_its_loop_harms_nobody() -> None:
    line, call, channel = asyncio.run(with_a_call())
    call.ended(call)
    assert line.call_count == 0
    assert not channel.closed.is_set()
