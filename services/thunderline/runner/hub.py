"""`python -m thunderline.runner.hub MODEL FOLDER`: downloads a model from Hugging Face, in a process of its own.

Prints one JSON object a line: {"total_bytes": n}, then {"done": true} or {"error": "not_found" | "unreachable" |
"other", "message": "..."}. With --heads only what says what the model is: its config, and the header of each weight
file; the line before the last is {"sizes": {file: bytes}}. A process, because a thread that downloads cannot be ended.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

import httpx2  # what huggingface_hub speaks HTTP with; its errors come through
from huggingface_hub import HfApi, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from thunderline.runner.model_files import WEIGHT_FILES, header_length

# Weights, configuration, tokenizer, template: nothing that runs.
PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt"]
HEADS = "--heads"
SAYS_WHAT_IT_IS = {"config.json", "model.safetensors.index.json"}
# Without it a model cannot be used; what it says is not asked yet.
BE_THERE = {"tokenizer.json"}
# Most headers are shorter.
FIRST_BYTES = 100_000
TOGETHER_COUNT = 8
LIST_DEADLINE_S = 15.0
ATTEMPT_COUNT = 3
MESSAGE_LENGTH_MAX = 300
SILENCE = (httpx2.TransportError, ConnectionError, TimeoutError, LocalEntryNotFoundError)

T = TypeVar("T")


def total_bytes(model: str) -> int:
    files = HfApi().model_info(model, files_metadata=True, timeout=LIST_DEADLINE_S).siblings or []
    return sum(file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in PATTERNS))


def tried(call: Callable[[], T]) -> T:
    """The call, again when the hub does not answer."""
    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPT_COUNT),
        wait=wait_exponential(multiplier=0.5, max=4),
        retry=retry_if_exception_type(SILENCE),
        reraise=True,
    )
    return retrying(call)


def heads(model: str, folder: Path) -> dict[str, int]:
    """A folder that says what the model's own would; the true sizes of its weight files."""
    info = tried(lambda: HfApi().model_info(model, files_metadata=True, timeout=LIST_DEADLINE_S))
    # Folders inside are none of ours; nor may a name lead out of this one.
    sizes = {
        file.rfilename: file.size or 0 for file in info.siblings or [] if Path(file.rfilename).name == file.rfilename
    }
    for name in SAYS_WHAT_IT_IS & sizes.keys():
        (folder / name).write_bytes(_read(model, name, 0, sizes[name]))
    for name in BE_THERE & sizes.keys():
        (folder / name).touch()
    files = {name: size for name, size in sizes.items() if fnmatch(name, WEIGHT_FILES)}

    def head(name: str) -> None:
        first = _read(model, name, 0, min(FIRST_BYTES, files[name]))
        with contextlib.suppress(ValueError):
            length = 8 + header_length(first[:8])
            first = first[:length] + (_read(model, name, len(first), length) if length > len(first) else b"")
        (folder / name).write_bytes(first)

    with ThreadPoolExecutor(TOGETHER_COUNT) as pool:
        list(pool.map(head, files))
    return files


def _read(model: str, name: str, begin: int, end: int) -> bytes:
    """Bytes [begin, end) of a file."""

    def ask() -> bytes:
        headers = {**build_hf_headers(), "range": f"bytes={begin}-{end - 1}"}
        response = get_session().get(hf_hub_url(model, name), headers=headers, timeout=LIST_DEADLINE_S)
        hf_raise_for_status(response)
        return bytes(response.content)

    return tried(ask) if end > begin else b""


def fetch(model: str, folder: str, only_heads: bool = False) -> dict[str, object]:
    """The last line to print."""
    try:
        if only_heads:
            print(json.dumps({"sizes": heads(model, Path(folder))}), flush=True)
            return {"done": True}
        print(json.dumps({"total_bytes": tried(lambda: total_bytes(model))}), flush=True)
        tried(lambda: snapshot_download(model, local_dir=folder, allow_patterns=PATTERNS))
    except GatedRepoError:
        text = f"{model} is gated: accept its terms on Hugging Face and set HF_TOKEN"
        return {"error": "not_found", "message": text}
    except RepositoryNotFoundError:
        text = f"Hugging Face has no model {model}, or it is private and HF_TOKEN is not set"
        return {"error": "not_found", "message": text}
    except (HfHubHTTPError, OfflineModeIsEnabled, *SILENCE) as error:
        return {"error": "unreachable", "message": _short(error)}
    except OSError as error:
        return {"error": "other", "message": _short(error)}
    return {"done": True}


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MESSAGE_LENGTH_MAX]


def main(argv: Sequence[str]) -> int:
    model, folder, *options = argv
    last = fetch(model, folder, only_heads=HEADS in options)
    print(json.dumps(last), flush=True)
    return 0 if "done" in last else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
