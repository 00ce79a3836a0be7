"""Time in which we were awake: a machine that slept, or that starved us, makes nobody late. Pure."""

# A look that comes later than this after the one before says that we have slept.
LATE_S = 1.5


class AwakeClock:
    """Counts the seconds between looks, of each gap no more than LATE_S. Looks come at least once a second."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self.now_s = 0.0

    def tick(self, monotonic_s: float) -> float:
        if self._last_s is not None:
            self.now_s += min(monotonic_s - self._last_s, LATE_S)
        self._last_s = monotonic_s
        return self.now_s
