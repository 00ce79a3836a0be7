"""What both ends of a connection have agreed on: silence, restarts, sizes."""

import asyncio
from typing import Any

import grpc
import pytest

from rpc.little_service import ASK, DEADLINE_S, LittleService, running
from thunderline.cluster.limits import DEFAULTS
from thunderline.rpc.channel import CHANNEL_OPTIONS, SERVER_OPTIONS, dial
from thunderline.v1 import topology_pb2, topology_pb2_grpc

# A server with gRPC's own defaults sends a client that pings each second away after five.
SILENCE_S = 6.5
HASTY = [(key, value) for key, value in CHANNEL_OPTIONS if key != "grpc.keepalive_time_ms"] + [
    ("grpc.keepalive_time_ms", 500)
]


async def through_silence(options: list[tuple[str, int]]) -> grpc.StatusCode:
    """How a call ends that is silent for as long as a prefill, while its client pings."""

    async def prefill(_: Any) -> None:
        await asyncio.sleep(SILENCE_S)

    server = grpc.aio.server(options=options)
    LittleService(prefill).register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=HASTY) as channel:
            await topology_pb2_grpc.TopologyServiceStub(channel).GetTopology(ASK, timeout=DEADLINE_S)
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        await server.stop(0)
    return grpc.StatusCode.OK


async def test_a_client_that_pings_through_a_long_prefill_is_not_sent_away() -> None:
    ours, plain = await asyncio.gather(through_silence(SERVER_OPTIONS), through_silence([("grpc.so_reuseport", 0)]))
    assert ours is grpc.StatusCode.OK
    # Else this would prove nothing.
    assert plain is grpc.StatusCode.UNAVAILABLE


async def test_a_role_that_is_back_is_reached_at_once(address: str) -> None:
    clock = asyncio.get_running_loop().time
    async with dial(address) as channel:
        stub = topology_pb2_grpc.TopologyServiceStub(channel)
        async with running(address):
            await stub.GetTopology(ASK, timeout=DEADLINE_S)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetTopology(ASK, timeout=DEADLINE_S)
        async with running(address):
            begun_s = clock()
            await stub.GetTopology(ASK, timeout=DEADLINE_S, wait_for_ready=True)
            # By default the second dial comes after 0.8 s at the earliest.
            assert clock() - begun_s < 0.6


async def test_a_new_channel_does_not_inherit_the_wait_of_an_old_one(address: str) -> None:
    async with dial(address) as old, dial(address) as new:
        with pytest.raises(grpc.aio.AioRpcError):
            await topology_pb2_grpc.TopologyServiceStub(old).GetTopology(ASK, timeout=DEADLINE_S)
        async with running(address):
            await topology_pb2_grpc.TopologyServiceStub(new).GetTopology(ASK, timeout=DEADLINE_S)


SIZES = {
    "a message of 12 MiB, three times gRPC's default, passes": (12 * 2**20, grpc.StatusCode.OK),
    "a message above our limit is refused": (DEFAULTS.message_bytes_max + 1, grpc.StatusCode.RESOURCE_EXHAUSTED),
}


@pytest.mark.parametrize(("size_bytes", "expected"), SIZES.values(), ids=SIZES.keys())
async def test_sizes(address: str, size_bytes: int, expected: grpc.StatusCode) -> None:
    async with running(address) as little:
        # The request holds nothing, so the bytes go as a field that it does not know.
        code = grpc.StatusCode.OK
        raw = topology_pb2.Topology(node_id="x" * size_bytes).SerializeToString()
        try:
            await little.raw("/thunderline.v1.TopologyService/GetTopology", raw)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        assert code is expected
        assert await little.ask() == "node"


async def test_dialling_nobody_costs_nothing_until_it_is_used() -> None:
    async with dial("127.0.0.1:17799") as channel:
        assert channel.get_state() is grpc.ChannelConnectivity.IDLE
