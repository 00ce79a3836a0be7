"""How long an engine step may take before its rank counts as hung. Pure.

Ten seconds, and ten times what is expected of the step: its prompt tokens at the measured rate, and the slowest of the
last steps that only decoded. README.md, "Time limits".
"""

from collections import deque

BASE_S, FACTOR = 10.0, 10.0
# Until so many steps are known: the first ones compile and touch memory.
UNKNOWN_S, KNOWN_COUNT = 60.0, 10
REMEMBERED_COUNT = 32


class StepTimes:
    """The durations of the last steps that processed no prompt, in seconds."""

    def __init__(self) -> None:
        self._decoded_s: deque[float] = deque(maxlen=REMEMBERED_COUNT)
        self._count = 0

    def note(self, duration_s: float, prefill_tokens: int) -> None:
        self._count += 1
        if not prefill_tokens:
            self._decoded_s.append(duration_s)

    def allowed_s(self, prefill_s: float) -> float:
        """For the step that comes; `prefill_s` is what its prompt tokens should take."""
        if self._count < KNOWN_COUNT:
            return UNKNOWN_S
        return BASE_S + FACTOR * (prefill_s + max(self._decoded_s, default=0.0))
