"""When the next epoch of an instance may start, and when no more may. Pure.

An epoch that ends before LOADING is an attempt; one that ends later is a crash. README.md, "How a deployment comes up".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import takewhile

from thunderline.cluster.ranks import RankState
from thunderline.scheduler.values import Epoch

ATTEMPT_COUNT_MAX = 8
ATTEMPT_WINDOW_S = 600.0
# After the attempts are used up, one more this often: what was wrong outside may have been mended.
ATTEMPT_RETRY_S = 60.0
CRASH_COUNT_MAX = 5
CRASH_WINDOW_S = 600.0
# An epoch that served for this long, or answered a request, breaks a row of crashes.
HEALTHY_S = 30.0
PERMANENT_RECHECK_S = 10.0
# Ends on purpose: it was told to end, its machine was, or it was another store's. A new beginning follows.
DELIBERATE = {"STOPPED", "REBOOTED", "ADOPTED"}
BEFORE_LOADING = {RankState.STARTING, RankState.PREPARED, RankState.CONNECTING, RankState.VERIFYING}


class Next(Enum):
    NOW = auto()
    AT = auto()  # Not before `at_s`.
    NEVER = auto()  # A permanent cause, checked again at `at_s`.
    OPEN = auto()  # The circuit is open: a human or other files close it.


@dataclass(frozen=True, slots=True)
class Attempt:
    next: Next
    at_s: float
    # Epochs that failed in a row, newest last.
    failed: tuple[Epoch, ...]
    # Only the slow retry is left.
    used_up: bool = False
    # Those of them that count towards the circuit.
    crash_count: int = 0

    def is_due(self, now_s: float) -> bool:
        """Whether `at_s` has come. A clock that was set back behind the last end says nothing of it: then it has."""
        return has_passed(self.failed[-1].ended_s or 0.0 if self.failed else 0.0, self.at_s, now_s)

    @property
    def has_given_up(self) -> bool:
        """Whether no next epoch is near: only something new, as other files, makes one start at once."""
        return self.next in {Next.NEVER, Next.OPEN} or self.used_up


# What `next_attempt` is to its caller: a simulation passes others, that are wrong.
NextAttempt = Callable[[Sequence[Epoch], int, float, float], Attempt]


def has_passed(since_s: float, until_s: float, now_s: float) -> bool:
    """Whether a wait is over, by the wall clock: no wait is longer than itself because somebody set that."""
    return not since_s <= now_s < until_s


def next_attempt(epochs: Sequence[Epoch], fresh_above: int, wait_min_s: float, wait_max_s: float) -> Attempt:
    """What the ended epochs above that of the last Deploy, of the newest files, allow.

    `at_s` is a time of the wall clock.
    """
    row = _failed_row(epochs, fresh_above)
    if not row:
        return Attempt(Next.NOW, 0.0, ())
    last = row[-1]
    ended_s = last.ended_s or 0.0
    if last.cause is not None and last.cause.permanent:
        return Attempt(Next.NEVER, ended_s + PERMANENT_RECHECK_S, row)
    crashes = [
        epoch
        for epoch in row
        if is_crash(epoch) and not was_healthy(epoch) and (epoch.ended_s or 0.0) > ended_s - CRASH_WINDOW_S
    ]
    if len(crashes) >= CRASH_COUNT_MAX and is_crash(last):
        return Attempt(Next.OPEN, 0.0, row, crash_count=len(crashes))
    attempts = _attempts(row)
    if len(attempts) >= ATTEMPT_COUNT_MAX or (attempts and ended_s - attempts[0].started_s > ATTEMPT_WINDOW_S):
        return Attempt(Next.AT, ended_s + ATTEMPT_RETRY_S, row, used_up=True)
    if was_healthy(last):
        # It served, and requests wait for what they began to get: the wait is for what fails in a row.
        return Attempt(Next.NOW, 0.0, row)
    failures = sum(not was_healthy(epoch) for epoch in row)
    wait_s: float = min(wait_max_s, wait_min_s * 2 ** min(failures - 1, 16))
    return Attempt(Next.AT, ended_s + wait_s, row)


def is_crash(epoch: Epoch) -> bool:
    return epoch.cause is None or epoch.cause.state not in BEFORE_LOADING


def is_deliberate(epoch: Epoch) -> bool:
    """Whether somebody wanted its end: no failure."""
    return epoch.cause is not None and epoch.cause.name in DELIBERATE


def _failed_row(epochs: Sequence[Epoch], fresh_above: int) -> tuple[Epoch, ...]:
    """Epochs that ended since the last Deploy, back to the newest one that was healthy (that one is no crash).

    Other files are a new beginning: what failed with the old ones says nothing of them.
    """
    row: list[Epoch] = []
    for epoch in reversed(epochs):
        if not epoch.is_over or epoch.number <= fresh_above or epoch.digest != epochs[-1].digest:
            break
        if is_deliberate(epoch):
            break
        row.append(epoch)
        if was_healthy(epoch):
            break
    return tuple(reversed(row))


def _attempts(row: Sequence[Epoch]) -> list[Epoch]:
    """Those at its end, newest last: a crash shows that what had failed before it was mended."""
    return list(takewhile(lambda epoch: not is_crash(epoch), reversed(row)))[::-1]


def was_healthy(epoch: Epoch) -> bool:
    served_s = (epoch.ended_s or 0.0) - epoch.ready_s if epoch.ready_s is not None else 0.0
    return epoch.answered or served_s >= HEALTHY_S
