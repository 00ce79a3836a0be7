"""The models on this node: where they are, what they are, what speaks against running them. Reads files."""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import psutil

from thunderline.cluster.errors import InvalidRequest
from thunderline.process.settings import Settings
from thunderline.runner import model_files
from thunderline.runner.model_files import Facts, WeightFile

AUDIT_DEADLINE_S = 60.0
# Leaves a quarter to the system and everybody else.
MEMORY_SHARE = 0.75
MODEL_NAME_LENGTH_MAX = 1024

log = logging.getLogger(__name__)


class Verdict(Enum):
    """Numbers are those of ModelVerdict in runner.proto."""

    USABLE = 1
    FETCHABLE = 2
    UNUSABLE = 3


@dataclass(frozen=True, slots=True)
class Audit:
    verdict: Verdict
    problems: tuple[str, ...] = ()
    facts: Facts | None = None
    folder: Path | None = None
    batching: str = "batch"
    batching_reason: str = ""


class Models:
    """Answers from the disk each time; only the architecture's audit, a process of its own, is remembered."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._architectures: dict[str, dict[str, Any]] = {}
        self._lock = asyncio.Lock()

    @property
    def usable_memory_bytes(self) -> int:
        return self._settings.runner.memory_bytes or int(psutil.virtual_memory().total * MEMORY_SHARE)

    def fetched_folder(self, hub_id: str) -> Path:
        """Where a model from the hub is kept."""
        return self._settings.models / hub_id.replace("/", "--")

    def locate(self, model: str) -> Audit:
        """The folder of a model, or why there is none. Raises InvalidRequest for an impossible name."""
        if not model or len(model) > MODEL_NAME_LENGTH_MAX or "\0" in model:
            raise InvalidRequest("model must be a folder or a Hugging Face id", param="model")
        named = Path(model).expanduser()
        inside = self._settings.models / model
        if named.is_absolute():
            return self._confined(named)
        if ".." not in named.parts and inside.is_dir():
            return self._confined(inside)
        if model_files.HUB_ID.fullmatch(model):
            folder = self.fetched_folder(model)
            return self._confined(folder) if folder.is_dir() else Audit(Verdict.FETCHABLE)
        text = f"{model} is no folder under {self._settings.models} and no Hugging Face id (organisation/name)"
        return Audit(Verdict.UNUSABLE, (text,))

    def _confined(self, folder: Path) -> Audit:
        if not folder.is_dir():
            return Audit(Verdict.UNUSABLE, (f"{folder} does not exist or is no folder",))
        real = folder.resolve()
        roots = [self._settings.models, *(Path(root).expanduser() for root in self._settings.runner.model_roots)]
        if not any(real.is_relative_to(root.resolve()) for root in roots):
            text = f"{folder} lies outside {self._settings.models}: add its folder to [runner] model_roots"
            return Audit(Verdict.UNUSABLE, (text,))
        return Audit(Verdict.USABLE, folder=real)

    async def audit(self, model: str) -> Audit:
        """Files first, then, in a process of its own, whether the engine knows the architecture.

        Raises InvalidRequest.
        """
        found = await asyncio.to_thread(self._audit_files, model)
        if found.verdict is not Verdict.USABLE or found.facts is None or found.folder is None:
            return found
        async with self._lock:
            answer = self._architectures.get(found.facts.digest)
            if answer is None:
                answer = await _ask_the_engine(found.folder)
                self._architectures[found.facts.digest] = answer
        if not answer["supported"]:
            # Asked again at the next audit: mlx-lm may have been upgraded.
            del self._architectures[found.facts.digest]
            return replace(found, verdict=Verdict.UNUSABLE, problems=(str(answer["reason"]),))
        return replace(found, batching=answer["batching"], batching_reason=answer["batching_reason"])

    def _audit_files(self, model: str) -> Audit:
        place = self.locate(model)
        return audit_folder(place.folder) if place.folder is not None else place

    def listed(self) -> list[tuple[str, Audit]]:
        """The folders in models/, by name, with what their files say."""
        root = self._settings.models
        folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        # Hidden ones are unfinished downloads and conversions.
        return [(path.name, audit_folder(path)) for path in folders if not path.name.startswith(".")]


def audit_folder(folder: Path) -> Audit:
    """What the files of a folder say."""
    problems: list[str] = []
    config = read_json(folder / "config.json", problems)
    if config is None:
        return Audit(Verdict.UNUSABLE, tuple(problems), folder=folder)
    if not (folder / "tokenizer.json").is_file():
        problems.append(f"{folder} has no tokenizer.json; convert the model with a fast tokenizer")
    files = [_head(path) for path in sorted(folder.glob("*.safetensors"))]
    if not files:
        problems.append(f"{folder} has no *.safetensors file")
    weight_bytes, wrong = model_files.weights(files)
    problems += wrong
    index = folder / "model.safetensors.index.json"
    if index.exists() and (tree := read_json(index, problems)) is not None:
        problems += model_files.missing_shards(tree, [file.name for file in files])
    # On a CPU 16-bit weights are computed, and their KV is kept, in 32 bits.
    element_bytes = 4 if sys.platform == "linux" else 2
    found = model_files.facts(config, weight_bytes, [file.head for file in files], element_bytes)
    verdict = Verdict.UNUSABLE if problems else Verdict.USABLE
    return Audit(verdict, tuple(problems), found, folder)


def read_json(path: Path, problems: list[str]) -> Mapping[str, Any] | None:
    """An object from a file; None, and a problem, when there is none."""
    try:
        tree = json.loads(path.read_text())
    except FileNotFoundError:
        problems.append(f"{path.parent} has no {path.name}: is it an MLX model folder?")
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path} cannot be read: {error}")
        return None
    if not isinstance(tree, Mapping):
        problems.append(f"{path} holds no object")
        return None
    return tree


def _head(path: Path) -> WeightFile:
    with path.open("rb") as file:
        first = file.read(8)
        try:
            rest = file.read(model_files.header_length(first))
        except ValueError:
            rest = b""
    return WeightFile(path.name, path.stat().st_size, first + rest)


async def _ask_the_engine(folder: Path) -> dict[str, Any]:
    """What `thunderline rank --audit` says; a child that fails or hangs is a reason too."""
    program = Path(sys.executable).parent / "thunderline"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        "rank",
        "--audit",
        str(folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(AUDIT_DEADLINE_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return {"supported": False, "reason": f"the audit of {folder} took longer than {AUDIT_DEADLINE_S:.0f} s"}
    try:
        answer = json.loads(out.splitlines()[-1])
        return {"batching": "batch", "batching_reason": "", **answer}
    except (IndexError, ValueError):
        words = " ".join(err.decode(errors="replace").split())[-300:]
        return {"supported": False, "reason": f"the audit of {folder} failed ({process.returncode}): {words}"}
