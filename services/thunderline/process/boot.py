"""Which start of the machine this is, and whether a pid is still the process that it was: pids are used again."""

from pathlib import Path

import psutil

# Of the same process, read twice: the clock may have been set between.
START_TOLERANCE_S = 1.0


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def is_living(pid: int, start_s: float) -> bool:
    """Whether the process that began at `start_s` (of the wall clock) is there and can still do something."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - start_s) < START_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        # Another user's: none of ours.
        return False
