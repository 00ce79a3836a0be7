"""Stop strings, matched on text across token borders. Pure."""

from collections.abc import Sequence


class StopMatcher:
    """Feeds on pieces of text and lets through what can no longer be part of a stop string.

    The stop string that ends first wins; of two that end together the one that begins first. Never leaks a character
    of it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit: str | None = None

    def feed(self, text: str) -> str:
        """The text that is certain now. After a hit nothing more comes."""
        if self.hit is not None:
            return ""
        self._held += text
        if not self._stops:
            return self._take(len(self._held))
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            _, at, self.hit = min(found)
            certain, self._held = self._held[:at], ""
            return certain
        return self._take(len(self._held) - self._doubtful())

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        return "" if self.hit is not None else self._take(len(self._held))

    def _take(self, count: int) -> str:
        certain, self._held = self._held[:count], self._held[count:]
        return certain

    def _doubtful(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = min(len(self._held), max(len(stop) for stop in self._stops) - 1)
        ends = (length for length in range(longest, 0, -1) if self._begins_one(self._held[-length:]))
        return next(ends, 0)

    def _begins_one(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stops)
