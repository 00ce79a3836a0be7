"""The rank's map file: locked for life, readable from outside while the rank is stuck in C++."""

import fcntl
import mmap
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import psutil

from thunderline.cluster.rank_map import SIZE_BYTES, RankMark, Stand, encode
from thunderline.cluster.ranks import RankState
from thunderline.process.boot import boot_id

# Who looks whether we live holds the lock for a moment.
LOCK_COUNT_MAX, LOCK_WAIT_S = 20, 0.01


class Mark:
    """Written by this process alone, by any of its threads; each write leaves a whole record."""

    def __init__(
        self,
        path: Path,
        allowed_s: Mapping[RankState, float] | None = None,
        arm: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`allowed_s`: how long a state may last, where that is bounded; `arm` is told anew at each entry, 0 for ever.

        Raises OSError; BlockingIOError when another process is this rank already.
        """
        self._allowed_s = allowed_s or {}
        self._arm = arm
        self._file = path.open("r+b")
        _lock(self._file)
        self._file.truncate(SIZE_BYTES)
        self._map = mmap.mmap(self._file.fileno(), SIZE_BYTES)
        # The engine thread and the event loop write: one record at a time, and none from an old one.
        self._writing = threading.Lock()
        self._sequence = 0
        self._mark = RankMark(pid=os.getpid(), process_start_s=psutil.Process().create_time(), boot_id=boot_id())
        self.enter(RankState.STARTING)

    @property
    def state(self) -> RankState:
        return self._mark.state

    def enter(self, state: RankState) -> None:
        with self._writing:
            self._write(self._entered(self._allowed_s.get(state, 0.0), state=state))

    def prepared(self) -> RankState:
        """STARTING becomes PREPARED; from any later state nothing changes. Returns the state that it is in then."""
        with self._writing:
            if self._mark.state is RankState.STARTING:
                self._write(self._entered(0.0, state=RankState.PREPARED))
            return self._mark.state

    def step(self, step: int, stand: Stand, allowed_s: float = 0.0) -> None:
        """A step begins (COMPUTE), and may take so long; or the engine waits for work (IDLE)."""
        with self._writing:
            self._write(self._entered(allowed_s, step=step, stand=stand))

    def _entered(self, allowed_s: float, **changes: Any) -> RankMark:
        now_s = time.monotonic()
        self._arm(allowed_s)
        return replace(self._mark, entered_s=now_s, deadline_s=now_s + allowed_s if allowed_s else 0.0, **changes)

    def leave(self, exit_code: int) -> None:
        """The process ends itself with this code: a runner that adopted it has no other way to learn that."""
        with self._writing:
            self._write(replace(self._mark, exit_code=exit_code, deadline_s=0.0))

    def close(self) -> None:
        """Lets the lock go; the process's end does that as well."""
        self._map.close()
        self._file.close()

    def _write(self, mark: RankMark) -> None:
        self._mark = mark
        # Odd while writing: a reader that sees it reads again.
        self._map[:SIZE_BYTES] = encode(mark, self._sequence + 1)
        self._sequence += 2
        self._map[:SIZE_BYTES] = encode(mark, self._sequence)


def _lock(file: IO[bytes]) -> None:
    for tried in range(LOCK_COUNT_MAX):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if tried == LOCK_COUNT_MAX - 1:
                raise
            time.sleep(LOCK_WAIT_S)
