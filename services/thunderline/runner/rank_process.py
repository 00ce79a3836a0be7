"""Starting and ending a rank's process: map file, exec, signals, last words."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from thunderline.cluster import RankId
from thunderline.cluster.rank_map import SIZE_BYTES
from thunderline.process import log_files
from thunderline.process.settings import Settings
from thunderline.process.stopping import LIFELINE

# With what was moved aside: 200 MB.
LOG_COUNT_MAX = 50
LOG_BYTES_MAX = 2 * 1024 * 1024
LAST_WORDS_BYTES = 2000
LAST_LINE_COUNT = 5

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
# glibc gives large blocks back to the system at each free, and gets them anew with a page fault for each 4 KiB: a
# thousand a step of sampled rows. What the user has set stays.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}


def map_path(settings: Settings, rank: RankId) -> Path:
    return settings.run / "ranks" / f"{rank}.map"


def log_path(settings: Settings, rank: RankId) -> Path:
    return settings.logs / "ranks" / f"{rank}.log"


def command(settings: Settings, rank: RankId, socket: Path) -> list[str]:
    """What is exec'd: the process names itself in `ps`."""
    program = Path(sys.executable).parent / "thunderline"
    return [sys.executable, str(program), "rank", *flags(settings, rank, socket)]


def flags(settings: Settings, rank: RankId, socket: Path) -> list[str]:
    """What a rank process is told on its command line."""
    values = {
        "home": settings.home,
        "instance": rank.instance,
        "epoch": rank.epoch,
        "rank": rank.rank,
        "map": map_path(settings, rank),
        "socket": socket,
        "runner-gone-s": settings.limits.rank_without_runner_s,
    }
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]


def start(settings: Settings, rank: RankId, arguments: list[str]) -> "subprocess.Popen[bytes]":
    """Makes the map and execs the rank, detached: it outlives us. Raises OSError.

    Not asyncio's subprocess: that kills its process when the event loop goes.
    """
    path, log = map_path(settings, rank), log_path(settings, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(SIZE_BYTES))
    forget_old_logs(log.parent)
    inherited = {key: value for key, value in os.environ.items() if key != LIFELINE}
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments,
            cwd=settings.home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**ALLOCATOR, **inherited, **ENVIRONMENT},
        )


def send(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """One that has ended meanwhile is no error."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def last_words(settings: Settings, rank: RankId) -> str:
    """The end of what it printed."""
    return "\n".join(log_files.tail(log_path(settings, rank), LAST_WORDS_BYTES).splitlines()[-LAST_LINE_COUNT:])


async def keep_logs_small(settings: Settings) -> None:
    """Until cancelled."""
    while True:
        for path in (settings.logs / "ranks").glob("*.log"):
            await asyncio.to_thread(log_files.keep_small, path, LOG_BYTES_MAX)
        await asyncio.sleep(log_files.LOOK_EVERY_S)


def forget_map(settings: Settings, rank: RankId) -> None:
    """Removes the map of a process that is gone."""
    map_path(settings, rank).unlink(missing_ok=True)


def forget_old_logs(folder: Path) -> None:
    """Leaves room for one more."""
    newest = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest[LOG_COUNT_MAX - 1 :]:
        log_files.forget(path)
