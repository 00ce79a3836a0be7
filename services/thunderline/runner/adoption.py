"""What a map file says to a runner that did not make it: who of a former runner's ranks still lives. Pure.

A rank locks its map for life, and soon after writes its pid and where it stands into it.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.rank_map import SIZE_BYTES, RankMark

# A rank that was exec'd just before its runner died has locked and written its map within this time.
UNWRITTEN_S = 10.0
# Ranks that live dial in within this time, or the view is complete without their stream.
DIAL_IN_S = 10.0

NAME = re.compile(r"([A-Za-z0-9_-]{1,64})-(\d{1,18})-(\d{1,9})\.map")


class Finding(Enum):
    ADOPT = auto()  # Its process lives.
    WAIT = auto()  # It has hardly begun, or is being written: look again.
    ENDED = auto()  # Its process is gone, or never came: say so, and remove the map.
    FOREIGN = auto()  # None of our making: it stays as it is.


@dataclass(frozen=True, slots=True)
class Seen:
    """A file in the maps' folder."""

    rank: RankId | None
    size_bytes: int
    is_locked: bool
    mark: RankMark | None
    age_s: float


def rank_of(file_name: str) -> RankId | None:
    """The rank that a map is named after."""
    found = NAME.fullmatch(file_name)
    rank = RankId(InstanceId(found[1]), int(found[2]), int(found[3])) if found else None
    return rank if file_name == f"{rank}.map" else None


def judge(seen: Seen) -> Finding:
    if seen.rank is None or seen.size_bytes not in (0, SIZE_BYTES):
        return Finding.FOREIGN
    if seen.mark is not None and seen.mark.pid > 0:
        # A lock ends with its process, a zombie's too.
        return Finding.ADOPT if seen.is_locked else Finding.ENDED
    if seen.age_s < UNWRITTEN_S:
        return Finding.WAIT
    # Somebody holds a file of ours and does not say who he is: hands off.
    return Finding.FOREIGN if seen.is_locked else Finding.ENDED


def entered_s(mark: RankMark, boot_id: str, allowed_s: float | None, now_s: float) -> float:
    """When the phase of an adopted rank began, by its own word: what is left of it is its time, but time to dial in.

    `now_s` is of the machine's monotonic clock, as the map's times are.
    """
    if allowed_s is None or mark.boot_id != boot_id or not mark.entered_s:
        return now_s
    return min(now_s, max(mark.entered_s, now_s - allowed_s + DIAL_IN_S))
