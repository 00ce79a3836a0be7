"""The models on this node: where they are, what they are, what speaks against running them. Reads files."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import psutil

from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.planning import RANKS_SHARE
from thunderline.process import tethered
from thunderline.process.home import allowed_model_roots
from thunderline.process.settings import Settings
from thunderline.runner import answers, look_up, model_facts, model_files
from thunderline.runner.answers import Answer, Splits
from thunderline.runner.model_facts import Facts
from thunderline.runner.model_files import WeightFile

# Of the child: the batch half of its audit, which a first answer waits for, and both halves.
AUDIT_DEADLINE_S, SPLITS_DEADLINE_S = 60.0, 180.0
WITHOUT_SPLITS = "--without-splits"
# Leaves a quarter to the system and everybody else.
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
    # None when nobody asked for them, or the engine was not asked at all.
    splits: Splits | None = None
    # What the engine's answers go by: config.json alone makes an architecture.
    config_digest: str = ""


def audit_command(folder: Path) -> list[str]:
    """The child that knows the engine."""
    return [sys.executable, str(Path(sys.executable).parent / "thunderline"), "rank", "--audit", str(folder)]


class Models:
    """Answers from the disk each time; only what the engine says, a process of its own, is remembered."""

    def __init__(
        self,
        settings: Settings,
        command: Callable[[Path], Sequence[str]] = audit_command,
        look_up_command: look_up.Command = look_up.command,
    ) -> None:
        self._settings = settings
        self._command = command
        self._look_up_command = look_up_command
        # By digest of the config; read at the first audit.
        self._answers: dict[str, Answer] | None = None
        self._engine = ""
        self._lock = asyncio.Lock()

    @property
    def usable_memory_bytes(self) -> int:
        return self._settings.runner.memory_bytes or int(psutil.virtual_memory().total * RANKS_SHARE)

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

    async def audit(self, model: str, splits: bool = False, may_look_up: bool = False) -> Audit:
        """Files first, then, in a process of its own, whether the engine knows the architecture.

        With `splits` also how it can be divided, which takes some ten seconds the first time. With `may_look_up`
        Hugging Face is asked about a model that is not here: FETCHABLE, or UNUSABLE with what is wrong with it. Raises
        InvalidRequest; NotFound, HubUnreachable and InternalError of a look-up.
        """
        found = await asyncio.to_thread(self._audit_files, model)
        if found.verdict is Verdict.FETCHABLE and may_look_up:
            with tempfile.TemporaryDirectory() as folder:
                sizes = await look_up.look_up(model, Path(folder), self._look_up_command)
                seen = await asyncio.to_thread(audit_folder, Path(folder), sizes)
                asked = await self._with_engine(seen, splits)
            problems = tuple(one.replace(folder, model) for one in asked.problems)
            verdict = Verdict.UNUSABLE if problems else Verdict.FETCHABLE
            return replace(asked, verdict=verdict, problems=problems, folder=None)
        return await self._with_engine(found, splits)

    async def _with_engine(self, found: Audit, splits: bool) -> Audit:
        """What the files say, with the engine's word on it."""
        if found.verdict is not Verdict.USABLE or found.facts is None or found.folder is None:
            return found
        # One child at a time: each imports the whole engine.
        async with self._lock:
            answer = await self._ask(found.config_digest, found.folder, splits)
        facts = model_facts.with_kept(found.facts, answer.kept)
        if not answer.supported:
            why = answer.reason or f"the engine does not support {facts.architecture}"
            return replace(found, verdict=Verdict.UNUSABLE, problems=(why,))
        return replace(
            found,
            facts=facts,
            batching=answer.batching,
            batching_reason=answer.batching_reason,
            splits=answer.splits,
        )

    async def _ask(self, digest: str, folder: Path, splits: bool) -> Answer:
        """The engine's answer, remembered or new."""
        path = self._settings.home / "audits.json"
        if self._answers is None:
            self._engine = await asyncio.to_thread(answers.engine)
            self._answers = await asyncio.to_thread(answers.read, path, self._engine)
        known = self._answers.get(digest)
        if known is not None and (known.splits is not None or not splits):
            return known
        options = [] if splits else [WITHOUT_SPLITS]
        deadline_s = SPLITS_DEADLINE_S if splits else AUDIT_DEADLINE_S
        answer = await ask_the_engine([*self._command(folder), *options], folder, deadline_s)
        # A refusal is asked again at the next audit: mlx-lm may have been upgraded, or the machine was too busy.
        if answer.supported:
            self._answers = answers.newest({**self._answers, digest: answers.lasting(answer)})
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


def audit_folder(folder: Path, sizes: Mapping[str, int] | None = None) -> Audit:
    """What the files of a folder say. `sizes` of the weight files, where it has no more of them than their heads."""
    problems: list[str] = []
    config = read_json(folder / "config.json", problems)
    if config is None:
        return Audit(Verdict.UNUSABLE, tuple(problems), folder=folder)
    if not (folder / "tokenizer.json").is_file():
        problems.append(f"{folder} has no tokenizer.json; convert the model with a fast tokenizer")
    paths = sorted(folder.glob(model_files.WEIGHT_FILES))
    files = [file for path in paths if (file := _head(path, problems, sizes)) is not None]
    if not files:
        problems.append(f"{folder} has no {model_files.WEIGHT_FILES} file")
    tensors, wrong = model_files.tensors(files)
    problems += wrong
    index = folder / "model.safetensors.index.json"
    if index.exists() and (tree := read_json(index, problems)) is not None:
        problems += model_files.missing_shards(tree, [file.name for file in files])
    found = model_facts.facts(config, tensors, model_files.digest(config, [file.head for file in files]))
    verdict = Verdict.UNUSABLE if problems else Verdict.USABLE
    return Audit(verdict, tuple(problems), found, folder, config_digest=model_files.digest(config))


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


def _head(path: Path, problems: list[str], sizes: Mapping[str, int] | None) -> WeightFile | None:
    """A weight file's first bytes; None, and a problem, when it cannot be read (a link that leads nowhere)."""
    try:
        with path.open("rb") as file:
            first = file.read(8)
            try:
                rest = file.read(model_files.header_length(first))
            except ValueError:
                rest = b""
            size = path.stat().st_size if sizes is None else sizes.get(path.name, 0)
            return WeightFile(path.name, size, first + rest)
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror}")
        return None


async def ask_the_engine(command: Sequence[str], folder: Path, deadline_s: float = SPLITS_DEADLINE_S) -> Answer:
    """Runs the child. It prints one JSON object on its last line: the fields of Answer."""
    variables = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        async with (
            asyncio.timeout(deadline_s),
            tethered.child(command, asyncio.subprocess.PIPE, variables) as process,
        ):
            out, err = await process.communicate()
    except TimeoutError:
        return Answer(False, f"the audit of {folder} took longer than {deadline_s:.0f} s")
    except OSError as error:
        return Answer(False, f"the audit of {folder} cannot be started: {error}")
    try:
        return answers.from_tree(json.loads(out.splitlines()[-1]))
    except (IndexError, ValueError, KeyError, TypeError, AttributeError):
        words = " ".join(err.decode(errors="replace").split())[-300:]
        return Answer(False, f"the audit of {folder} failed ({process.returncode}): {words}")
