"""The one table from domain errors to gRPC statuses and back.

An error travels as a status with google.rpc.ErrorInfo (domain "thunderline", a stable reason) and, where it says when
to come back, google.rpc.RetryInfo: https://google.aip.dev/193.
"""

import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from thunderline.cluster import errors

DOMAIN = "thunderline"

STATUS: dict[type[errors.ClusterError], grpc.StatusCode] = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Full: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Refused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Superseded: grpc.StatusCode.ABORTED,
    errors.RequestPoisoned: grpc.StatusCode.INTERNAL,
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotOffered: grpc.StatusCode.UNIMPLEMENTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}

# Statuses of a peer that died under the call, or of a connection that broke: they come without ErrorInfo.
BROKEN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}
# Statuses that gRPC itself makes for a request that breaks a limit of the channel or of the contract.
BAD_CALL = {
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}

log = logging.getLogger(__name__)


def status_of(error: errors.ClusterError) -> grpc.StatusCode:
    """The status of the nearest listed ancestor of the error's class."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def rich_status(error: errors.ClusterError) -> Any:
    """The error as a status with details, for `context.abort_with_status`."""
    details = [any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.facts))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after_s * 1000))
        details.append(any_pb2.Any())
        details[-1].Pack(retry)
    code = code_pb2.Code.Value(status_of(error).name)
    return rpc_status.to_status(status_pb2.Status(code=code, message=error.message, details=details))


def from_call(call: grpc.aio.AioRpcError) -> errors.ClusterError:
    """The domain error that a failed call carries; a broken connection is Unreachable."""
    reason, facts, retry_after_s = "", {}, None
    status = rpc_status.from_call(cast(grpc.Call, call))
    for detail in status.details if status else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, facts = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    message = call.details() or call.code().name
    if kind := errors.BY_REASON.get(reason):
        return kind(message, retry_after_s=retry_after_s, **facts)
    if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlinePassed(message)
    if call.code() is grpc.StatusCode.UNAUTHENTICATED:
        return errors.Unauthenticated(message)
    if call.code() in BAD_CALL:
        return errors.InvalidRequest(message)
    if call.code() in BROKEN:
        return errors.Unreachable(message)
    return errors.InternalError(f"{call.code().name}: {message}")


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends a call with the status of the domain error that its handler raised; a bug becomes INTERNAL_ERROR.

    `admit` is asked first, with the method's full name and the context, for health and reflection too.
    """

    def __init__(self, admit: Callable[[str, Any], None] | None = None) -> None:
        # Calls of our own services that are under way: what a drain waits for.
        self.active_count = 0
        self.admit = admit

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        way = _Way(self, handler_call_details.method)
        if handler is None or (not way.is_ours and self.admit is None):
            return handler
        for arity, wrap in _ARITIES.items():
            if behavior := getattr(handler, arity):
                make = getattr(grpc, f"{arity}_rpc_method_handler")
                return make(wrap(way, behavior), handler.request_deserializer, handler.response_serializer)
        return handler


class _Way:
    """What every call of one method goes through."""

    def __init__(self, interceptor: ErrorInterceptor, method: str) -> None:
        self._interceptor = interceptor
        self._method = method
        self.is_ours = method.startswith("/thunderline.")

    def admit(self, context: Any) -> None:
        """Raises Unauthenticated."""
        if self._interceptor.admit is not None:
            self._interceptor.admit(self._method, context)

    def count(self, by: int) -> None:
        self._interceptor.active_count += by if self.is_ours else 0


async def _abort(context: Any, error: Exception) -> None:
    if not isinstance(error, errors.ClusterError):
        log.error("a call failed by a bug", exc_info=error)
        error = errors.InternalError(f"{type(error).__name__}: {error}")
    await context.abort_with_status(rich_status(error))


def _is_ours(error: Exception) -> bool:
    """Not gRPC's own: AbortError is how `context.abort` leaves a handler, and it is an Exception."""
    return not isinstance(error, grpc.aio.AbortError)


def _unary(way: _Way, behavior: Any) -> Any:
    async def call(request: Any, context: Any) -> Any:
        way.count(1)
        try:
            way.admit(context)
            return await behavior(request, context)
        except Exception as error:
            if not _is_ours(error):
                raise
            await _abort(context, error)
        finally:
            way.count(-1)

    return call


def _streaming(way: _Way, behavior: Any) -> Any:
    if not inspect.isasyncgenfunction(behavior):
        # It reads and writes through the context.
        return _unary(way, behavior)

    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        way.count(1)
        try:
            way.admit(context)
            # A caller that leaves ends the handler at once, not when it is collected.
            async with contextlib.aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:
            if not _is_ours(error):
                raise
            await _abort(context, error)
        finally:
            way.count(-1)

    return call


_ARITIES = {
    "unary_unary": _unary,
    "unary_stream": _streaming,
    "stream_unary": _unary,
    "stream_stream": _streaming,
}
