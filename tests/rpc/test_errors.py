"""Errors across a real connection: what a handler raises is what the caller catches."""

import asyncio
import logging
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from rpc.little_service import ASK, DEADLINE_S, WATCH, Behaviour, Little, nothing, raising, running
from thunderline.cluster import errors
from thunderline.cluster.errors import BY_REASON, ClusterError
from thunderline.rpc.errors import DOMAIN, STATUS, from_call, status_of
from thunderline.v1 import rank_pb2

# design.md, section 7; a reason that is not there has the status of its kind.
STATUSES = {
    "MODEL_NOT_FOUND": "NOT_FOUND",
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "CONTEXT_LENGTH_EXCEEDED": "INVALID_ARGUMENT",
    "QUEUE_FULL": "RESOURCE_EXHAUSTED",
    "NO_READY_INSTANCE": "UNAVAILABLE",
    "INSTANCE_FAILED": "UNAVAILABLE",
    "RANK_HUNG": "UNAVAILABLE",
    "ENGINE_RESET": "UNAVAILABLE",
    "DRAINING": "UNAVAILABLE",
    "STORE_UNAVAILABLE": "UNAVAILABLE",
    "HUB_UNREACHABLE": "UNAVAILABLE",
    "UNREACHABLE": "UNAVAILABLE",
    "PLACEMENT_IMPOSSIBLE": "FAILED_PRECONDITION",
    "CRASH_LOOP": "FAILED_PRECONDITION",
    "NAME_TAKEN": "FAILED_PRECONDITION",
    "WRONG_STORE": "FAILED_PRECONDITION",
    "STALE_EPOCH": "FAILED_PRECONDITION",
    "EPOCH_CONFLICT": "FAILED_PRECONDITION",
    "LINK_IN_USE": "FAILED_PRECONDITION",
    "SUPERSEDED": "ABORTED",
    "REQUEST_POISONED": "INTERNAL",
    "DEADLINE": "DEADLINE_EXCEEDED",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "NOT_OFFERED": "UNIMPLEMENTED",
    "INTERNAL_ERROR": "INTERNAL",
}


async def unary(little: Little) -> None:
    await little.topology.GetTopology(ASK, timeout=DEADLINE_S)


async def stream(little: Little) -> None:
    async for _ in little.topology.WatchTopology(WATCH, timeout=DEADLINE_S):
        pass


async def both_ways(little: Little) -> None:
    call = little.rank.Attach(iter([rank_pb2.AttachRequest()]), timeout=DEADLINE_S)
    async for _ in call:
        pass


async def failed(address: str, work: Any = unary, behave: Behaviour = nothing, between: Behaviour = nothing) -> Any:
    """The gRPC error that the caller sees."""
    async with running(address, behave, between) as little:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await work(little)
        return caught.value


def test_every_reason_has_its_status() -> None:
    assert {reason: status_of(kind("no")).name for reason, kind in BY_REASON.items()} == STATUSES


def test_the_table_has_no_row_for_a_reason_that_only_a_base_has() -> None:
    assert all(kind in ClusterError.__subclasses__() for kind in STATUS)


@pytest.mark.parametrize("kind", BY_REASON.values(), ids=BY_REASON.keys())
async def test_every_error_survives_the_way(address: str, kind: type[ClusterError]) -> None:
    sent = kind("größer than 2048", retry_after_s=1.25, param="messages", context_tokens="2048")
    call = await failed(address, behave=raising(sent))
    found = from_call(call)
    assert type(found) is kind
    assert call.code().name == STATUSES[kind.reason]
    assert (found.message, found.facts, found.retry_after_s) == (sent.message, sent.facts, 1.25)


async def test_an_error_without_a_wait_has_none(address: str) -> None:
    found = from_call(await failed(address, behave=raising(errors.Full("full"))))
    assert (found.retry_after_s, found.facts, found.param) == (None, {}, None)


async def test_details_are_googles_own_for_clients_in_any_language(address: str) -> None:
    call = await failed(address, behave=raising(errors.Full("full", retry_after_s=0.5, param="model")))
    status = rpc_status.from_call(call)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info) and status.details[1].Unpack(retry)
    assert (info.domain, info.reason, dict(info.metadata)) == (DOMAIN, "QUEUE_FULL", {"param": "model"})
    assert retry.retry_delay.ToMilliseconds() == 500


STREAMS = {
    "a stream before its first message": (stream, "behave"),
    "a stream after its first message": (stream, "between"),
    "a stream both ways": (both_ways, "between"),
}


@pytest.mark.parametrize(("work", "where"), STREAMS.values(), ids=STREAMS.keys())
async def test_a_stream_ends_with_its_error(address: str, work: Any, where: str) -> None:
    error = errors.InstanceFailed("rank 0 was KILLED", cause="KILLED")
    behaviours: dict[str, Behaviour] = {where: raising(error)}
    found = from_call(await failed(address, work, **behaviours))
    assert (type(found), found.message, found.facts) == (errors.InstanceFailed, error.message, {"cause": "KILLED"})


KINDS = {"one answer": unary, "a stream": stream, "a stream both ways": both_ways}


@pytest.mark.parametrize("work", KINDS.values(), ids=KINDS.keys())
async def test_a_bug_becomes_an_internal_error_and_is_logged(
    address: str, work: Any, caplog: pytest.LogCaptureFixture
) -> None:
    where = "between" if work is both_ways else "behave"
    with caplog.at_level(logging.ERROR, "thunderline.rpc.errors"):
        found = from_call(await failed(address, work, **{where: raising(KeyError("layers"))}))
    assert (type(found), found.message, found.resumable) == (errors.InternalError, "KeyError: 'layers'", False)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError]


async def test_a_server_answers_on_after_a_bug(address: str) -> None:
    left = [KeyError("layers")]

    async def once(_: Any) -> None:
        if left:
            raise left.pop()

    async with running(address, once) as little:
        with pytest.raises(grpc.aio.AioRpcError):
            await little.ask()
        assert await little.ask() == "node"


async def test_what_a_handler_aborts_by_itself_stays_as_it_is(address: str) -> None:
    async def abort(context: Any) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such node")

    call = await failed(address, behave=abort)
    assert (call.code(), call.details()) == (grpc.StatusCode.NOT_FOUND, "no such node")


async def test_a_deadline_that_passes_is_said_so(address: str) -> None:
    async def wait(_: Any) -> None:
        await asyncio.Event().wait()

    async def hurried(little: Little) -> None:
        await little.topology.GetTopology(ASK, timeout=0.1)

    assert type(from_call(await failed(address, hurried, behave=wait))) is errors.DeadlinePassed


async def test_a_caller_that_leaves_ends_the_handler_at_once(address: str) -> None:
    ended = asyncio.Event()

    async def wait(_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with running(address, between=wait) as little:
        call = little.topology.WatchTopology(WATCH, timeout=DEADLINE_S)
        await call.read()
        call.cancel()
        await asyncio.wait_for(ended.wait(), 5)


async def test_an_rpc_that_a_server_has_not_is_the_callers_mistake(address: str) -> None:
    async def foreign(little: Little) -> None:
        await little.raw("/thunderline.v1.SchedulerService/GetCluster", b"")

    found = from_call(await failed(address, foreign))
    assert (type(found), found.resumable) == (errors.InvalidRequest, False)


async def test_a_peer_that_nobody_is_may_be_tried_elsewhere(address: str) -> None:
    async with running(address) as little:
        await little.server.drain(0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await little.ask()
    found = from_call(caught.value)
    assert (type(found), found.resumable) == (errors.Unreachable, True)


async def test_a_reason_of_another_domain_is_not_ours(address: str) -> None:
    """A proxy's ErrorInfo may say MODEL_NOT_FOUND and mean something else."""

    async def foreign(context: Any) -> None:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND", domain="proxy.example"))
        status = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="busy", details=[detail])
        await context.abort_with_status(rpc_status.to_status(status))

    assert type(from_call(await failed(address, behave=foreign))) is errors.Unreachable


async def test_a_reason_of_a_later_version_keeps_its_status(address: str) -> None:
    class Later(errors.Refused):
        reason = "FROM_A_LATER_VERSION"

    found = from_call(await failed(address, behave=raising(Later("not yet known"))))
    assert (type(found), found.message, found.resumable) == (errors.InvalidRequest, "not yet known", False)
