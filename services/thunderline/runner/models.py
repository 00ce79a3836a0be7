"""The models on this node: where they are, what they are, what speaks against running them. Reads files."""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import psutil

from thunderline.cluster.errors import InvalidRequest
from thunderline.process import tethered
from thunderline.process.home import allowed_model_roots
from thunderline.process.settings import Settings
from thunderline.runner import answers, model_files
from thunderline.runner.answers import Answer
from thunderline.runner.model_files import Facts, WeightFile

AUDIT_DEADLINE_S = 60.0
# Leaves a quarter to the system and everybody else.
MEMORY_SHARE = 0.75
MODEL_NAME_LENGTH_MAX = 1024


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


def audit_command(folder: Path) -> list[str]:
    """The child that knows the engine."""
    return [sys.executable, str(Path(sys.executable).parent / "thunderline"), "rank", "--audit", str(folder)]


class Models:
    """Answers from the disk each time; only what the engine says, a process of its own, is remembered."""

    def __init__(self, settings: Settings, command: Callable[[Path], Sequence[str]] = audit_command) -> None:
        self._settings = settings
        self._command = command
        # By digest; read at the first audit.
        self._answers: dict[str, Answer] | None = None
        self._engine = ""
        self._lock = asyncio.Lock()

    @property
    def usable_memory_bytes(self) -> int:
        return self._settings.runner.memory_bytes or int(psutil.virtual_memory().total * MEMORY_SHARE)

    def fetched_folder(self, hub_id: str) -> Path:
        """Where a model from the hub is kept."""
        return self._settings.models / hub_id.replace("/", "--")

    def locate(self, model: str) -> Audit:
        """The folder of a model, or why there is none. Raises InvalidRequest for an impossible name."""
        parts = model.split("/")
        if not model or len(model) > MODEL_NAME_LENGTH_MAX or "\0" in model or max(map(len, parts)) > 255:
            raise InvalidRequest("model must be a folder or a Hugging Face id", param="model")
        named = Path(model)
        if named.is_absolute():
            return self._confined(named)
        # Hidden folders are unfinished downloads and conversions; ".." leads out.
        if not any(part.startswith(".") for part in parts) and (self._settings.models / model).is_dir():
            return self._confined(self._settings.models / model)
        if model_files.HUB_ID.fullmatch(model):
            folder = self.fetched_folder(model)
            return self._confined(folder) if folder.is_dir() else Audit(Verdict.FETCHABLE)
        text = f"{model} is no folder under {self._settings.models} and no Hugging Face id (organisation/name)"
        return Audit(Verdict.UNUSABLE, (text,))

    def _confined(self, folder: Path) -> Audit:
        if not folder.is_dir():
            return Audit(Verdict.UNUSABLE, (f"{folder} does not exist or is no folder",))
        real = folder.resolve()
        given = [*self._settings.runner.model_roots, *allowed_model_roots(self._settings.home)]
        roots = [self._settings.models, *(Path(root).expanduser() for root in given)]
        if not any(real.is_relative_to(root.resolve()) for root in roots):
            file, root = self._settings.home / "config.toml", real.parent
            text = (
                f"{folder} lies outside {self._settings.models}: put model_roots = ['{root}'] under [runner] in {file} "
                f"and start `thunderline up` again, or start it with --model {folder}"
            )
            return Audit(Verdict.UNUSABLE, (text,))
        return Audit(Verdict.USABLE, folder=real)

    async def audit(self, model: str) -> Audit:
        """Files first, then, in a process of its own, whether the engine knows the architecture.

        Raises InvalidRequest.
        """
        found = await asyncio.to_thread(self._audit_files, model)
        if found.verdict is not Verdict.USABLE or found.facts is None or found.folder is None:
            return found
        # One child at a time: each imports the whole engine.
        async with self._lock:
            answer = await self._ask(found.facts.digest, found.folder)
        if not answer.supported:
            why = answer.reason or f"the engine does not support {found.facts.architecture}"
            return replace(found, verdict=Verdict.UNUSABLE, problems=(why,))
        return replace(found, batching=answer.batching, batching_reason=answer.batching_reason)

    async def _ask(self, digest: str, folder: Path) -> Answer:
        """The engine's answer, remembered or new."""
        path = self._settings.home / "audits.json"
        if self._answers is None:
            self._engine = await asyncio.to_thread(answers.engine)
            self._answers = await asyncio.to_thread(answers.read, path, self._engine)
        known = self._answers.get(digest)
        if known is not None:
            return known
        answer = await ask_the_engine(self._command(folder), folder)
        # A refusal is asked again at the next audit: mlx-lm may have been upgraded, or the machine was too busy.
        if answer.supported:
            self._answers = answers.newest({**self._answers, digest: answer})
            await asyncio.to_thread(answers.write, path, self._engine, self._answers)
        return answer

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
    files = [file for path in sorted(folder.glob("*.safetensors")) if (file := _head(path, problems)) is not None]
    if not files:
        problems.append(f"{folder} has no *.safetensors file")
    weight_bytes, wrong = model_files.weights(files)
    problems += wrong
    index = folder / "model.safetensors.index.json"
    if index.exists() and (tree := read_json(index, problems)) is not None:
        problems += model_files.missing_shards(tree, [file.name for file in files])
    found = model_files.facts(config, weight_bytes, [file.head for file in files])
    verdict = Verdict.UNUSABLE if problems else Verdict.USABLE
    return Audit(verdict, tuple(problems), found, folder)


def read_json(path: Path, problems: list[str]) -> Mapping[str, Any] | None:
    """An object from a file; None, and a problem, when there is none."""
    try:
        tree = json.loads(path.read_text())
    except FileNotFoundError:
        problems.append(f"{path.parent} has no {path.name}: is it an MLX model folder?")
        return None
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path} cannot be read: {error}")
        return None
    if not isinstance(tree, Mapping):
        problems.append(f"{path} holds no object")
        return None
    return tree


def _head(path: Path, problems: list[str]) -> WeightFile | None:
    """A weight file's first bytes; None, and a problem, when it cannot be read (a link that leads nowhere)."""
    try:
        with path.open("rb") as file:
            first = file.read(8)
            try:
                rest = file.read(model_files.header_length(first))
            except ValueError:
                rest = b""
            return WeightFile(path.name, path.stat().st_size, first + rest)
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror}")
        return None


async def ask_the_engine(command: Sequence[str], folder: Path) -> Answer:
    """Runs the child. It prints one JSON object on its last line: supported, reason, batching, batching_reason."""
    variables = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        async with (
            asyncio.timeout(AUDIT_DEADLINE_S),
            tethered.child(command, asyncio.subprocess.PIPE, variables) as process,
        ):
            out, err = await process.communicate()
    except TimeoutError:
        return Answer(False, f"the audit of {folder} took longer than {AUDIT_DEADLINE_S:.0f} s")
    except OSError as error:
        return Answer(False, f"the audit of {folder} cannot be started: {error}")
    try:
        told = json.loads(out.splitlines()[-1])
        return Answer(
            bool(told["supported"]),
            str(told.get("reason", "")),
            str(told.get("batching") or "batch"),
            str(told.get("batching_reason") or ""),
        )
    except (IndexError, ValueError, KeyError, TypeError, AttributeError):
        words = " ".join(err.decode(errors="replace").split())[-300:]
        return Answer(False, f"the audit of {folder} failed ({process.returncode}): {words}")
