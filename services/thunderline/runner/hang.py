"""Whether a rank hangs, from its map: work, and no step for longer than the rank itself allows. Pure.

Time is that of an `AwakeClock`: while this process did not tick either (the machine slept, or starved us), nobody is
late.
"""

from dataclasses import dataclass

from thunderline.cluster.rank_map import RankMark, Stand

LOOK_EVERY_S = 0.5
# A look that comes later than this after the one before says that we have slept.
LATE_S = 1.0
# Work that was sent is taken up by a rank that lives within this time.
UNTAKEN_S = 10.0


class AwakeClock:
    """Counts the seconds between looks, of each gap no more than LATE_S."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self.now_s = 0.0

    def tick(self, monotonic_s: float) -> float:
        if self._last_s is not None:
            self.now_s += min(monotonic_s - self._last_s, LATE_S)
        self._last_s = monotonic_s
        return self.now_s


@dataclass(frozen=True, slots=True)
class Watched:
    """Where a rank stood at the last looks, and since when (awake seconds)."""

    step: int
    stand: Stand
    has_work: bool
    since_s: float


def look(before: Watched | None, mark: RankMark, has_work: bool, now_s: float) -> Watched:
    """`has_work`: somebody waits for this rank's tokens."""
    now = Watched(mark.step, mark.stand, has_work, now_s)
    if before is None or (before.step, before.stand, before.has_work) != (now.step, now.stand, now.has_work):
        return now
    return before


def hangs_s(watched: Watched, mark: RankMark, now_s: float) -> float | None:
    """Seconds without a step, when those are more than it may take; None while it is well."""
    if watched.stand is Stand.IDLE:
        allowed_s = UNTAKEN_S if watched.has_work else None
    else:
        allowed_s = mark.deadline_s - mark.entered_s if mark.deadline_s else None
    stood_s = now_s - watched.since_s
    return stood_s if allowed_s is not None and stood_s > allowed_s else None
