"""The door of each deployment: a bounded queue, first in first out; a resume goes before new requests."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from prometheus_client import Gauge, Histogram

from thunderline.cluster import InstanceId
from thunderline.cluster.errors import ClusterError, DeadlinePassed, Full
from thunderline.scheduler import routing
from thunderline.scheduler.routing import Way
from thunderline.scheduler.values import Standing

FULL_RETRY_AFTER_S = 1.0
RESUME_COUNT_MAX = 256

DEPTH = Gauge("thunderline_queue_depth", "Requests that wait for READY or for room.", ["deployment"])
WAIT = Histogram("thunderline_queue_wait_seconds", "Time from a request's arrival to its instance.")


@dataclass(frozen=True, slots=True)
class Door:
    """What admission asks about a deployment each time."""

    instance: InstanceId
    standing: Standing


@dataclass(eq=False)
class _Waiter:
    turn: "asyncio.Future[InstanceId]"


@dataclass
class _Queue:
    new: deque[_Waiter] = field(default_factory=deque)
    resumed: deque[_Waiter] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.new) + len(self.resumed)


class Admission:
    """`look` gives the door of a deployment now, by name, or None."""

    def __init__(
        self, look: Callable[[str], Door | None], queue_size_max: int, outstanding_max: int, queue_wait_s: float
    ) -> None:
        self._look = look
        self._queue_size_max = queue_size_max
        self._outstanding_max = outstanding_max
        self._queue_wait_s = queue_wait_s
        self._queues: dict[str, _Queue] = {}
        self._outstanding: Counter[InstanceId] = Counter()
        # Whose depth is shown: no longer than they are known.
        self._shown: set[str] = set()

    def depth(self, name: str) -> int:
        return len(self._queues.get(name, ()))

    @contextlib.asynccontextmanager
    async def admitted(self, name: str, resume: bool, deadline_s: float) -> AsyncIterator[InstanceId]:
        """Holds a place at an instance for the time of the block. `deadline_s` is a time of the loop's clock.

        Raises what routing refuses with, Full, NoReadyInstance, DeadlinePassed.
        """
        begun = asyncio.get_running_loop().time()
        instance = await self._enter(name, resume, deadline_s)
        WAIT.observe(asyncio.get_running_loop().time() - begun)
        try:
            yield instance
        finally:
            self._leave(instance)

    async def _enter(self, name: str, resume: bool, deadline_s: float) -> InstanceId:
        found, door = self._way(name)
        queue = self._queues.setdefault(name, _Queue())
        if found is Way.GO and door is not None and not (queue.resumed if resume else queue):
            self._outstanding[door.instance] += 1
            self._drop_empty(name)
            return door.instance
        line = queue.resumed if resume else queue.new
        if len(line) >= (RESUME_COUNT_MAX if resume else self._queue_size_max):
            raise Full(f"{len(line)} requests wait for {name} already", retry_after_s=FULL_RETRY_AFTER_S)
        waiter = _Waiter(asyncio.get_running_loop().create_future())
        line.append(waiter)
        self._show(name)
        try:
            return await self._turn(name, waiter, resume, deadline_s)
        except asyncio.CancelledError:
            if waiter.turn.done() and waiter.turn.exception() is None:
                # Its turn came in the moment in which its client left: the place goes to the next.
                self._leave(waiter.turn.result())
            raise
        finally:
            if waiter in line:
                line.remove(waiter)
            self._drop_empty(name)
            self._show(name)

    async def _turn(self, name: str, waiter: _Waiter, resume: bool, deadline_s: float) -> InstanceId:
        """Waits for READY no longer than the queue wait, for room until the deadline."""
        loop = asyncio.get_running_loop()
        give_up_s = deadline_s if resume else min(deadline_s, loop.time() + self._queue_wait_s)
        while True:
            done, _ = await asyncio.wait({waiter.turn}, timeout=max(0.0, give_up_s - loop.time()))
            if done:
                return waiter.turn.result()
            if loop.time() >= deadline_s:
                raise DeadlinePassed(f"the request's deadline passed while it waited for {name}")
            found, door = self._way(name)
            if found is Way.WAIT_FOR_READY:
                raise routing.waited_in_vain(name, door.standing if door else None)
            give_up_s = min(deadline_s, loop.time() + self._queue_wait_s)

    def _leave(self, instance: InstanceId) -> None:
        self._outstanding[instance] -= 1
        if not self._outstanding[instance]:
            del self._outstanding[instance]
        self.pump()

    def _way(self, name: str) -> tuple[Way, Door | None]:
        door = self._look(name)
        outstanding = self._outstanding[door.instance] if door else 0
        found = routing.way(name, door.standing if door else None, outstanding, self._outstanding_max)
        return found, door

    def _show(self, name: str) -> None:
        """The depth of a deployment's queue, as a metric; of one that is gone none."""
        if self._look(name) is None:
            self._shown.discard(name)
            DEPTH.remove(name)
        else:
            self._shown.add(name)
            DEPTH.labels(name).set(self.depth(name))

    def pump(self) -> None:
        """Lets in who may go, and turns away whom nothing can help: after every change of a standing or a place."""
        for name in [name for name in self._shown if self._look(name) is None]:
            self._show(name)
        for name, queue in list(self._queues.items()):
            while len(queue):
                line = queue.resumed or queue.new
                waiter = line[0]
                if waiter.turn.done():
                    line.popleft()
                    continue
                try:
                    found, door = self._way(name)
                except ClusterError as error:
                    line.popleft()
                    waiter.turn.set_exception(error)
                    continue
                if found is not Way.GO or door is None:
                    break
                line.popleft()
                self._outstanding[door.instance] += 1
                waiter.turn.set_result(door.instance)
            self._drop_empty(name)

    def _drop_empty(self, name: str) -> None:
        if name in self._queues and not len(self._queues[name]):
            del self._queues[name]
