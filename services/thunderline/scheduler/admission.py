"""The door of each deployment: a bounded queue, first in first out; a resume goes before new requests.

A request that ranks were lost under goes first of all, and alone: until its first new token nobody else is let in.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from prometheus_client import Gauge, Histogram

from thunderline.cluster import InstanceId
from thunderline.cluster.errors import ClusterError, DeadlinePassed, Full
from thunderline.scheduler import routing
from thunderline.scheduler.routing import Kind, Way
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
class Place:
    """A request at an instance. `begun_s` is of the loop's clock."""

    instance: InstanceId
    kind: Kind
    begun_s: float
    # Whether a new token of one that went alone was seen.
    spoke: bool = False


@dataclass(eq=False)
class _Waiter:
    kind: Kind
    turn: "asyncio.Future[Place]"


@dataclass
class _Queue:
    lines: tuple[deque[_Waiter], ...] = field(default_factory=lambda: tuple(deque() for _ in Kind))
    # Since when the first of those who go alone has waited for those who run.
    alone_since_s: float | None = None

    def __len__(self) -> int:
        return sum(len(line) for line in self.lines)

    def count(self, kind: Kind) -> int:
        """Those who share its bound: new requests, or resumes of either kind."""
        return len(self.lines[Kind.NEW]) if kind is Kind.NEW else len(self) - len(self.lines[Kind.NEW])

    def is_before(self, kind: Kind) -> bool:
        """Whether somebody waits whose turn comes before that of a newcomer."""
        return any(self.lines[: kind + 1])


@dataclass
class _House:
    """Who is at an instance."""

    places: set[Place] = field(default_factory=set)
    # The newest that went alone.
    alone: Place | None = None


class Admission:
    """`look` gives the door of a deployment now, by name, or None."""

    def __init__(
        self,
        look: Callable[[str], Door | None],
        queue_size_max: int,
        outstanding_max: int,
        queue_wait_s: float,
        alone_wait_s: float = routing.ALONE_WAIT_S,
        alone_hold_s: float = routing.ALONE_HOLD_S,
    ) -> None:
        self._look = look
        self._queue_size_max = queue_size_max
        self._outstanding_max = outstanding_max
        self._queue_wait_s = queue_wait_s
        self._alone_wait_s = alone_wait_s
        self._alone_hold_s = alone_hold_s
        self._queues: dict[str, _Queue] = {}
        self._houses: dict[InstanceId, _House] = {}
        # Whose depth is shown: no longer than they are known.
        self._shown: set[str] = set()

    def depth(self, name: str) -> int:
        return len(self._queues.get(name, ()))

    @contextlib.asynccontextmanager
    async def admitted(self, name: str, kind: Kind, deadline_s: float) -> AsyncIterator[Place]:
        """Holds a place at an instance for the time of the block. `deadline_s` is a time of the loop's clock.

        Raises what routing refuses with, Full, NoReadyInstance, DeadlinePassed.
        """
        begun = asyncio.get_running_loop().time()
        place = await self._enter(name, kind, deadline_s)
        WAIT.observe(asyncio.get_running_loop().time() - begun)
        try:
            yield place
        finally:
            self._leave(place)

    def spoke(self, place: Place) -> None:
        """The first new token of a request that went alone: the others may follow."""
        place.spoke = True
        self.pump()

    async def _enter(self, name: str, kind: Kind, deadline_s: float) -> Place:
        queue = self._queues.setdefault(name, _Queue())
        try:
            # Whoever nothing can help does not wait.
            self._way(name)
            if not queue.is_before(kind) and (place := self._goes(name, queue, kind)):
                return place
            if (count := queue.count(kind)) >= (self._queue_size_max if kind is Kind.NEW else RESUME_COUNT_MAX):
                raise Full(f"{count} requests wait for {name} already", retry_after_s=FULL_RETRY_AFTER_S)
            waiter = _Waiter(kind, asyncio.get_running_loop().create_future())
            return await self._wait(name, queue, waiter, deadline_s)
        finally:
            self._drop_empty(name)

    async def _wait(self, name: str, queue: _Queue, waiter: _Waiter, deadline_s: float) -> Place:
        line = queue.lines[waiter.kind]
        line.append(waiter)
        self._show(name)
        try:
            return await self._turn(name, waiter, deadline_s)
        except asyncio.CancelledError:
            if waiter.turn.done() and waiter.turn.exception() is None:
                # Its turn came in the moment in which its client left: the place goes to the next.
                self._leave(waiter.turn.result())
            raise
        finally:
            if waiter in line:
                line.remove(waiter)
                if waiter.kind is Kind.ALONE and not line:
                    # It held the others back.
                    queue.alone_since_s = None
                    self.pump()
            self._show(name)

    async def _turn(self, name: str, waiter: _Waiter, deadline_s: float) -> Place:
        """Waits for READY no longer than the queue wait, for room until the deadline; a resume always until that."""
        loop = asyncio.get_running_loop()
        is_new = waiter.kind is Kind.NEW
        give_up_s = min(deadline_s, loop.time() + self._queue_wait_s) if is_new else deadline_s
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

    def _way(self, name: str) -> tuple[Way, Door | None]:
        door = self._look(name)
        house = self._houses.get(door.instance) if door else None
        outstanding = len(house.places) if house else 0
        return routing.way(name, door.standing if door else None, outstanding, self._outstanding_max), door

    def _goes(self, name: str, queue: _Queue, kind: Kind) -> Place | None:
        """A place for the first in line, if it may go now. Raises what routing refuses with."""
        found, door = self._way(name)
        if found is Way.WAIT_FOR_READY:
            queue.alone_since_s = None
        if found is not Way.GO or door is None:
            return None
        now_s = asyncio.get_running_loop().time()
        house = self._houses.get(door.instance) or _House()
        if house.alone and routing.holds_others_back(
            house.alone.spoke, now_s - house.alone.begun_s, self._alone_hold_s
        ):
            return None
        if kind is Kind.ALONE and not self._goes_alone(queue, house, now_s):
            return None
        place = Place(door.instance, kind, now_s)
        if kind is Kind.ALONE:
            house.alone = place
        house.places.add(place)
        self._houses[door.instance] = house
        return place

    def _goes_alone(self, queue: _Queue, house: _House, now_s: float) -> bool:
        loop = asyncio.get_running_loop()
        if queue.alone_since_s is None:
            queue.alone_since_s = now_s
            loop.call_at(now_s + self._alone_wait_s, self.pump)
        others = sum(not (one.kind is Kind.ALONE and one.spoke) for one in house.places)
        if not routing.may_go_alone(others, now_s - queue.alone_since_s, self._alone_wait_s):
            return False
        queue.alone_since_s = None
        loop.call_at(now_s + self._alone_hold_s, self.pump)
        return True

    def _leave(self, place: Place) -> None:
        house = self._houses[place.instance]
        house.places.remove(place)
        if house.alone is place:
            house.alone = None
        if not house.places:
            del self._houses[place.instance]
        self.pump()

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
            while line := next(filter(None, queue.lines), None):
                waiter = line[0]
                if waiter.turn.done():
                    line.popleft()
                    continue
                try:
                    place = self._goes(name, queue, waiter.kind)
                except ClusterError as error:
                    line.popleft()
                    waiter.turn.set_exception(error)
                    continue
                if place is None:
                    break
                line.popleft()
                waiter.turn.set_result(place)
            self._drop_empty(name)

    def _drop_empty(self, name: str) -> None:
        if name in self._queues and not len(self._queues[name]):
            del self._queues[name]
