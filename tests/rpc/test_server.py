"""What every gRPC role does alike: one owner a port, health, reflection, and how it drains."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rpc.little_service import ASK, DEADLINE_S, SERVICE, WATCH, Little, running
from thunderline.process.entry import CannotStart
from thunderline.rpc.server import PortTaken

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def health(little: Little, service: str = SERVICE) -> int:
    stub: Any = health_pb2_grpc.HealthStub(little.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)).status)


async def test_a_second_server_on_a_port_is_refused_by_name(address: str) -> None:
    async with running(address) as first:
        with pytest.raises(PortTaken, match=address):
            async with running(address):
                pass
        assert await first.ask() == "node"


async def test_a_port_of_any_other_program_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotStart, match="another process has it"):
        async with running(f"127.0.0.1:{taken.getsockname()[1]}"):
            pass


WIDER = ["0.0.0.0:17701", "203.0.113.7:17701", "[::]:17701"]


@pytest.mark.parametrize("wide", WIDER)
async def test_nothing_listens_wider_than_loopback_as_long_as_nothing_keeps_strangers_out(wide: str) -> None:
    with pytest.raises(CannotStart, match="wider than loopback"):
        async with running(wide):
            pass


async def test_a_port_is_free_again_for_the_next_start(address: str) -> None:
    for _ in range(3):
        async with running(address) as little:
            assert await little.ask() == "node"


async def test_a_unix_socket_serves_as_a_port_does(tmp_path: Path) -> None:
    async with running(f"unix:{tmp_path / 'a.sock'}") as little:
        assert await little.ask() == "node"


@pytest.mark.parametrize("service", [SERVICE, ""], ids=["the service", "the server as a whole"])
async def test_health_says_serving_only_once_the_role_can_work(address: str, service: str) -> None:
    async with running(address) as little:
        assert await health(little, service) == NOT_SERVING
        await little.server.serving()
        assert await health(little, service) == SERVING
        await little.server.serving(False)
        assert await health(little, service) == NOT_SERVING


async def test_health_does_not_know_a_service_that_is_not_there(address: str) -> None:
    async with running(address) as little:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(little, "thunderline.v1.SchedulerService")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def reflected(little: Little, **question: Any) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(little.channel)  # type: ignore[arg-type]
    request = reflection_pb2.ServerReflectionRequest(**question)
    async for response in stub.ServerReflectionInfo(iter([request]), timeout=DEADLINE_S):
        return response
    raise AssertionError("no answer")


async def test_reflection_lists_the_service_its_health_and_itself(address: str) -> None:
    async with running(address) as little:
        found = await reflected(little, list_services="")
    assert {one.name for one in found.list_services_response.service} == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_reflection_knows_the_services_file(address: str) -> None:
    async with running(address) as little:
        found = await reflected(little, file_containing_symbol=SERVICE)
    assert found.file_descriptor_response.file_descriptor_proto


class Gate:
    """A handler that waits until the test opens it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, _: Any) -> None:
        self.reached.set()
        try:
            await asyncio.wait_for(self.open.wait(), DEADLINE_S)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def test_a_drain_lets_a_stream_end_and_takes_no_new_call(address: str) -> None:
    gate = Gate()
    async with running(address, between=gate) as little:
        await little.server.serving()
        call = little.topology.WatchTopology(WATCH, timeout=DEADLINE_S)
        await asyncio.wait_for(gate.reached.wait(), 5)
        await call.read()
        draining = asyncio.create_task(little.server.drain(DEADLINE_S))
        done, _ = await asyncio.wait({draining}, timeout=0.2)
        assert not done
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await little.topology.GetTopology(ASK, timeout=DEADLINE_S)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        gate.open.set()
        assert await call.read() is not grpc.aio.EOF
        assert await call.read() is grpc.aio.EOF
        await asyncio.wait_for(draining, 5)


async def test_a_drain_with_nothing_in_flight_is_over_at_once(address: str) -> None:
    async with running(address) as little:
        await little.server.serving()
        assert await little.ask() == "node"
        await asyncio.wait_for(little.server.drain(DEADLINE_S), 2)


async def test_a_drain_breaks_what_outlasts_the_grace(address: str) -> None:
    gate = Gate()
    async with running(address, behave=gate) as little:
        asking = asyncio.create_task(little.ask())
        await asyncio.wait_for(gate.reached.wait(), 5)
        await asyncio.wait_for(little.server.drain(0.1), 5)
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            await asking
        assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(gate.cancelled.wait(), 5)


async def watch_health(little: Little) -> Any:
    """A stream that has said SERVING."""
    await little.server.serving()
    stub: Any = health_pb2_grpc.HealthStub(little.channel)
    watching = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=DEADLINE_S)
    assert (await watching.read()).status == SERVING
    return watching


async def test_a_watcher_of_health_hears_of_the_drain_while_a_call_is_in_flight(address: str) -> None:
    gate = Gate()
    async with running(address, behave=gate) as little:
        watching = await watch_health(little)
        asking = asyncio.create_task(little.ask())
        await asyncio.wait_for(gate.reached.wait(), 5)
        draining = asyncio.create_task(little.server.drain(DEADLINE_S))
        assert (await asyncio.wait_for(watching.read(), 5)).status == NOT_SERVING
        gate.open.set()
        assert await asking == "node"
        await asyncio.wait_for(draining, 5)


async def test_a_watcher_of_health_does_not_hold_up_a_drain(address: str) -> None:
    async with running(address) as little:
        await watch_health(little)
        await asyncio.wait_for(little.server.drain(DEADLINE_S), 5)


async def test_leaving_the_block_breaks_what_is_in_flight(address: str) -> None:
    gate = Gate()
    async with running(address, behave=gate) as little:
        asking = asyncio.create_task(little.ask())
        await asyncio.wait_for(gate.reached.wait(), 5)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await asyncio.wait_for(asking, 5)
