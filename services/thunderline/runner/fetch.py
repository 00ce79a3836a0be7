"""Downloads a model from Hugging Face: into a hidden folder, then renamed, so that an unfinished one is never seen."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from thunderline.cluster.errors import HubUnreachable, NotFound

# Weights, configuration, tokenizer, template: nothing that runs.
PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt"]
PROGRESS_EVERY_S = 0.5
ATTEMPT_COUNT = 3


@dataclass(frozen=True, slots=True)
class Progress:
    fetched_bytes: int
    total_bytes: int
    done: bool = False


async def fetch(hub_id: str, folder: Path) -> AsyncIterator[Progress]:
    """Progress until the folder is there; a started download is gone on with, at the next try too.

    Raises NotFound, HubUnreachable, OSError.
    """
    total = await _tried(hub_id, _total_bytes, hub_id)
    yield Progress(0, total)
    partial = folder.with_name(f".{folder.name}.partial")
    task = asyncio.create_task(_tried(hub_id, _download, hub_id, partial))
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=PROGRESS_EVERY_S)
            yield Progress(await asyncio.to_thread(_bytes_in, partial), total)
        await task
    finally:
        task.cancel()
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    await asyncio.to_thread(os.rename, partial, folder)
    yield Progress(total, total, done=True)


async def _tried(hub_id: str, call: Any, *arguments: Any) -> Any:
    """The call in a thread, three times when the hub does not answer. Foreign errors become ours here."""
    import httpx
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(ATTEMPT_COUNT),
            wait=wait_exponential(multiplier=0.5, max=4),
            retry=retry_if_exception_type((httpx.TransportError, ConnectionError, TimeoutError)),
            reraise=True,
        ):
            with attempt:
                return await asyncio.to_thread(call, *arguments)
    except GatedRepoError:
        raise NotFound(f"{hub_id} is gated: accept its terms on Hugging Face and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise NotFound(f"Hugging Face has no model {hub_id}, or it is private and HF_TOKEN is not set") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, ConnectionError, TimeoutError) as error:
        words = " ".join(str(error).split())[:200]
        raise HubUnreachable(
            f"Hugging Face did not give {hub_id}: {words}; a folder on this node can be deployed by its path"
        ) from None


def _total_bytes(hub_id: str) -> int:
    from fnmatch import fnmatch

    from huggingface_hub import HfApi

    files = HfApi().model_info(hub_id, files_metadata=True, timeout=15).siblings or []
    return sum(file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in PATTERNS))


def _download(hub_id: str, partial: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(hub_id, local_dir=partial, allow_patterns=PATTERNS)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
