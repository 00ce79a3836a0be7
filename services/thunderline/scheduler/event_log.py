"""Keeps events, in memory and in the store, and tells them to those who watch."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.errors import Draining, StoreUnavailable
from thunderline.process.changes import Changes
from thunderline.scheduler import events
from thunderline.scheduler.events import Event, RankFacts, Seen
from thunderline.scheduler.reconciler import Waits
from thunderline.scheduler.store import EVENT_COUNT_MAX, Store
from thunderline.scheduler.values import Standing, Wish, World

# Events that wait for a store that takes nothing; then the oldest of them are not kept.
UNWRITTEN_COUNT_MAX = 200
RETRY_S = 0.5
# A store counts as back when nothing of it has failed for this time: a nearly full disk takes one write in two.
QUIET_S = 2.0

log = logging.getLogger(__name__)


class EventLog:
    """The newest events are in memory: a watcher reads them by number, as slowly as it likes."""

    def __init__(self, store: Store, writer: ThreadPoolExecutor, changes: Changes) -> None:
        self._store = store
        self._writer = writer
        self._changes = changes
        self._seen = Seen({})
        self._kept: deque[Event] = deque(maxlen=EVENT_COUNT_MAX)
        self._unwritten: deque[Event] = deque()
        self._dropped_count = 0
        self._newest = 0
        # The newest that watchers get: one that is neither written nor tried to be may yet be lost with its number.
        self._tried = 0
        self._away_since_s: float | None = None
        self._failed_s = 0.0
        self._awake = asyncio.Event()

    async def load(self, wishes: Iterable[Wish]) -> None:
        """What is kept, and what is known already. Raises StoreUnavailable."""
        kept = await asyncio.get_running_loop().run_in_executor(self._writer, self._store.events)
        self._kept.extend(kept)
        self._newest = self._tried = kept[-1].number if kept else 0
        self._seen = events.at_start(wishes, kept)

    def know(self, wishes: Iterable[Wish]) -> None:
        """Deployments that were rebuilt: what they have is not told as new."""
        self._seen = events.with_known(self._seen, wishes)

    def look(
        self,
        world: World,
        standings: Mapping[InstanceId, Standing],
        facts: Mapping[RankId, RankFacts],
        now_s: float,
        waits: Waits,
    ) -> None:
        """After every pass."""
        told, self._seen = events.happened(self._seen, world, standings, facts, now_s, waits)
        for event in told:
            self.add(event)

    def add(self, event: Event) -> None:
        """Returns at once; it is written by `run`."""
        self._newest += 1
        event = events.numbered(event, self._newest)
        self._kept.append(event)
        self._unwritten.append(event)
        if len(self._unwritten) > UNWRITTEN_COUNT_MAX:
            self._unwritten.popleft()
            self._dropped_count += 1
        told = {"event": event.kind, "subject": event.subject, "requests": event.request_count, "done": event.done}
        log.info(event.text, extra={**told, "number": event.number})
        self._awake.set()

    def store_failed(self, error: StoreUnavailable) -> None:
        """A call of the store has failed: told once, until it is back."""
        self._failed_s = time.monotonic()
        if self._away_since_s is None:
            self._away_since_s = self._failed_s
            self.add(events.store_unavailable(self._store.node, error.message, time.time()))

    async def run(self) -> None:
        """Writes, until cancelled."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._unwritten or self._away_since_s is not None:
                if await self._write():
                    self._look_whether_back()
                if self._away_since_s is not None:
                    await asyncio.sleep(RETRY_S)

    async def _write(self) -> bool:
        batch = tuple(self._unwritten)
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._store.keep, batch)
        except StoreUnavailable as error:
            self.store_failed(error)
            written = False
        else:
            written = True
            while batch and self._unwritten and self._unwritten[0].number <= batch[-1].number:
                self._unwritten.popleft()
        if batch and batch[-1].number > self._tried:
            self._tried = batch[-1].number
            self._changes.notify()
        return written

    def _look_whether_back(self) -> None:
        now_s = time.monotonic()
        if self._away_since_s is not None and now_s >= self._failed_s + QUIET_S:
            away_s, self._away_since_s = now_s - self._away_since_s, None
            dropped_count, self._dropped_count = self._dropped_count, 0
            self.add(events.store_back(self._store.node, away_s, dropped_count, time.time()))

    async def watch(self, after: int, kept_only: bool) -> AsyncIterator[Event]:
        """Those above `after`, oldest first, then each as it happens. Raises Draining when the role stops."""
        # A number that was never given is another store's: what comes from now on is new to its reader.
        seen = min(after, self._tried)
        while True:
            version = self._changes.version
            for event in self._above(seen):
                if self._changes.stopped:
                    break
                yield event
                seen = event.number
            if self._changes.stopped:
                raise Draining("the scheduler is stopping")
            if kept_only:
                return
            await self._changes.after(version)

    def _above(self, number: int) -> Sequence[Event]:
        if number >= self._tried:
            return ()
        return [event for event in self._kept if number < event.number <= self._tried]

    def close(self) -> None:
        """A last try for what is not written yet; the writer's thread ends after it."""
        if self._unwritten:
            self._writer.submit(self._store.keep, tuple(self._unwritten))
