"""mlx-lm's BatchGenerator with nothing around it: what `thunderline bench serve` measures us against.

`python -m thunderline.rank.bare_loop FOLDER`: one JSON object a line in, {"prompts": [[ids]], "max_tokens": n,
"temperature": t, "top_p": p}; one out, {"tokens": n, "wall_s": s, "first_token_s": [...], "gap_p95_s": s}.
"""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from thunderline.rank import blas

BLAS = blas.load()

import mlx.core as mx  # noqa: E402  (the BLAS has to come before mlx)
from mlx_lm.generate import BatchGenerator  # noqa: E402
from mlx_lm.sample_utils import make_sampler  # noqa: E402
from mlx_lm.utils import load_model  # noqa: E402


def run(model: Any, wish: dict[str, Any]) -> dict[str, Any]:
    """One batch from nothing to its last token."""
    sampler = make_sampler(temp=wish["temperature"], top_p=wish["top_p"] if wish["temperature"] else 0.0)
    stream = mx.default_stream(mx.default_device())
    begun = time.monotonic()
    generator = BatchGenerator(model, max_tokens=wish["max_tokens"], sampler=sampler, stream=stream)
    keys = generator.insert(wish["prompts"])
    times: dict[int, list[float]] = {key: [] for key in keys}
    left = set(keys)
    while left:
        _, responses = generator.next()
        now = time.monotonic()
        for response in responses:
            times[response.uid].append(now - begun)
            if response.finish_reason:
                left.discard(response.uid)
    generator.close()
    gaps = sorted(b - a for row in times.values() for a, b in itertools.pairwise(row))
    return {
        "tokens": sum(len(row) for row in times.values()),
        "wall_s": max(row[-1] for row in times.values()),
        "first_token_s": [row[0] for row in times.values()],
        "gap_p95_s": gaps[int(0.95 * len(gaps))],
    }


def main() -> None:
    model, _ = load_model(Path(sys.argv[1]))
    mx.eval(model.parameters())
    print(json.dumps({"blas": str(BLAS)}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(model, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
