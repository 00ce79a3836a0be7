"""One channel for each address that is called, kept while it is in use."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc

from thunderline.cluster import NodeId

# By the node that is expected there; a seed may be any.
Key = tuple[str, NodeId | None]
Dial = Callable[[str, NodeId | None], grpc.aio.Channel]


@dataclass
class Kept:
    channel: grpc.aio.Channel
    user_count: int = 0
    used_s: float = 0.0
    # Closed as soon as nobody uses it.
    is_over: bool = False


class Channels:
    """Belongs to one event loop. A channel over which a call has failed is not used again: whoever calls next dials
    anew, with the newest certificate."""

    def __init__(self, dial: Dial, idle_s: float) -> None:
        self._dial = dial
        self._idle_s = idle_s
        self._kept: dict[Key, Kept] = {}

    @property
    def targets(self) -> set[str]:
        return {address for address, _ in self._kept}

    @contextlib.asynccontextmanager
    async def lent(self, address: str, node: NodeId | None) -> AsyncIterator[grpc.aio.Channel]:
        """Raises Unauthenticated when the address may not be dialled."""
        key = (address, node)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = Kept(self._dial(address, node))
        kept.user_count += 1
        try:
            yield kept.channel
        except BaseException:
            # Another address was faster, or this one does not answer.
            kept.is_over = True
            raise
        finally:
            kept.user_count -= 1
            kept.used_s = time.monotonic()
            await self._close_if_over(key, kept)

    async def keep_only(self, node: NodeId, address: str) -> None:
        """The node answers there: calls that are under way elsewhere end where they are, and no others are made."""
        others = [(key, kept) for key, kept in self._kept.items() if key[1] == node and key[0] != address]
        for key, kept in others:
            kept.is_over = True
            await self._close_if_over(key, kept)

    async def sweep(self) -> None:
        """Closes what was not used for long."""
        now_s = time.monotonic()
        for key, kept in list(self._kept.items()):
            if not kept.user_count and now_s - kept.used_s >= self._idle_s:
                kept.is_over = True
                await self._close_if_over(key, kept)

    async def close(self) -> None:
        kept, self._kept = self._kept, {}
        for one in kept.values():
            await one.channel.close()

    async def _close_if_over(self, key: Key, kept: Kept) -> None:
        if not kept.is_over:
            return
        if self._kept.get(key) is kept:
            del self._kept[key]
        if not kept.user_count:
            await kept.channel.close()
