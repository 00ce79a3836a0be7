"""By which interface packets to an address leave, on a Mac: `route` is asked, and what it says is kept for a while.

A process for each question: with 15 peers there would be 30 in a second. And whoever asks waits with a probe in its
hand, so that it gets what was known before, or nothing when the answer takes long.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from thunderline.process.macos.networks import route_interface
from thunderline.process.macos.running import ran

# A route that is changed by hand changes no interface.
KEPT_S = 30.0
ROUTE_S = 2.0
# Of an address that nothing is known of: `route` answers within some milliseconds, and a probe has a second.
WAIT_S = 0.25
# A process takes some 5 ms: one in two seconds is a quarter of a hundredth of a core. So often what is known is asked
# for anew, and as often what is not, but for as many at once as a node with 15 peers has addresses.
ASKS_PER_S, NEW_AT_ONCE = 0.5, 64.0
THREAD_COUNT = 4
# Whoever dials our echo has an address, too.
KNOWN_COUNT_MAX = 1024

log = logging.getLogger(__name__)


def asked(address: str, environ: Mapping[str, str] | None = None) -> str:
    """The interface by `route -n get`; "" where it does not say. Blocking, no longer than ROUTE_S and a little."""
    family = ["-inet6"] if ":" in address else []
    try:
        found = asyncio.run(ran(["route", "-n", "get", *family, address], ROUTE_S, environ))
    except OSError:
        # No file can be opened now.
        return ""
    return route_interface(found.output.text)


@dataclass(frozen=True, slots=True)
class Known:
    interface: str
    at_s: float


class MacRoutes:
    """Asked from any thread."""

    def __init__(self, ask: Callable[[str], str] = asked, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREAD_COUNT, thread_name_prefix="route")
        self._is_closed = False
        self._known: dict[str, Known] = {}
        self._asking: dict[str, Future[str]] = {}
        # Counts what was forgotten: an answer may be one of before.
        self._times = 0
        # How many new addresses may be asked for now.
        self._allowed, self._refilled_s = NEW_AT_ONCE, clock()
        self._renewed_s = clock()

    def interface(self, address: str, source: str) -> str:
        """By which packets leave for `address`; "" when nobody can tell now. `source` plays no part."""
        with self._lock:
            if self._is_closed:
                return ""
            known = self._known.get(address)
            asking = self._asking.get(address)
            if asking is None and (known is None or self._clock() - known.at_s >= self._kept_s):
                asking = self._begin(address, is_new=known is None)
        if known is not None or asking is None:
            return known.interface if known is not None else ""
        wait((asking,), WAIT_S)
        is_told = asking.done() and not asking.cancelled() and asking.exception() is None
        return asking.result() if is_told else ""

    def forget(self) -> None:
        """The interfaces are others: nothing that was said holds any more."""
        with self._lock:
            self._known.clear()
            # While `route` hangs they would be more with each change.
            for one in self._asking.values():
                one.cancel()
            self._asking.clear()
            self._times += 1
            self._allowed = NEW_AT_ONCE

    def close(self) -> None:
        """For good."""
        with self._lock:
            self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _kept_s(self) -> float:
        """Of many, each has its turn."""
        return max(KEPT_S, len(self._known) / ASKS_PER_S)

    def _begin(self, address: str, *, is_new: bool) -> "Future[str] | None":
        """None when there were too many questions of late."""
        now_s = self._clock()
        if is_new:
            self._allowed = min(self._allowed + (now_s - self._refilled_s) * ASKS_PER_S, NEW_AT_ONCE)
            self._refilled_s = now_s
            if self._allowed < 1:
                return None
            self._allowed -= 1
        else:
            if now_s - self._renewed_s < 1 / ASKS_PER_S:
                return None
            self._renewed_s = now_s
        asking = self._asking[address] = self._pool.submit(self._answer, address, self._times)
        asking.add_done_callback(_complain)
        return asking

    def _answer(self, address: str, times: int) -> str:
        found = ""
        try:
            found = self._ask(address)
        finally:
            # Whatever went wrong, it is asked again in its turn.
            with self._lock:
                if times == self._times:
                    del self._asking[address]
                    self._keep(address, found)
        return found

    def _keep(self, address: str, found: str) -> None:
        now_s, kept_s = self._clock(), self._kept_s
        # Who has not been asked for in two turns has gone.
        self._known = {one: of_it for one, of_it in self._known.items() if now_s - of_it.at_s < 2 * kept_s}
        if len(self._known) < KNOWN_COUNT_MAX:
            self._known[address] = Known(found, now_s)


def _complain(asking: Future[str]) -> None:
    """Nobody else may look at an answer that comes late."""
    if not asking.cancelled() and (error := asking.exception()) is not None:
        log.error("a route could not be asked for", exc_info=error)
