"""What the engine's audit said of each model, on disk: audits.json. It is kept for the engine that said it alone.

Without it the first epoch after a runner's restart would wait for a child that imports the engine.
"""

import hashlib
import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from thunderline.process.home import write_atomically
from thunderline.runner.model_facts import Kept

REMEMBERED_COUNT_MAX = 200
# What takes part in an answer, beside our own code.
PACKAGES = ("mlx", "mlx-cpu", "mlx-cuda", "mlx-cuda-12", "mlx-cuda-13", "mlx-lm", "mlx-metal", "transformers")
# Where Linux keeps the one that the engine loads.
BLAS_FILES = ("usr/lib/*/libopenblas.so.0", "usr/lib64/libopenblas.so.0", "usr/local/lib/libopenblas.so.0")
OUR_ENGINE = Path(__file__).parents[1] / "rank"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Splits:
    """See SplitFacts in cluster.proto."""

    pipeline: bool = False
    pipeline_reason: str = ""
    tensor: bool = False
    tensor_reason: str = ""
    engine: str = ""
    tensor_whole_share: float = 0.0
    tensor_kv_whole_share: float = 0.0
    # False where the machine did not let it be tried: then it is asked again.
    was_tried: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine says of an architecture; `reason` when it does not support it."""

    supported: bool
    reason: str = ""
    batching: str = "batch"
    batching_reason: str = ""
    # Of each cache that a sequence has, mostly one a layer; empty where the engine cannot tell.
    kept: tuple[Kept, ...] = ()
    # None until somebody has asked.
    splits: Splits | None = None


def engine() -> str:
    """Changes with every change of what answers: the machine, the packages' versions, our engine's sources, and where
    a BLAS is found (an upgrade in place is not seen).
    """
    total = hashlib.sha256()
    total.update(f"{platform.platform()} {platform.machine()} {platform.node()}\n".encode())
    for path in sorted(path for pattern in BLAS_FILES for path in Path("/").glob(pattern)):
        total.update(f"{path} {path.resolve()} {path.stat().st_mtime_ns}\n".encode())
    for name in PACKAGES:
        try:
            total.update(f"{name} {version(name)}\n".encode())
        except PackageNotFoundError:
            continue
    for path in sorted(OUR_ENGINE.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def read(path: Path, engine: str) -> dict[str, Answer]:
    """By digest of the model. Whatever is wrong with the file, or of another engine, is nothing that was remembered."""
    try:
        tree = json.loads(path.read_text())
        if tree["engine"] != engine:
            return {}
        return {str(digest): from_tree(answer) for digest, answer in tree["answers"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("what was audited cannot be read: it is audited again", extra={"why": str(error)})
        return {}


def from_tree(tree: Mapping[str, Any]) -> Answer:
    """Of JSON, from the file or from the child. Raises KeyError, TypeError, AttributeError."""
    kept = tuple(Kept(**one) for one in tree.get("kept", ()))
    splits = tree.get("splits")
    return Answer(**{**tree, "kept": kept, "splits": Splits(**splits) if splits is not None else None})


def lasting(answer: Answer) -> Answer:
    """What of it is worth remembering."""
    return answer if answer.splits is None or answer.splits.was_tried else replace(answer, splits=None)


def newest(answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """As many as are remembered."""
    return dict(list(answers.items())[-REMEMBERED_COUNT_MAX:])


def write(path: Path, engine: str, answers: Mapping[str, Answer]) -> None:
    """A disk that is full costs an audit later, nothing else."""
    tree = {"engine": engine, "answers": {digest: asdict(answer) for digest, answer in answers.items()}}
    try:
        write_atomically(path, json.dumps(tree).encode())
    except OSError as error:
        log.warning("what was audited cannot be written down", extra={"why": str(error)})
