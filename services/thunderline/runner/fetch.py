"""Fetches a model from Hugging Face: into a hidden folder, then renamed, so that an unfinished one is never seen."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunderline.cluster.errors import HubUnreachable, InternalError, NotFound

PROGRESS_EVERY_S = 0.5
# Without a byte for this long the hub is taken for silent.
STALL_S = 120.0

Command = Callable[[str, Path], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Progress:
    fetched_bytes: int
    total_bytes: int
    done: bool = False


def command(model: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "thunderline.runner.hub", model, str(folder)]


async def fetch(
    model: str, folder: Path, command: Command = command, stall_s: float = STALL_S
) -> AsyncGenerator[Progress, None]:
    """Progress until the folder is there; a started download is gone on with at the next try.

    Raises NotFound, HubUnreachable, InternalError (a full disk). Leaving the loop ends the download.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *command(model, partial),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        # Its progress bars; what matters comes as JSON.
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
    )
    assert process.stdout is not None
    told: dict[str, Any] = {}
    fetched, moved_s = 0, time.monotonic()
    try:
        async with contextlib.aclosing(_lines(process.stdout)) as lines:
            async for line in lines:
                told |= line or {}
                now = await asyncio.to_thread(_bytes_in, partial)
                if line is not None or now != fetched:
                    fetched, moved_s = now, time.monotonic()
                if time.monotonic() - moved_s > stall_s:
                    raise _unreachable(model, f"no byte for {stall_s:g} s")
                total = int(told.get("total_bytes", 0))
                yield Progress(min(fetched, total), total)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
    _raise_for(model, told)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    await asyncio.to_thread(os.rename, partial, folder)
    total = int(told.get("total_bytes", 0))
    yield Progress(total, total, done=True)


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


def _raise_for(model: str, told: dict[str, Any]) -> None:
    message = str(told.get("message", "the download ended without a word"))
    match told.get("error"):
        case "not_found":
            raise NotFound(message)
        case "unreachable":
            raise _unreachable(model, message)
        case None if told.get("done"):
            return
        case _:
            raise InternalError(f"{model} was not fetched: {message}")


def _unreachable(model: str, why: str) -> HubUnreachable:
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
