"""What may be done with a model's architecture, once per architecture and mlx-lm version, in a process of its own: for
`thunderline rank --audit`.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from thunderline.rank import tensor_split
from thunderline.rank.architecture import SEEDS, Batching, CannotServe, build, complete, judge
from thunderline.rank.kept import kept
from thunderline.rank.splits import REASON_LENGTH_MAX, Split, pipeline
from thunderline.rank.tensor_split import Shares
from thunderline.rank.tiny import tiny


def audit(folder: Path, with_splits: bool = True) -> dict[str, Any]:
    """{"supported", "reason"}; when it is supported also {"batching", "batching_reason", "kept"} and, if wanted,
    {"splits": {"pipeline", "pipeline_reason", "tensor", "tensor_reason", "tensor_whole_share", "tensor_kv_whole_share",
    "engine", "was_tried"}}.

    Nothing but config.json is read.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        build(config)
    except (Exception, SystemExit) as error:
        # Whatever an architecture's code raises for this config speaks against the model.
        name = _architecture(folder)
        return {"supported": False, "reason": f"mlx-lm cannot build the architecture {name!r}: {error}"}
    try:
        batching, reason = judge(config)
    except CannotServe as error:
        return {"supported": False, "reason": str(error)}
    found: dict[str, Any] = {"supported": True, "reason": "", "batching": batching.name, "batching_reason": reason}
    try:
        small = tiny(complete(config))
        build(small)
    except Exception as error:  # a config that cannot be made small is no fault of the model's
        untried = Split(False, f"a tiny copy cannot be made ({type(error).__name__}: {error})"[:REASON_LENGTH_MAX])
        return {**found, "kept": [], **({"splits": _splits(untried, untried, Shares())} if with_splits else {})}
    found["kept"] = _kept(config, small)
    if with_splits:
        found["splits"] = _splits(pipeline(small, batching, SEEDS[0]), *_tensor(config, small, batching))
    return found


def _kept(config: Mapping[str, Any], small: Mapping[str, Any]) -> list[dict[str, int]]:
    try:
        return kept(config, small)
    except Exception:  # whatever an architecture's code makes of one token: then it stays an estimate
        return []


def _tensor(config: Mapping[str, Any], small: Mapping[str, Any], batching: Batching) -> tuple[Split, Shares]:
    try:
        shares = tensor_split.tensor(config, small, batching.name, SEEDS)
    except tensor_split.Untried as error:
        return Split(False, f"it could not be tried: {error}", was_tried=False), Shares()
    return Split(not shares.reason, shares.reason), shares


def _splits(in_parts: Split, in_shares: Split, shares: Shares) -> dict[str, Any]:
    return {
        "pipeline": in_parts.is_possible,
        "pipeline_reason": in_parts.reason,
        "tensor": in_shares.is_possible,
        "tensor_reason": in_shares.reason,
        "tensor_whole_share": shares.weights,
        "tensor_kv_whole_share": shares.kv,
        "engine": f"mlx-lm {version('mlx-lm')}",
        "was_tried": in_parts.was_tried and in_shares.was_tried,
    }


def _architecture(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text()).get("model_type"))
    except (OSError, ValueError, AttributeError):
        return "unknown"
