"""Channels in front of real ones: what calls that nobody holds any more, and failures that nobody saw, leave behind."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import grpc

from rpc.little_cluster import LittleCluster
from thunderline.process.trust import Identity, Wallet, keep
from thunderline.rpc.lasting_channel import LastingChannel
from thunderline.rpc.lines import Line

S = grpc.ChannelConnectivity


class Channel:
    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def close(self, grace: float | None = None) -> None:
        self.closed.set()


class Call:
    """Its end is told when the test says so."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.ended = callback


class Failing(Channel):
    """Fails after the first look at its state."""

    def __init__(self) -> None:
        super().__init__()
        self.states = itertools.chain([S.CONNECTING], itertools.repeat(S.TRANSIENT_FAILURE))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return next(self.states)


class Fresh(Channel):
    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return S.IDLE


async def test_a_failure_between_two_looks_is_not_overlooked(tmp_path: Path) -> None:
    """Nothing would tell of it again: the state stays as it is until somebody answers."""
    cluster = LittleCluster(tmp_path)
    made: list[Identity | None] = []

    def make(one: Identity | None) -> grpc.aio.Channel:
        made.append(one)
        return cast(grpc.aio.Channel, Fresh() if one else Failing())

    lasting = LastingChannel(Wallet(tmp_path / "own", "home"), make)
    identity = cluster.identity(name="6b1f6a1e-6f1c-4b4b-9a55-0f0c6a0d0c11")
    keep(tmp_path / "own", identity)
    assert lasting.get_state(try_to_connect=True) is S.IDLE
    assert made == [None, identity]
    await lasting.close()


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
