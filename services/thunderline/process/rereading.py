"""What is read from the system again and again. A read that fails passes: the next look is soon."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

LOG_EVERY_S = 60.0

log = logging.getLogger(__name__)

T = TypeVar("T")


class Rereading(Generic[T]):
    """`read` blocks, and may raise OSError. `what` is for the log."""

    def __init__(self, what: str, read: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._read = read
        self._clock = clock
        self._logged_s: float | None = None

    async def look(self) -> T | None:
        """None when it cannot be read now."""
        try:
            return await asyncio.to_thread(self._read)
        except OSError as error:
            now_s = self._clock()
            if self._logged_s is None or now_s - self._logged_s >= LOG_EVERY_S:
                self._logged_s = now_s
                log.warning("%s cannot be read; tried again", self._what, extra={"why": str(error)})
            return None
