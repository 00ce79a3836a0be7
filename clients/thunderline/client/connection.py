"""What every client does alike: a channel for the time of a block, calls with deadlines, our errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import grpc
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from thunderline.cluster import NodeId
from thunderline.cluster.errors import Unreachable
from thunderline.process.trust import Wallet
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.rpc.moving import Moving

CALL_DEADLINE_S = 10.0
# A role that was killed is back within this time.
RESTART_S = 3.0

T = TypeVar("T")


class Connection:
    """`async with SchedulerClient("127.0.0.1:7403") as scheduler: ...`

    With a wallet, and on a node of a cluster, by TLS: to `node`, or to whichever node answers there. Raises
    Unauthenticated when our own certificate is no good.
    """

    # Of the service, given a channel.
    stub: ClassVar[type[Any]]

    def __init__(self, target: str, wallet: Wallet | None = None, node: NodeId | None = None) -> None:
        self._begin(target, dial(target, wallet, node))

    @classmethod
    def over(cls, channel: grpc.aio.Channel, target: str = "") -> Self:
        """Over a channel that may move from one address to another; leaving the block closes it."""
        found = cls.__new__(cls)
        found._begin(target, channel)
        return found

    def _begin(self, target: str, channel: grpc.aio.Channel) -> None:
        self.target = target
        self._channel = channel
        self._stub: Any = self.stub(channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def _watched(self, begin: "Callable[[], grpc.aio.UnaryStreamCall[Any, T]]") -> AsyncIterator[T]:
        """Messages of a watch; where its connection moves to, `begin` is called anew. Raises ClusterError."""
        while True:
            moved, call = asyncio.ensure_future(self._moved(self._version)), begin()
            coming = asyncio.ensure_future(call.read())
            try:
                await asyncio.wait({coming, moved}, return_when=asyncio.FIRST_COMPLETED)
                while coming.done():
                    message: Any = coming.result()
                    if message is grpc.aio.EOF:
                        return
                    yield message
                    coming = asyncio.ensure_future(call.read())
                    await asyncio.wait({coming, moved}, return_when=asyncio.FIRST_COMPLETED)
            except grpc.aio.AioRpcError as error:
                raise from_call(error) from None
            finally:
                call.cancel()
                moved.cancel()
                coming.cancel()
                # Else asyncio tells of an error that nobody asked for.
                coming.add_done_callback(lambda read: read.cancelled() or read.exception())

    @property
    def _version(self) -> int:
        return self._channel.changes.version if isinstance(self._channel, Moving) else 0

    async def _moved(self, seen: int) -> None:
        """A channel to one address never does."""
        if isinstance(self._channel, Moving):
            await self._channel.changes.after(seen)
        else:
            await asyncio.Event().wait()


async def called(call: Callable[..., Awaitable[T]], request: Any, deadline_s: float = CALL_DEADLINE_S) -> T:
    """One unary call. Raises ClusterError."""
    try:
        return await call(request, timeout=deadline_s)
    except grpc.aio.AioRpcError as error:
        raise from_call(error) from None


async def called_again(call: Callable[..., Awaitable[T]], request: Any, deadline_s: float = CALL_DEADLINE_S) -> T:
    """One idempotent call, again while the role restarts. Raises ClusterError."""
    async for attempt in AsyncRetrying(
        stop=stop_after_delay(RESTART_S),
        wait=wait_exponential(multiplier=0.1, max=0.5),
        retry=retry_if_exception_type(Unreachable),
        reraise=True,
    ):
        with attempt:
            return await called(call, request, deadline_s)
    raise AssertionError("tenacity raises after the last attempt")


async def streamed(call: "grpc.aio.UnaryStreamCall[Any, T]") -> AsyncIterator[T]:
    """Messages of a stream; leaving early cancels it. Raises ClusterError."""
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise from_call(error) from None
    finally:
        call.cancel()
