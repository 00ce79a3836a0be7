"""Fetches a model from Hugging Face: into a hidden folder, then renamed, so that an unfinished one is never seen."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunderline.cluster.errors import Full, HubUnreachable, InternalError, NotFound
from thunderline.process import tethered

PROGRESS_EVERY_S = 0.5
# Without a byte for this long the hub is taken for silent.
STALL_S = 120.0
FETCH_AGAIN_S = 5.0

Command = Callable[[str, Path], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Progress:
    fetched_bytes: int
    total_bytes: int
    done: bool = False


def command(model: str, folder: Path) -> list[str]:
    return tethered.command("thunderline.runner.hub", model, str(folder))


async def fetch(
    model: str, folder: Path, command: Command = command, stall_s: float = STALL_S
) -> AsyncGenerator[Progress, None]:
    """Progress until the folder is there; a started download is gone on with at the next try.

    Raises NotFound, HubUnreachable, Full (somebody fetches it already), InternalError (a full disk). Leaving the loop
    ends the download.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with _locked(model, partial) as lock:
        if folder.is_dir():
            # Another has fetched it while we came.
            shutil.rmtree(partial, ignore_errors=True)
            yield Progress(0, 0, done=True)
            return
        told: dict[str, Any] = {}
        async with contextlib.aclosing(_download(model, partial, command, lock, stall_s, told)) as steps:
            async for step in steps:
                yield step
        raise_for(model, told)
        shutil.rmtree(partial / ".cache", ignore_errors=True)
        await asyncio.to_thread(os.rename, partial, folder)
    total = int(told.get("total_bytes", 0))
    yield Progress(total, total, done=True)


@contextlib.contextmanager
def _locked(model: str, partial: Path) -> Iterator[int]:
    """The unfinished folder, ours alone: a lock on the folder itself, gone with the last process that holds it.

    Raises Full.
    """
    partial.mkdir(parents=True, exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Full(f"{model} is being fetched already", retry_after_s=FETCH_AGAIN_S) from None
        yield lock
    finally:
        os.close(lock)


async def _download(
    model: str, partial: Path, command: Command, lock: int, stall_s: float, told: dict[str, Any]
) -> AsyncGenerator[Progress, None]:
    """Runs the child to its end; what it says is in `told`. It keeps the lock for as long as it lives."""
    # Its progress bars go nowhere: what matters comes as JSON.
    silent, variables = asyncio.subprocess.DEVNULL, {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    fetched, moved_s = 0, time.monotonic()
    async with tethered.child(command(model, partial), silent, variables, (lock,)) as process:
        assert process.stdout is not None
        async with contextlib.aclosing(_lines(process.stdout)) as lines:
            async for line in lines:
                told |= line or {}
                now = await asyncio.to_thread(_bytes_in, partial)
                if line is not None or now != fetched:
                    fetched, moved_s = now, time.monotonic()
                if time.monotonic() - moved_s > stall_s:
                    raise unreachable(model, f"no byte for {stall_s:g} s")
                total = int(told.get("total_bytes", 0))
                yield Progress(min(fetched, total), total)


async def _lines(stream: asyncio.StreamReader) -> AsyncGenerator[dict[str, Any] | None, None]:
    """What the child says, and None each time that it has said nothing for a while; ends with the child."""
    reading: asyncio.Task[bytes] | None = None
    try:
        while True:
            reading = reading or asyncio.create_task(stream.readline())
            await asyncio.wait({reading}, timeout=PROGRESS_EVERY_S)
            if not reading.done():
                yield None
                continue
            line, reading = reading.result(), None
            if not line:
                return
            with contextlib.suppress(ValueError):
                tree = json.loads(line)
                yield tree if isinstance(tree, dict) else None
    finally:
        if reading is not None:
            reading.cancel()


def raise_for(model: str, told: Mapping[str, Any]) -> None:
    """What the child says of its end. Raises NotFound, HubUnreachable, InternalError."""
    message = str(told.get("message", "the download ended without a word"))
    match told.get("error"):
        case "not_found":
            raise NotFound(message)
        case "unreachable":
            raise unreachable(model, message)
        case None if told.get("done"):
            return
        case _:
            raise InternalError(f"{model} was not fetched: {message}")


def unreachable(model: str, why: str) -> HubUnreachable:
    return HubUnreachable(
        f"Hugging Face did not give {model} ({why}); check the network or HF_ENDPOINT, or deploy a folder by its path"
    )


def _bytes_in(folder: Path) -> int:
    """Files vanish while they are renamed into place."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
