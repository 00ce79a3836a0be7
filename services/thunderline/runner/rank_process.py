"""A rank's process, started by us or by a runner before us: map file, exec, signals, what it printed."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from thunderline.cluster import RankId
from thunderline.cluster.rank_map import SIZE_BYTES, RankMark, decode
from thunderline.process import log_files
from thunderline.process.boot import is_living
from thunderline.process.settings import Settings
from thunderline.process.stopping import LIFELINE
from thunderline.runner.adoption import Finding, Seen, judge, rank_of

# With what was moved aside: 200 MB.
LOG_COUNT_MAX = 50
LOG_BYTES_MAX = 2 * 1024 * 1024
# The stacks of a crash follow the words that matter.
LAST_BYTES = 32 * 1024
# A record that is being written is whole a moment later.
READ_COUNT_MAX = 5

log = logging.getLogger(__name__)

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
        "prepare-s": settings.limits.prepare_s,
        "load-stall-s": settings.limits.load_stall_s,
        "warm-up-s": settings.limits.warm_up_s,
    }
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]


class RankProcess(Protocol):
    """`status` is Popen's, once it is over; None when nobody can know."""

    @property
    def pid(self) -> int: ...

    @property
    def status(self) -> int | None: ...

    def is_over(self) -> bool: ...

    def mark(self) -> RankMark | None:
        """The last that its map said."""

    def send(self, number: signal.Signals) -> None:
        """One that has ended meanwhile is no error."""


class OwnProcess:
    """A child."""

    def __init__(self, process: "subprocess.Popen[bytes]", path: Path) -> None:
        self._process = process
        self._path = path
        self._mark: RankMark | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        return self._process.returncode

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def mark(self) -> RankMark | None:
        # The last whole record stays, also of one that was stopped while it wrote.
        self._mark = read_mark(self._path) or self._mark
        return self._mark

    def send(self, number: signal.Signals) -> None:
        # Popen looks first whether it has ended: its pid is ours until it is waited for.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


class AdoptedProcess:
    """The child of a former runner, known by its map file."""

    def __init__(self, path: Path, found_s: float) -> None:
        self._path = path
        self._found_s = found_s
        self._mark: RankMark | None = None

    @property
    def pid(self) -> int:
        return self._mark.pid if self._mark is not None else 0

    @property
    def status(self) -> int | None:
        return self._mark.exit_code if self._mark is not None else None

    def mark(self) -> RankMark | None:
        # The last whole record stays: a process that died while it wrote one has a pid nevertheless.
        self._mark = read_mark(self._path) or self._mark
        return self._mark

    def look(self) -> Finding:
        mark = self.mark()
        try:
            found = self._path.stat()
        except OSError:
            # Somebody removed it: that ends nobody.
            lives = mark is not None and is_living(mark.pid, mark.process_start_s)
            return Finding.ADOPT if lives else Finding.ENDED
        age_s = max(time.time() - found.st_mtime, time.monotonic() - self._found_s)
        locked = is_locked(self._path)
        return judge(Seen(rank_of(self._path.name), found.st_size, locked, mark, age_s))

    def is_over(self) -> bool:
        return self.look() in {Finding.ENDED, Finding.FOREIGN}

    def send(self, number: signal.Signals) -> None:
        mark = self._mark
        # Who holds the lock is the process that wrote its pid there. Its start says less: clocks are set.
        if mark is None or not (is_locked(self._path) or is_living(mark.pid, mark.process_start_s)):
            return
        try:
            os.kill(mark.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            log.warning("a rank of another user cannot be signalled", extra={"pid": mark.pid})


def maps(settings: Settings) -> list[Path]:
    """All map files; the first rank of this runner is not started yet."""
    return sorted((settings.run / "ranks").glob("*.map"))


def read_mark(path: Path) -> RankMark | None:
    """What the map says, also of a process that is gone; None when it says nothing that we know."""
    for _ in range(READ_COUNT_MAX):
        try:
            with path.open("rb") as file:
                mark = decode(file.read(SIZE_BYTES))
        except OSError:
            return None
        if mark is not None:
            return mark
    return None


def is_locked(path: Path) -> bool:
    """Whether a process holds it. We hold it for a moment to know; a rank that begins then tries again."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        # Held, or no look is possible now (no file can be opened): then nothing is concluded.
        return True
    return False


def start(settings: Settings, rank: RankId, arguments: list[str]) -> OwnProcess:
    """Makes the map and execs the rank, detached: it outlives us. Raises OSError.

    Not asyncio's subprocess: that kills its process when the event loop goes.
    """
    path, printed = map_path(settings, rank), log_path(settings, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    printed.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(SIZE_BYTES))
    forget_old_logs(printed.parent)
    inherited = {key: value for key, value in os.environ.items() if key != LIFELINE}
    with printed.open("ab") as output:
        process = subprocess.Popen(
            arguments,
            cwd=settings.home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**ALLOCATOR, **inherited, **ENVIRONMENT},
        )
    return OwnProcess(process, path)


def last_printed(settings: Settings, rank: RankId) -> str:
    """The end of its log."""
    return log_files.tail(log_path(settings, rank), LAST_BYTES)


async def keep_logs_small(settings: Settings) -> None:
    """Until cancelled."""
    while True:
        for path in (settings.logs / "ranks").glob("*.log"):
            await asyncio.to_thread(log_files.keep_small, path, LOG_BYTES_MAX)
        await asyncio.sleep(log_files.LOOK_EVERY_S)


def forget_map(settings: Settings, rank: RankId) -> None:
    """Removes the map of a process that is gone; one that somebody holds all the same is not ours."""
    path = map_path(settings, rank)
    if not is_locked(path):
        path.unlink(missing_ok=True)


def forget_old_logs(folder: Path) -> None:
    """Leaves room for one more."""
    newest = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest[LOG_COUNT_MAX - 1 :]:
        log_files.forget(path)
