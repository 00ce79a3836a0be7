"""Starting and ending a rank's process: map file, exec, signals, last words."""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from thunderline.cluster import RankId
from thunderline.cluster.rank_map import SIZE_BYTES, RankMark, decode
from thunderline.process.settings import Settings

LOG_COUNT_MAX = 50
LAST_WORDS_BYTES = 2000


def map_path(settings: Settings, rank: RankId) -> Path:
    return settings.run / "ranks" / f"{rank}.map"


def log_path(settings: Settings, rank: RankId) -> Path:
    return settings.logs / "ranks" / f"{rank}.log"


def command(settings: Settings, rank: RankId, socket: Path) -> list[str]:
    """What is exec'd: the process names itself in `ps`."""
    program = str(Path(sys.executable).parent / "thunderline")
    flags = {
        "home": settings.home,
        "instance": rank.instance,
        "epoch": rank.epoch,
        "rank": rank.rank,
        "map": map_path(settings, rank),
        "socket": socket,
        "runner-gone-s": settings.limits.rank_without_runner_s,
    }
    return [
        sys.executable,
        program,
        "rank",
        *(part for key, value in flags.items() for part in (f"--{key}", str(value))),
    ]


async def start(settings: Settings, rank: RankId, arguments: list[str]) -> asyncio.subprocess.Process:
    """Makes the map and execs the rank, detached: it outlives us. Raises OSError."""
    path, log = map_path(settings, rank), log_path(settings, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(SIZE_BYTES))
    _forget_old_logs(log.parent)
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *arguments,
            cwd=settings.home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"},
        )


async def end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    """SIGTERM, the grace, SIGKILL last: killed Metal processes can leak wired memory."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(grace_s):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def mark(settings: Settings, rank: RankId) -> RankMark | None:
    """Where the rank says it stands; None while it has not said anything. A torn record is read again."""
    for _ in range(5):
        try:
            if (found := decode(map_path(settings, rank).read_bytes())) is not None:
                return found
        except (OSError, ValueError):
            return None
    return None


def last_words(settings: Settings, rank: RankId) -> str:
    """The end of what it printed."""
    try:
        with log_path(settings, rank).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-5:])


def forget(settings: Settings, rank: RankId) -> None:
    """Removes the map of a process that is gone."""
    with contextlib.suppress(FileNotFoundError):
        map_path(settings, rank).unlink()


def living_maps(settings: Settings) -> list[Path]:
    """Maps that a process locks: ranks of a former runner. Those that nobody locks are removed."""
    living = []
    for path in sorted((settings.run / "ranks").glob("*.map")):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            living.append(path)
            continue
        except FileNotFoundError:
            continue
        # A rank locks its map within its first second; younger ones may still be on their way.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > 10:
                path.unlink()
    return living


def _forget_old_logs(folder: Path) -> None:
    newest = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest[LOG_COUNT_MAX:]:
        path.unlink()
