"""Streams beside hostile requests: each is asked again as it ends, and must say the same each time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from installation import DEMO
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError
from thunderline.v1 import cluster_pb2

COUNT = 4
WAIT_S = 90.0
DEADLINE_S = 180.0


class Neighbour:
    """Asks one thing over and over. `tokens` are those of the answer under way."""

    def __init__(self, number: int, token_count: int) -> None:
        self.wish = cluster_pb2.Generation(
            model=DEMO, text=f"Story number {number}:", max_tokens=token_count, ignore_eos=True
        )
        self.wish.sampling.temperature = 0.8 * (number % 2)
        self.wish.sampling.seed = 100 + number
        self.answers: list[list[int]] = []
        self.tokens: list[int] = []
        # The client library hides a stream that broke; here it counts.
        self.broke_count = 0

    @property
    def is_under_way(self) -> bool:
        return 0 < len(self.tokens) < self.wish.max_tokens

    def broke(self, error: ClusterError | None) -> None:
        self.broke_count += 1

    def went_on(self, pause_s: float) -> None:
        pass

    async def go_on(self, client: SchedulerClient, changed: asyncio.Condition) -> None:
        """Until cancelled."""
        while True:
            self.tokens = []
            asked = client.generate(self.wish, DEADLINE_S, self)
            async with contextlib.aclosing(asked) as deltas:  # type: ignore[type-var]
                async for delta in deltas:
                    self.tokens.extend(delta.token_ids)
                    async with changed:
                        changed.notify_all()
            self.answers.append(self.tokens)
            async with changed:
                changed.notify_all()


class Neighbours:
    def __init__(self, token_count: int) -> None:
        self.each = [Neighbour(number, token_count) for number in range(COUNT)]
        self.changed = asyncio.Condition()

    @property
    def under_way_count(self) -> int:
        """Those that have a token already and not their last."""
        return sum(one.is_under_way for one in self.each)

    async def all_under_way(self) -> None:
        await self.until(lambda: self.under_way_count == COUNT)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S), self.changed:
            await self.changed.wait_for(what)


@contextlib.asynccontextmanager
async def neighbours(target: str, token_count: int) -> AsyncIterator[Neighbours]:
    """They run as long as the block, and until each has a whole answer; then they leave in the middle of a stream."""
    found = Neighbours(token_count)
    async with SchedulerClient(target) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.go_on(client, found.changed)) for one in found.each]
        yield found
        await found.until(lambda: all(one.answers for one in found.each))
        for task in tasks:
            task.cancel()


async def undisturbed(target: str, token_count: int) -> list[list[int]]:
    """What they say with nobody beside them."""
    async with neighbours(target, token_count) as alone:
        pass
    return [one.answers[0] for one in alone.each]
