"""What Hugging Face says of a model that is on no node: its config and the headers of its weight files."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from thunderline.process import tethered
from thunderline.runner import fetch

# 163 files of the largest models, eight at a time.
DEADLINE_S = 90.0

Command = Callable[[str, Path], Sequence[str]]


def command(model: str, folder: Path) -> list[str]:
    return tethered.command("thunderline.runner.hub", model, str(folder), "--heads")


async def look_up(model: str, folder: Path, command: Command = command) -> dict[str, int]:
    """Fills a folder so that it says what the model's own would; the true sizes of its weight files, by name.

    Raises NotFound, HubUnreachable, InternalError.
    """
    told: dict[str, Any] = {}
    silent = asyncio.subprocess.DEVNULL
    try:
        async with asyncio.timeout(DEADLINE_S), tethered.child(command(model, folder), silent) as process:
            out, _ = await process.communicate()
    except TimeoutError:
        raise fetch.unreachable(model, f"no answer within {DEADLINE_S:g} s") from None
    for line in out.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            told |= json.loads(line)
    fetch.raise_for(model, told)
    return {str(name): int(size) for name, size in told.get("sizes", {}).items()}
