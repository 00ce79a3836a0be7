"""A role whose event loop stands still ends itself: whoever starts it again gets one that answers."""

import asyncio
import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable

from thunderline.process.awake import AwakeClock

BEAT_S = 1.0
STANDS_S = 10.0
# sysexits.h EX_SOFTWARE, as for any other bug.
EXIT_CODE = 70

log = logging.getLogger(__name__)


class LoopWatch:
    """Whether the loop has counted on, seen from a thread that ticks once a second. Pure."""

    def __init__(self, stands_s: float) -> None:
        self._stands_s = stands_s
        self._clock = AwakeClock()
        self._beats, self._since_s = -1, 0.0

    def stands(self, beats: int, monotonic_s: float) -> bool:
        now_s = self._clock.tick(monotonic_s)
        if beats != self._beats:
            self._beats, self._since_s = beats, now_s
        return now_s - self._since_s >= self._stands_s


@contextlib.asynccontextmanager
async def watched(
    stands_s: float = STANDS_S, beat_s: float = BEAT_S, end: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """For the time of the block, this loop is watched; `end` is called from another thread when it stands."""
    beats, over = 0, threading.Event()

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(beat_s)

    def watch() -> None:
        watch = LoopWatch(stands_s)
        while not over.wait(beat_s):
            if watch.stands(beats, time.monotonic()):
                return (end or _end)()

    beating = asyncio.create_task(beat(), name="beat")
    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        beating.cancel()


def _end() -> None:
    log.critical("the event loop stands still: the role ends itself")
    faulthandler.dump_traceback(sys.stderr)
    sys.stderr.flush()
    os._exit(EXIT_CODE)
