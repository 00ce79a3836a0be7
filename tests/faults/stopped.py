"""A rank that is stopped with SIGSTOP, and how long it may stand so: its map says it, read at the stop."""

import os
import signal
import time
from dataclasses import dataclass

import psutil

from installation import Installation, until
from patience import PATIENCE
from thunderline.cluster.rank_map import RankMark, Stand
from thunderline.runner.hang import UNTAKEN_S
from thunderline.runner.rank_process import read_mark

# The runner looks every half second, and the scheduler writes the end down.
FOUND_WITHIN_S = 2.0 * PATIENCE
STOPPED_WITHIN_S = 2.0 * PATIENCE


@dataclass(frozen=True)
class Stopped:
    """`at_s` is of the machine's monotonic clock, as the map is; `time_s` of the wall clock, as events are."""

    pid: int
    mark: RankMark
    at_s: float
    time_s: float

    @property
    def is_in_a_step(self) -> bool:
        return self.mark.stand is not Stand.IDLE

    @property
    def allowed_s(self) -> float:
        """From the stop on, while work waits for it."""
        return max(0.0, self.mark.deadline_s - self.at_s) if self.is_in_a_step else UNTAKEN_S

    @property
    def step_s(self) -> float:
        """What a runner that comes later allows, from its first look on."""
        return self.mark.deadline_s - self.mark.entered_s if self.is_in_a_step else UNTAKEN_S

    @property
    def words(self) -> str:
        """What its end says of where it stood."""
        return f", {self.mark.stand.name.lower()}" if self.is_in_a_step else "it does not take its work"


def mark_of(up: Installation, pid: int) -> RankMark | None:
    marks = map(read_mark, sorted((up.home / "run" / "ranks").glob("*.map")))
    return next((mark for mark in marks if mark is not None and mark.pid == pid), None)


def halt(pid: int) -> None:
    """Any process; returns once it stands. Raises ProcessLookupError or psutil.NoSuchProcess when it is gone."""
    os.kill(pid, signal.SIGSTOP)
    until("a stopped process", lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, STOPPED_WITHIN_S, 0.01)


def stop(up: Installation, pid: int) -> Stopped:
    """A rank. Raises as `halt` does."""
    before = mark_of(up, pid)
    at_s, time_s = time.monotonic(), time.time()
    halt(pid)
    # One that was stopped while it wrote left no whole record: the one before it counts then, as for its runner.
    mark = mark_of(up, pid) or before
    assert mark is not None, f"no map of pid {pid}"
    return Stopped(pid, mark, at_s, time_s)
