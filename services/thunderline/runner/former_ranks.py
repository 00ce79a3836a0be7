"""Ranks of a former runner, by the map files that they lock. They end by themselves; a stuck one is killed at last."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from pathlib import Path

import psutil

from thunderline.cluster.rank_map import decode
from thunderline.process.settings import Settings

# A rank locks its map early in its life; one that was exec'd just before its runner died gets this long for it.
UNLOCKED_S = 10.0
LOOK_EVERY_S = 0.1

log = logging.getLogger(__name__)


def maps(settings: Settings) -> list[Path]:
    """All map files. Called before the first rank of this runner is started, these are the former ones'."""
    return sorted((settings.run / "ranks").glob("*.map"))


async def wait(found: list[Path], patience_s: float) -> None:
    """Returns when none of them has a process any more, and removes them; kills what is left after `patience_s`."""
    end_s = time.monotonic() + patience_s
    while living := [path for path in found if not _is_over(path)]:
        if time.monotonic() >= end_s:
            for path in living:
                _kill(path)
            return
        await asyncio.sleep(LOOK_EVERY_S)


def _is_over(path: Path) -> bool:
    """Whether nobody has it; such a file is removed."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            mark = decode(file.read())
        if mark is None and time.time() - path.stat().st_mtime < UNLOCKED_S:
            return False
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    except ValueError:
        path.unlink(missing_ok=True)
    return True


def _kill(path: Path) -> None:
    """Only a process that has this map on its command line: pids are used again."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        mark = decode(path.read_bytes())
        if mark is not None and mark.pid > 0 and str(path) in psutil.Process(mark.pid).cmdline():
            log.warning("a rank of a former runner does not end: killed", extra={"map": path.name, "pid": mark.pid})
            os.kill(mark.pid, signal.SIGKILL)
