"""Which of the sets of one size comes first. Pure."""

from typing import NamedTuple

from thunderline.scheduler.placing.grounds import Grounds
from thunderline.scheduler.placing.sets import Members
from thunderline.scheduler.placing.values import Backend, Files


class Preference(NamedTuple):
    """Sorts the better first: the first criterion that differs decides."""

    # Of the worst link: its number among the qualities.
    quality: int
    fetch_count: int
    # Memory bandwidth of the slowest node, negative; 0 where it is not known of all.
    slowness: int
    # Nodes that lose a neighbour: those at the end of a chain go first, and leave the others together.
    outside: int
    # Free bytes of all together, negative.
    lack: int
    members: Members

    def before(self, other: "Preference") -> str:
        """By what this one comes before another."""
        words = (
            "better links",
            "more nodes that hold the files",
            "a slowest node that reads faster",
            "fewer neighbours taken from the rest",
            "more free memory",
            "node ids",
        )
        return next(word for word, mine, theirs in zip(words, self, other, strict=True) if mine != theirs)


class Preferences:
    def __init__(self, grounds: Grounds) -> None:
        self._grounds = grounds
        # By whether over rails, and quality; then by node: those (bits) that reach it so well.
        self._near: dict[tuple[bool, int], list[int]] = {}

    def of(self, members: Members, quality: int = 0, backend: Backend = Backend.RING) -> Preference:
        """`quality`: of the worst link of the best ring; the best of all where it is not known yet."""
        nodes = [self._grounds.nodes[i] for i in members]
        return Preference(
            quality=quality,
            fetch_count=sum(node.files is not Files.HELD for node in nodes),
            slowness=-min(node.memory_bytes_per_s for node in nodes),
            outside=self._outside(members, quality, backend),
            lack=-sum(self._grounds.free[i] for i in members),
            members=members,
        )

    def _outside(self, members: Members, quality: int, backend: Backend) -> int:
        key = (backend is Backend.JACCL, quality)
        if key not in self._near:
            self._near[key] = self._grounds.joined(backend).into(quality)
        near, reached, own = self._near[key], 0, 0
        for i in members:
            reached |= near[i]
            own |= 1 << i
        return (reached & ~own).bit_count()
