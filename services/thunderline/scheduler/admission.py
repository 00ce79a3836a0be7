"""The door of each deployment: a bounded queue, first in first out; a resume goes before new requests.

A request that ranks were lost under goes first of all, and alone: until its first new token nobody else is let in, and
after a while nobody but new requests and resumes: of two such requests one may be innocent.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from prometheus_client import Gauge, Histogram

from thunderline.cluster import InstanceId
from thunderline.cluster.errors import ClusterError, DeadlinePassed, Full, Unreachable
from thunderline.scheduler import routing
from thunderline.scheduler.routing import Kind, Turn, Way
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
    arrived_s: float


@dataclass
class _Queue:
    lines: tuple[deque[_Waiter], ...] = field(default_factory=lambda: tuple(deque() for _ in Kind))
    # Since when the first of those who go alone has waited for those who run.
    alone_since_s: float | None = None
    # Since when the deployment was seen not to be READY, while somebody waits.
    away_since_s: float | None = None
    # When the oldest of the new ones has waited long enough for READY.
    alarm: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(len(line) for line in self.lines)

    def count(self, kind: Kind) -> int:
        """Those who share its bound: new requests, or resumes of either kind."""
        return len(self.lines[Kind.NEW]) if kind is Kind.NEW else len(self) - len(self.lines[Kind.NEW])


@dataclass
class _House:
    """Who is at an instance."""

    places: set[Place] = field(default_factory=set)
    # The newest that went alone: all before it have spoken.
    alone: Place | None = None

    @property
    def silent(self) -> Place | None:
        """The one that went alone and has not spoken."""
        return self.alone if self.alone and not self.alone.spoke else None


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
        # Why nobody is let in any more.
        self._closing: str | None = None

    def depth(self, name: str) -> int:
        return len(self._queues.get(name, ()))

    @contextlib.asynccontextmanager
    async def admitted(self, name: str, kind: Kind, deadline_s: float) -> AsyncIterator[Place]:
        """Holds a place at an instance for the time of the block. `deadline_s` is a time of the loop's clock.

        Raises what routing refuses with, Full, NoReadyInstance, DeadlinePassed; Unreachable once the role stops.
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
        if self._closing is not None:
            raise Unreachable(self._closing)
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(name, _Queue())
        waiter = _Waiter(kind, loop.create_future(), loop.time())
        queue.lines[kind].append(waiter)
        try:
            # At once, when nobody waits before it; whoever nothing can help does not wait either.
            self._let_in(name, queue)
            if waiter.turn.done():
                return waiter.turn.result()
            if (others := queue.count(kind) - 1) >= (self._queue_size_max if kind is Kind.NEW else RESUME_COUNT_MAX):
                raise Full(f"{others} requests wait for {name} already", retry_after_s=FULL_RETRY_AFTER_S)
            return await self._wait(name, queue, waiter, deadline_s)
        finally:
            self._withdraw(queue, waiter)
            self._drop_empty(name)

    async def _wait(self, name: str, queue: _Queue, waiter: _Waiter, deadline_s: float) -> Place:
        """Its turn, or what it is turned away with; at its deadline it goes by itself."""
        self._show(name)
        try:
            await asyncio.wait({waiter.turn}, timeout=max(0.0, deadline_s - asyncio.get_running_loop().time()))
        except asyncio.CancelledError:
            if waiter.turn.done() and waiter.turn.exception() is None:
                # Its turn came in the moment in which its client left: the place goes to the next.
                self._leave(waiter.turn.result())
            raise
        finally:
            self._withdraw(queue, waiter)
            self._show(name)
        if waiter.turn.done():
            return waiter.turn.result()
        raise DeadlinePassed(f"the request's deadline passed while it waited for {name}")

    def _withdraw(self, queue: _Queue, waiter: _Waiter) -> None:
        line = queue.lines[waiter.kind]
        if waiter in line:
            line.remove(waiter)
            if waiter.kind is Kind.ALONE and not line:
                # It held the others back.
                queue.alone_since_s = None
                self.pump()

    def _turn(self, name: str, queue: _Queue, waiter: _Waiter) -> tuple[Turn, InstanceId]:
        """Whether the first of a line may go now, and where. Raises what it is refused with."""
        door = self._look(name)
        house = (self._houses.get(door.instance) if door else None) or _House()
        found = routing.way(name, door.standing if door else None, len(house.places), self._outstanding_max)
        assert door is not None, "routing refuses what is not deployed"
        now_s = asyncio.get_running_loop().time()
        if found is Way.WAIT_FOR_READY:
            queue.alone_since_s = None
            if queue.away_since_s is None:
                queue.away_since_s = now_s
            if waiter.kind is Kind.NEW:
                self._give_up(name, queue, waiter, door.standing, now_s)
            return Turn.LETS_PASS, door.instance
        queue.away_since_s = None
        if found is Way.WAIT_FOR_ROOM:
            return Turn.WAITS, door.instance
        silent = house.silent
        if silent is not None:
            turn = routing.turn_beside_a_silent_one(waiter.kind, now_s - silent.begun_s, self._alone_hold_s)
        elif waiter.kind is Kind.ALONE and not self._goes_alone(queue, house, now_s):
            turn = Turn.WAITS
        else:
            turn = Turn.GOES
        return turn, door.instance

    def _give_up(self, name: str, queue: _Queue, waiter: _Waiter, standing: Standing, now_s: float) -> None:
        """Raises NoReadyInstance when the oldest of the new ones has waited long enough for READY; looks again then."""
        assert queue.away_since_s is not None
        at_s = routing.gives_up_s(waiter.arrived_s, queue.away_since_s, self._queue_wait_s)
        if now_s >= at_s:
            raise routing.waited_in_vain(name, standing)
        if queue.alarm is not None:
            queue.alarm.cancel()
        queue.alarm = asyncio.get_running_loop().call_at(at_s, self.pump)

    def _goes_alone(self, queue: _Queue, house: _House, now_s: float) -> bool:
        loop = asyncio.get_running_loop()
        if queue.alone_since_s is None:
            queue.alone_since_s = now_s
            loop.call_at(now_s + self._alone_wait_s, self.pump)
        others = sum(one.kind is not Kind.ALONE for one in house.places)
        if not routing.may_go_alone(others, now_s - queue.alone_since_s, self._alone_wait_s):
            return False
        queue.alone_since_s = None
        return True

    def _seat(self, instance: InstanceId, kind: Kind) -> Place:
        loop = asyncio.get_running_loop()
        place = Place(instance, kind, loop.time())
        house = self._houses.setdefault(instance, _House())
        house.places.add(place)
        if kind is Kind.ALONE:
            house.alone = place
            loop.call_at(place.begun_s + self._alone_hold_s, self.pump)
        return place

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
            self._let_in(name, queue)
            self._drop_empty(name)

    def _let_in(self, name: str, queue: _Queue) -> None:
        for line in queue.lines:
            while line:
                waiter = line[0]
                try:
                    turn, instance = self._turn(name, queue, waiter)
                except ClusterError as error:
                    line.popleft()
                    waiter.turn.set_exception(error)
                    continue
                if turn is Turn.WAITS:
                    return
                if turn is Turn.LETS_PASS:
                    break
                line.popleft()
                waiter.turn.set_result(self._seat(instance, waiter.kind))

    def close(self, why: str) -> None:
        """The role is stopping: whoever waits, or comes later, has reached no scheduler."""
        self._closing = why
        for queue in self._queues.values():
            for line in queue.lines:
                while line:
                    line.popleft().turn.set_exception(Unreachable(why))

    def _drop_empty(self, name: str) -> None:
        if name in self._queues and not len(self._queues[name]):
            del self._queues[name]
