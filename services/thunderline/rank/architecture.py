"""Whether mlx-lm knows an architecture, and how many of its sequences may be computed together."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunderline.rank.admission import SEQUENCE_COUNT_MAX
from thunderline.rank.prefill import PROMPT_COUNT_MAX


@dataclass(frozen=True, slots=True)
class Batching:
    """What may be done with a model."""

    name: str
    reason: str
    batch_size_max: int
    prompt_count_max: int


BATCH = Batching("batch", "", SEQUENCE_COUNT_MAX, PROMPT_COUNT_MAX)
ALONE = Batching("one_sequence_at_a_time", "its caches cannot be merged into a batch", 1, 1)


def batching_of(config: Mapping[str, Any]) -> Batching:
    """From the caches that the architecture makes: one without `merge` cannot join a batch."""
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import _get_classes

    kind, arguments = _get_classes(dict(config))
    # Lazy: no weight is ever computed.
    caches = make_prompt_cache(kind(arguments.from_dict(dict(config))))
    return BATCH if all(hasattr(cache, "merge") for cache in caches) else ALONE


def audit(folder: Path) -> dict[str, Any]:
    """For `thunderline rank --audit`: {"supported", "reason", "batching", "batching_reason"}."""
    try:
        config = json.loads((folder / "config.json").read_text())
        batching = batching_of(config)
    except Exception as error:  # whatever an architecture's code raises for this config speaks against the model
        name = _architecture(folder)
        return {"supported": False, "reason": f"mlx-lm cannot build the architecture {name!r}: {error}"}
    return {"supported": True, "reason": "", "batching": batching.name, "batching_reason": batching.reason}


def _architecture(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text()).get("model_type"))
    except (OSError, ValueError, AttributeError):
        return "unknown"
