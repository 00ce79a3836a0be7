"""The queues before the instances: one for each word, bounded, first in first out; a resume goes before new requests.

Several words may mean one instance, and one word several instances: whose turn it is goes by the kind of a request and
its arrival, whatever its word. One that cannot go holds back those who fit where it fits, and nobody elsewhere. A
request that ranks were lost under goes first of all, and alone: never beside others that are under way, for whom it
waits until its own deadline, and from time to time nobody new is let in there so that its moment may come. Until its
first new token nobody else is let in where it goes, and after a while nobody but new requests and resumes: of two such
requests one may be innocent.
"""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from prometheus_client import Gauge, Histogram

from thunderline.cluster import InstanceId
from thunderline.cluster.errors import ClusterError, DeadlinePassed, Full, Unreachable
from thunderline.scheduler import routing
from thunderline.scheduler.lines import Look, Losses
from thunderline.scheduler.routing import Candidate, Door, Kind, Request, Way

FULL_RETRY_AFTER_S = 1.0
RESUME_COUNT_MAX = 256

DEPTH = Gauge("thunderline_queue_depth", "Requests that wait for READY or for room.", ["deployment"])
WAIT = Histogram("thunderline_queue_wait_seconds", "Time from a request's arrival to its instance.")


@dataclass(eq=False)
class Place:
    """A request at the instance of a deployment. `begun_s` is of the loop's clock."""

    deployment: str
    instance: InstanceId
    kind: Kind
    begun_s: float
    tokens: int = 0
    # Whether a new token of one that went alone was seen.
    spoke: bool = False


@dataclass(eq=False)
class _Waiter:
    kind: Kind
    request: Request
    turn: "asyncio.Future[Place]"
    arrived_s: float


@dataclass
class _Queue:
    lines: tuple[deque[_Waiter], ...] = field(default_factory=lambda: tuple(deque() for _ in Kind))
    # Of the word's doors, while somebody waits.
    losses: Losses = field(default_factory=Losses)

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

    @property
    def tokens(self) -> int:
        return sum(one.tokens for one in self.places)


class Admission:
    """`look` gives the doors that a word means now, first the one that bears it; none of what is not deployed."""

    def __init__(
        self,
        look: Callable[[str], Sequence[Door]],
        queue_size_max: int,
        outstanding_max: int,
        queue_wait_s: float,
        alone_wait_s: float = routing.ALONE_WAIT_S,
        alone_hold_s: float = routing.ALONE_HOLD_S,
        alone_again_s: float = routing.ALONE_AGAIN_S,
    ) -> None:
        self._look = look
        self._queue_size_max = queue_size_max
        self._outstanding_max = outstanding_max
        self._queue_wait_s = queue_wait_s
        self._alone_wait_s = alone_wait_s
        self._alone_hold_s = alone_hold_s
        self._alone_again_s = alone_again_s
        self._queues: dict[str, _Queue] = {}
        self._houses: dict[InstanceId, _House] = {}
        # Who waits to be alone at an instance; and when it was last kept free, for whomever.
        self._claims: dict[InstanceId, _Waiter] = {}
        self._turns: dict[InstanceId, float] = {}
        # When the next of the new ones has waited long enough for READY.
        self._alarm: asyncio.TimerHandle | None = None
        # Whose depth is shown: no longer than they are known.
        self._shown: set[str] = set()
        # Why nobody is let in any more.
        self._closing: str | None = None

    def depth(self, name: str) -> int:
        """Of a deployment: those who wait by its name, or by its model's when no deployment bears that."""
        return sum(len(queue) for word, queue in self._queues.items() if self._host(word) == name)

    def _host(self, word: str) -> str | None:
        doors = self._look(word)
        return doors[0].name if doors else None

    @contextlib.asynccontextmanager
    async def admitted(
        self, word: str, kind: Kind, deadline_s: float, request: Request = routing.UNKNOWN
    ) -> AsyncIterator[Place]:
        """Holds a place at an instance for the time of the block. `deadline_s` is a time of the loop's clock.

        Raises what routing refuses with, Full, NoReadyInstance, DeadlinePassed; Unreachable once the role stops.
        """
        begun = asyncio.get_running_loop().time()
        place = await self._enter(word, kind, deadline_s, request)
        WAIT.observe(asyncio.get_running_loop().time() - begun)
        try:
            yield place
        finally:
            self._leave(place)

    def spoke(self, place: Place) -> None:
        """The first new token of a request that went alone: the others may follow."""
        place.spoke = True
        self.pump()

    async def _enter(self, word: str, kind: Kind, deadline_s: float, request: Request) -> Place:
        if self._closing is not None:
            raise Unreachable(self._closing)
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(word, _Queue())
        waiter = _Waiter(kind, request, loop.create_future(), loop.time())
        queue.lines[kind].append(waiter)
        try:
            # At once, when nobody waits before it; whoever nothing can help does not wait either.
            self._let_in()
            if waiter.turn.done():
                return waiter.turn.result()
            if (others := queue.count(kind) - 1) >= (self._queue_size_max if kind is Kind.NEW else RESUME_COUNT_MAX):
                raise Full(f"{others} requests wait for {word} already", retry_after_s=FULL_RETRY_AFTER_S)
            return await self._wait(word, queue, waiter, deadline_s)
        finally:
            self._withdraw(queue, waiter)
            self._drop_empty(word)

    async def _wait(self, word: str, queue: _Queue, waiter: _Waiter, deadline_s: float) -> Place:
        """Its turn, or what it is turned away with; at its deadline it goes by itself."""
        self._show(word)
        try:
            await asyncio.wait({waiter.turn}, timeout=max(0.0, deadline_s - asyncio.get_running_loop().time()))
        except asyncio.CancelledError:
            if waiter.turn.done() and waiter.turn.exception() is None:
                # Its turn came in the moment in which its client left: the place goes to the next.
                self._leave(waiter.turn.result())
            raise
        finally:
            self._withdraw(queue, waiter)
            self._show(word)
        if waiter.turn.done():
            return waiter.turn.result()
        raise DeadlinePassed(f"the request's deadline passed while it waited for {word}")

    def _withdraw(self, queue: _Queue, waiter: _Waiter) -> None:
        line = queue.lines[waiter.kind]
        if waiter in line:
            line.remove(waiter)
            if self._unclaim(waiter):
                # It held the others back.
                self.pump()

    def _way(self, queue: _Queue, look: Look, waiter: _Waiter) -> tuple[Way, Door]:
        """What one of a line gets now, and where. Raises what it is refused with."""
        now_s = asyncio.get_running_loop().time()
        candidates = [self._candidate(door, look, waiter, now_s) for door in look.doors]
        found, door = routing.choose(look.word, candidates, waiter.request)
        if found is Way.WAIT_FOR_READY and waiter.kind is Kind.NEW:
            lost_s = queue.losses.away_since_s(routing.fitting(look.doors, waiter.request))
            self._give_up(door, routing.gives_up_s(waiter.arrived_s, lost_s, self._queue_wait_s), now_s)
        if waiter.kind is Kind.ALONE:
            if found is Way.WAIT_FOR_ROOM:
                self._claim(look, waiter, now_s)
            else:
                self._unclaim(waiter)
        return found, door

    def _candidate(self, door: Door, look: Look, waiter: _Waiter, now_s: float) -> Candidate:
        house = self._houses.get(door.instance) or _House()
        is_open = not look.is_kept(door.instance) and self._may_enter(door.instance, house, waiter, now_s)
        return Candidate(door, len(house.places), house.tokens, is_open)

    def _may_enter(self, instance: InstanceId, house: _House, waiter: _Waiter, now_s: float) -> bool:
        if len(house.places) >= self._outstanding_max:
            return False
        if (silent := house.silent) is not None:
            return routing.may_pass_a_silent_one(waiter.kind, now_s - silent.begun_s, self._alone_hold_s)
        claim = self._claims.get(instance)
        if waiter.kind is Kind.ALONE:
            others = sum(one.kind is not Kind.ALONE for one in house.places)
            return _yields(claim, waiter) and routing.may_go_alone(others)
        return claim is None or not routing.is_kept_free(self._turns.get(instance), now_s, self._alone_wait_s)

    def _claim(self, look: Look, waiter: _Waiter, now_s: float) -> None:
        """It waits at one instance, the one with the least under way, so that the others stay open."""
        ready = [door.instance for door in routing.fitting(look.doors, waiter.request) if routing.is_ready(door)]
        found = [one for one in ready if not look.is_kept(one) and self._may_claim(one, waiter)]
        claimed = [instance for instance in found if self._claims.get(instance) is waiter]
        if not claimed:
            self._unclaim(waiter)
            claimed = sorted(found, key=lambda one: (one in self._claims, self._houses[one].tokens))[:1]
        for instance in claimed:
            self._claims[instance] = waiter
            self._keep_free(instance, now_s)

    def _keep_free(self, instance: InstanceId, now_s: float) -> None:
        """For a while, and again later: each turn is the instance's, whoever waits for it."""
        last_s = self._turns.get(instance)
        begun_s = routing.turn_begun_s(last_s, now_s, self._alone_again_s)
        if begun_s == last_s:
            return
        young = {one: at_s for one, at_s in self._turns.items() if now_s - at_s < self._alone_again_s}
        self._turns = {**young, instance: begun_s}
        for length_s in (self._alone_wait_s, self._alone_again_s):
            asyncio.get_running_loop().call_at(begun_s + length_s, self.pump)

    def _may_claim(self, instance: InstanceId, waiter: _Waiter) -> bool:
        house, claim = self._houses.get(instance), self._claims.get(instance)
        if house is None or house.silent is not None or len(house.places) >= self._outstanding_max:
            return False
        return _yields(claim, waiter)

    def _unclaim(self, waiter: _Waiter) -> bool:
        """Whether it held an instance."""
        held = [instance for instance, claim in self._claims.items() if claim is waiter]
        for instance in held:
            del self._claims[instance]
        return bool(held)

    def _give_up(self, door: Door, at_s: float, now_s: float) -> None:
        """Raises NoReadyInstance when a new one has waited long enough for READY; looks again then."""
        if now_s >= at_s:
            raise routing.waited_in_vain(door)
        if self._alarm is None or at_s < self._alarm.when():
            self._set_alarm(at_s)

    def _set_alarm(self, at_s: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if at_s is None else asyncio.get_running_loop().call_at(at_s, self.pump)

    def _seat(self, door: Door, waiter: _Waiter) -> Place:
        loop = asyncio.get_running_loop()
        place = Place(door.name, door.instance, waiter.kind, loop.time(), waiter.request.tokens)
        house = self._houses.setdefault(door.instance, _House())
        house.places.add(place)
        if waiter.kind is Kind.ALONE:
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

    def _show(self, word: str) -> None:
        """The depth of the queues of a deployment, as a metric."""
        if (name := self._host(word)) is not None:
            self._shown.add(name)
            DEPTH.labels(name).set(self.depth(name))

    def pump(self) -> None:
        """Lets in who may go, and turns away whom nothing can help: after every change of a standing or a place."""
        for name in [name for name in self._shown if self._host(name) != name]:
            self._shown.remove(name)
            DEPTH.remove(name)
        self._let_in()
        for word in list(self._queues):
            self._drop_empty(word)

    def _let_in(self) -> None:
        now_s = asyncio.get_running_loop().time()
        # Whoever waits for READY sets it again.
        self._set_alarm(None)
        doors = {word: self._look(word) for word in self._queues}
        for word, queue in self._queues.items():
            queue.losses.see(doors[word], now_s)
        for kind in Kind:
            lines = [(Look(word, doors[word]), queue.lines[kind]) for word, queue in self._queues.items()]
            asking = [look.along(line) for look, line in lines if line]
            # Of several words the one who has waited longest.
            for look, waiter in heapq.merge(*asking, key=lambda one: one[1].arrived_s):
                if not self._lets_in(look, waiter):
                    look.stays(waiter.request)

    def _lets_in(self, look: Look, waiter: _Waiter) -> bool:
        """Whether it waits no longer: it goes, or is turned away."""
        queue = self._queues[look.word]
        try:
            way, door = self._way(queue, look, waiter)
            if way is not Way.GO:
                return False
            waiter.turn.set_result(self._seat(door, waiter))
        except ClusterError as error:
            self._unclaim(waiter)
            waiter.turn.set_exception(error)
        queue.lines[waiter.kind].remove(waiter)
        return True

    def close(self, why: str) -> None:
        """The role is stopping: whoever waits, or comes later, has reached no scheduler."""
        self._closing = why
        self._claims.clear()
        for queue in self._queues.values():
            for line in queue.lines:
                while line:
                    line.popleft().turn.set_exception(Unreachable(why))

    def _drop_empty(self, word: str) -> None:
        if word in self._queues and not len(self._queues[word]):
            del self._queues[word]


def _yields(claim: _Waiter | None, waiter: _Waiter) -> bool:
    """Whether an instance that somebody waits to be alone at is free for another such one: who came first has it."""
    return claim is None or waiter.arrived_s <= claim.arrived_s
