"""The small file in which a rank says where it stands, readable from outside even while it is stuck in C++.

The runner makes it before exec, the rank maps it and locks it (flock) for life. Fixed little-endian layout; the rank
is the only writer after its start. A sequence number at both ends (odd while writing) keeps a reader from a torn
record.
"""

import struct
from dataclasses import dataclass
from enum import Enum

from thunderline.cluster.ranks import RankState

MAGIC = b"TLRANK01"
SIZE_BYTES = 256
# magic, sequence, pid, process start (s since the epoch), boot id, exit code + 1, state, stand, step, entered,
# deadline, sequence.
_LAYOUT = struct.Struct("<8sQqd36siIIQddQ")


class Stand(Enum):
    """What the rank's engine thread does at this moment."""

    IDLE = 0  # Waits for work; no deadline runs.
    COMPUTE = 1
    COLLECTIVE = 2


@dataclass(frozen=True, slots=True)
class RankMark:
    """One record. Times are seconds of the system-wide monotonic clock; a deadline of 0 means none."""

    pid: int = 0
    process_start_s: float = 0.0
    boot_id: str = ""
    state: RankState = RankState.STARTING
    stand: Stand = Stand.IDLE
    step: int = 0
    entered_s: float = 0.0
    deadline_s: float = 0.0
    # Written by a rank that ends itself, just before: who adopted it cannot learn it otherwise.
    exit_code: int | None = None


def encode(mark: RankMark, sequence: int) -> bytes:
    """The record as SIZE_BYTES bytes."""
    head = _LAYOUT.pack(
        MAGIC,
        sequence,
        mark.pid,
        mark.process_start_s,
        mark.boot_id.encode()[:36],
        0 if mark.exit_code is None else mark.exit_code + 1,
        mark.state.value,
        mark.stand.value,
        mark.step,
        mark.entered_s,
        mark.deadline_s,
        sequence,
    )
    return head.ljust(SIZE_BYTES, b"\0")


def decode(data: bytes) -> RankMark | None:
    """The record, or None when it is torn (read again), foreign or empty."""
    if len(data) < _LAYOUT.size:
        return None
    magic, sequence, pid, start, boot, code, state, stand, step, entered, deadline, last = _LAYOUT.unpack_from(data)
    if magic != MAGIC or sequence % 2 or sequence != last:
        return None
    boot_id = boot.rstrip(b"\0").decode("ascii", "replace")
    exit_code = code - 1 if code else None
    try:
        return RankMark(pid, start, boot_id, RankState(state), Stand(stand), step, entered, deadline, exit_code)
    except ValueError:
        # A state that we do not know: written by another version.
        return None
