"""`python -m thunderline.runner.hub MODEL FOLDER`: downloads a model from Hugging Face, in a process of its own.

Prints one JSON object a line: {"total_bytes": n}, then {"done": true} or {"error": "not_found" | "unreachable" |
"other", "message": "..."}. A process, because a thread that downloads cannot be ended.
"""

import json
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import TypeVar

import httpx2  # what huggingface_hub speaks HTTP with; its errors come through
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

# Weights, configuration, tokenizer, template: nothing that runs.
PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt"]
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


def fetch(model: str, folder: str) -> dict[str, object]:
    """The last line to print."""
    try:
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
    model, folder = argv
    last = fetch(model, folder)
    print(json.dumps(last), flush=True)
    return 0 if "done" in last else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
