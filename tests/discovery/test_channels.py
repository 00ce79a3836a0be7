"""Channels are kept while they are used, and no longer."""

import asyncio

import grpc
import pytest

from thunderline.cluster import NodeId
from thunderline.discovery.channels import Channels
from thunderline.rpc.channel import dial

BOB = NodeId("bob")


class Dialled:
    """Lazy channels to nobody, each remembered."""

    def __init__(self) -> None:
        self.made: list[grpc.aio.Channel] = []

    def __call__(self, address: str, node: NodeId | None) -> grpc.aio.Channel:
        self.made.append(dial(address))
        return self.made[-1]

    @property
    def open_count(self) -> int:
        states = [one.get_state() for one in self.made]
        return sum(state is not grpc.ChannelConnectivity.SHUTDOWN for state in states)


async def test_one_channel_for_each_address_and_node() -> None:
    dialled = Dialled()
    channels = Channels(dialled, idle_s=60)
    for _ in range(3):
        async with channels.lent("127.0.0.1:1", BOB), channels.lent("127.0.0.1:1", None):
            pass
    assert len(dialled.made) == 2
    await channels.close()
    assert dialled.open_count == 0


@pytest.mark.parametrize("how", [ValueError(), asyncio.CancelledError()], ids=["fails", "is cancelled"])
async def test_after_a_call_that_does_not_end_well_a_channel_is_dialled_anew(how: BaseException) -> None:
    dialled = Dialled()
    channels = Channels(dialled, idle_s=60)
    with pytest.raises(type(how)):
        async with channels.lent("127.0.0.1:1", BOB):
            raise how
    assert dialled.open_count == 0
    async with channels.lent("127.0.0.1:1", BOB):
        pass
    assert len(dialled.made) == 2
    await channels.close()


async def test_a_node_that_answers_elsewhere_keeps_only_that_one_and_calls_under_way_end() -> None:
    dialled = Dialled()
    channels = Channels(dialled, idle_s=60)
    async with channels.lent("127.0.0.1:1", BOB):
        async with channels.lent("127.0.0.2:1", BOB), channels.lent("127.0.0.1:1", NodeId("cleo")):
            pass
        await channels.keep_only(BOB, "127.0.0.2:1")
        # It is in use.
        assert dialled.open_count == 3
    assert dialled.open_count == 2
    assert channels.targets == {"127.0.0.2:1", "127.0.0.1:1"}
    await channels.close()


async def test_what_is_not_used_is_closed() -> None:
    dialled = Dialled()
    channels = Channels(dialled, idle_s=0)
    async with channels.lent("127.0.0.1:1", BOB):
        await channels.sweep()
        assert dialled.open_count == 1
    await channels.sweep()
    assert dialled.open_count == 0
    assert channels.targets == set()
