"""The streams that this node keeps up with one peer, and how one ended."""

import asyncio
from dataclasses import dataclass

import grpc

from thunderline.cluster.errors import ClusterError
from thunderline.rpc.errors import from_call
from thunderline.topology.talk import Talk


@dataclass
class Dialled:
    """A stream that this node keeps up."""

    address: str
    talk: Talk
    task: "asyncio.Task[None]"
    begun_s: float

    @property
    def stands(self) -> bool:
        return self.talk.stands and not self.task.done()


@dataclass
class Peering:
    """`stream` and, while it moves to a better link, the `next` one."""

    stream: Dialled | None = None
    next: Dialled | None = None
    lonely_since_s: float | None = None
    dial_count: int = 0
    dial_from_s: float = 0.0

    @property
    def stands(self) -> bool:
        return (self.stream is not None and self.stream.stands) or (self.next is not None and self.next.stands)

    @property
    def standing(self) -> Dialled | None:
        """The peer ends the older one as soon as it hears the next."""
        return next((one for one in (self.stream, self.next) if one is not None and one.stands), None)


def how_it_ended(task: "asyncio.Task[None]") -> str:
    """Of a stream: why it ended, "" where it was told to. Raises what is a bug."""
    error = None if task.cancelled() else task.exception()
    if error is None:
        return ""
    if isinstance(error, grpc.aio.AioRpcError):
        return from_call(error).message
    if isinstance(error, ClusterError | TimeoutError):
        return str(error) or "it took too long"
    raise error
