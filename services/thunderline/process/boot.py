"""Which start of the machine this is, and whether a pid is still the process that it was: pids are used again."""

import functools
import subprocess
from pathlib import Path

import psutil

# Of the same process, read twice: the clock may have been set between.
START_TOLERANCE_S = 1.0


# It answers at once; a machine that is that busy gets the time of its boot instead.
SYSCTL_S = 5.0


@functools.cache
def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        pass
    try:
        # macOS, where the time of the boot moves with the clock.
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(command, capture_output=True, text=True, timeout=SYSCTL_S, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return str(int(psutil.boot_time()))


def is_living(pid: int, start_s: float) -> bool:
    """Whether the process that began at `start_s` (of the wall clock) is there and can still do something."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - start_s) < START_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except OSError:
        # No file can be opened now: nothing is concluded.
        return True
    except psutil.AccessDenied:
        # Another user's: none of ours.
        return False
