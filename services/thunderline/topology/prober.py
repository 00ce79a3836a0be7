"""Probes every address of every peer at its time, by threads; what comes of it changes the rows on the event loop.

The loop looks four times a second, and no probe wakes it: with 15 peers most of what probing costs would be that.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from prometheus_client import Counter

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Outcome
from thunderline.cluster.limits import Limits
from thunderline.topology import probes
from thunderline.topology.echo_messages import Speaker
from thunderline.topology.ends import Ends
from thunderline.topology.members import Members, begun_again
from thunderline.topology.probe import Aim, Crossed, NotCrossed, probe
from thunderline.topology.probes import Arrival, Arrivals, Echoed, Row, Rows

# Addresses that swallow packets hold a thread for a whole time-out: half of 64 peers' two addresses, each period.
THREAD_COUNT = 64
TICK_S = 0.25
# Of bursts between two looks; a flood of them is told no faster than echo.py says.
ECHOED_COUNT_MAX = 4096
# All at once the probes would measure each other's threads. A little faster than needed, so that none falls behind.
SPREAD, CATCH_UP_S = 1.25, 0.5
# Protocols B, point 3: who was asleep or starved that long judges nobody for one period.
LATE_S = 1.0

PROBES = Counter("thunderline_probes_total", "Probes of addresses of peers, by how they ended.", ["outcome"])
_ENDED: dict[Outcome, Counter] = {one: PROBES.labels(one.name) for one in Outcome if one is not Outcome.UNTRIED}


class Prober:
    """`changed` is called when a row or an arrival has changed in more than its RTT."""

    def __init__(self, speaker: Speaker, ends: Ends, limits: Limits, changed: Callable[[], None]) -> None:
        self.rows: Rows = {}
        self.arrivals: Arrivals = {}
        # When each row was last tried, of the wall clock, for people.
        self.tried_at_s: dict[tuple[NodeId, str], float] = {}
        self._members = Members()
        self._speaker = speaker
        self._ends = ends
        self._limits = limits
        self._changed = changed
        self._pool = ThreadPoolExecutor(THREAD_COUNT, thread_name_prefix="probe")
        self._under_way: list[Future[None]] = []
        # By threads: what came of each probe, with the moment at which its work was begun.
        self._found: deque[tuple[tuple[NodeId, str], Crossed | NotCrossed, float]] = deque()
        # What a thread has left to others.
        self._further: deque[Future[None]] = deque()
        self._is_over = False
        self._echoed: deque[Echoed] = deque(maxlen=ECHOED_COUNT_MAX)
        self._judges_from_s = 0.0
        # How many of the usual probes may begin now.
        self._allowed = 0.0

    def follow(self, members: Members) -> None:
        """The roster is another one."""
        before, self._members = self._members, members
        self._arrange()
        for node in begun_again(before, members):
            self.rows = probes.begun_again(self.rows, node)

    def heard(self, echoed: Echoed) -> None:
        """A burst of a peer was answered. From any thread."""
        self._echoed.append(echoed)

    def _hear(self, echoed: Echoed) -> None:
        """It is evidence for the way back, too."""
        if echoed.peer not in self._members.peers:
            return
        before = self.arrivals.get(echoed.key)
        self.arrivals = probes.heard(self.arrivals, echoed)
        after = self.arrivals.get(echoed.key)
        if before is None and (echoed.peer, echoed.peer_address) not in self.rows:
            self._arrange()
        elif before is None or after is None or _gist_of_arrival(before) != _gist_of_arrival(after):
            self._changed()
        self.rows = probes.asked_back(self.rows, echoed.peer, echoed.peer_address)

    async def run(self) -> None:
        """Until cancelled. Raises what a bug has raised in a probe."""
        clock = asyncio.get_running_loop().time
        looked_s = clock()
        try:
            while True:
                now_s = clock()
                if now_s - looked_s > TICK_S + LATE_S:
                    self._judges_from_s = now_s + self._limits.probe_period_s
                self._gather()
                self._forget_the_silent(now_s)
                for work in works(self._turn(now_s, now_s - looked_s)):
                    aims = [Aim(one.peer, one.address, self._members.peers[one.peer].echo_port) for one in work]
                    self._under_way.append(self._pool.submit(self._probe, aims, now_s))
                looked_s = now_s
                await asyncio.sleep(TICK_S)
        finally:
            self._is_over = True
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _probe(self, aims: Sequence[Aim], begun_s: float) -> None:
        """One after the other. In a thread."""
        for place, aim in enumerate(aims, start=1):
            if self._is_over:
                return
            found = probe(self._speaker, aim, self._ends, self._limits.probe_timeout_s)
            self._found.append(((aim.peer, aim.address), found, begun_s))
            if not isinstance(found, Crossed) and aims[place:]:
                # A switch may have gone: each of the others waits in a thread of its own.
                with contextlib.suppress(RuntimeError):
                    self._further.extend(self._pool.submit(self._probe, [one], begun_s) for one in aims[place:])
                return

    def _turn(self, now_s: float, elapsed_s: float) -> list[Row]:
        """Those that are due: at once what is new or was heard, the others spread over their period."""
        rate_per_s = SPREAD * len(self.rows) / self._limits.probe_period_s
        # With less than that a few addresses fall behind, by what a look leaves over.
        most = max(1.0 + rate_per_s * TICK_S, rate_per_s * CATCH_UP_S)
        self._allowed = min(self._allowed + rate_per_s * elapsed_s, most)
        found: list[Row] = []
        for row in probes.due(self.rows, now_s, self._limits.probe_period_s):
            is_usual = row.tried_s is not None and not row.is_asked
            if len(self._under_way) + len(found) >= THREAD_COUNT or (is_usual and self._allowed < 1):
                break
            self._allowed -= is_usual
            self._put(probes.started(row, now_s))
            self.tried_at_s[row.key] = time.time()
            found.append(row)
        return found

    def _gather(self) -> None:
        """What the threads have found since the last look."""
        while self._echoed:
            self._hear(self._echoed.popleft())
        over = {work for work in self._under_way if work.done()}
        self._under_way = [work for work in self._under_way if work not in over]
        while self._further:
            self._under_way.append(self._further.popleft())
        for work in over:
            work.result()
        while self._found:
            self._absorb(*self._found.popleft())

    def _absorb(self, key: tuple[NodeId, str], found: Crossed | NotCrossed, begun_s: float) -> None:
        outcome = Outcome.ANSWERED if isinstance(found, Crossed) else found.outcome
        _ENDED[outcome].inc()
        row = self.rows.get(key)
        if row is None:
            # The peer has left, or has another address now.
            return
        if isinstance(found, Crossed):
            after = probes.answered(row, found.rtt_us, found.local_address, found.path)
        elif begun_s < self._judges_from_s:
            after = replace(row, in_flight=False)
        else:
            after = probes.failed(row, found.outcome, found.errno)
        self._put(after)
        if _gist(row) != _gist(after):
            self._changed()

    def _put(self, row: Row) -> None:
        self.rows = {**self.rows, row.key: row}

    def _arrange(self) -> None:
        addresses = {node: peer.addresses for node, peer in self._members.peers.items()}
        self.arrivals = {key: one for key, one in self.arrivals.items() if key[0] in addresses}
        self.rows = probes.rows_for(self.rows, addresses, self.arrivals)
        self.tried_at_s = {key: at_s for key, at_s in self.tried_at_s.items() if key in self.rows}
        self._changed()

    def _forget_the_silent(self, now_s: float) -> None:
        if now_s < self._judges_from_s:
            return
        left = probes.still_heard(self.arrivals, now_s, self._limits.probe_period_s)
        if len(left) != len(self.arrivals):
            self.arrivals = left
            self._arrange()


def works(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """What one thread does each. Addresses that always answer wait for each other, up to the first that does not: to
    wake a thread for every probe costs as much as the probe."""
    steady = [one for one in rows if one.is_steady]
    return [*([steady] if steady else []), *([one] for one in rows if not one.is_steady)]


def _gist(row: Row) -> tuple[object, ...]:
    """All but its RTTs, which others are told when somebody looks."""
    state = row.health.state if row.health else None
    return row.outcome, row.errno, row.failure_count, row.local_address, row.path, state


def _gist_of_arrival(one: Arrival) -> tuple[object, ...]:
    return one.last.arrives, one.last.returns, one.health.state
