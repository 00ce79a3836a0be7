"""Stop strings, matched on text across token borders. Pure."""

from collections.abc import Sequence


class StopMatcher:
    """Feeds on pieces of text and lets through what can no longer be part of a stop string.

    The stop string that is complete first wins, as if the text came character by character; of two that end together
    the longer one, so that nothing of either is let through. The same whatever the pieces are.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max((len(stop) for stop in stops), default=0)
        self._held = ""
        self.hit: str | None = None

    def feed(self, text: str) -> str:
        """The text that is certain now. After a hit nothing more comes."""
        if self.hit is not None:
            return ""
        if not self._stops:
            return text
        self._held += text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            _, at, self.hit = min(found)
            certain, self._held = self._held[:at], ""
            return certain
        return self._take(len(self._held) - self._doubtful_length())

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        return self._take(len(self._held))

    def _take(self, length: int) -> str:
        certain, self._held = self._held[:length], self._held[length:]
        return certain

    def _doubtful_length(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = min(len(self._held), self._longest - 1)
        return next((length for length in range(longest, 0, -1) if self._begins_one(self._held[-length:])), 0)

    def _begins_one(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stops)
