"""mlx-lm's BatchGenerator with nothing around it: what `thunderline bench serve` measures us against.

`python -m thunderline.rank.bare_loop FOLDER [--engine]`: one JSON object a line in, one out. In: {"prompts": [[ids]],
"max_tokens", "temperature", "top_p"}, or {"neighbours": [[ids]], "prompts": [[ids]], "chunk_tokens"}: long prompts that
arrive beside sequences which are being answered. Out: the fields of a benchmark's Run. --engine: our engine instead.
"""

import itertools
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from thunderline.rank import blas

BLAS = blas.load()

import mlx.core as mx  # noqa: E402  (the BLAS has to come before mlx)
from mlx_lm.generate import BatchGenerator  # noqa: E402
from mlx_lm.sample_utils import make_sampler  # noqa: E402
from mlx_lm.utils import load_model  # noqa: E402

from thunderline.rank.engine import Engine  # noqa: E402
from thunderline.rank.sampler import Params  # noqa: E402
from thunderline.rank.values import Insert  # noqa: E402

NEIGHBOUR_TOKENS, SETTLED_TOKENS = 4000, 8
KV_TOKENS = 100_000

Times = dict[int, list[float]]


def run(model: Any, wish: dict[str, Any]) -> dict[str, Any]:
    """One batch from nothing to its last token."""
    sampler = make_sampler(temp=wish["temperature"], top_p=wish["top_p"] if wish["temperature"] else 0.0)
    stream = mx.default_stream(mx.default_device())
    begun = time.monotonic()
    generator = BatchGenerator(model, max_tokens=wish["max_tokens"], sampler=sampler, stream=stream)
    keys = generator.insert(wish["prompts"])
    times: Times = {key: [] for key in keys}
    left = set(keys)
    while left:
        _, responses = generator.next()
        now = time.monotonic()
        for response in responses:
            times[response.uid].append(now - begun)
            if response.finish_reason:
                left.discard(response.uid)
    generator.close()
    return _found(times)


def run_engine(engine: Engine, wish: dict[str, Any]) -> dict[str, Any]:
    """The same with our engine, greedy."""
    begun = time.monotonic()
    times: Times = {key: [] for key in range(1, len(wish["prompts"]) + 1)}
    for key, prompt in zip(times, wish["prompts"], strict=True):
        engine.insert(Insert(key, "", tuple(prompt), (), Params(), wish["max_tokens"], ignore_eos=True))
    while engine.has_work:
        report = engine.step()
        now = time.monotonic()
        for news in report.news:
            times[news.key] += [now - begun] * len(news.token_ids)
    return _found(times)


def _found(times: Times) -> dict[str, Any]:
    gaps = sorted(_gaps(times.values()))
    return {
        "tokens": sum(len(row) for row in times.values()),
        "wall_s": max(row[-1] for row in times.values()),
        "first_token_s": [row[0] for row in times.values()],
        "gap_p95_s": gaps[int(0.95 * len(gaps))],
        "gap_max_s": gaps[-1],
    }


def run_beside(model: Any, wish: dict[str, Any]) -> dict[str, Any]:
    """Until each long prompt has its first token, processed all together in chunks of a fixed size."""
    stream = mx.default_stream(mx.default_device())
    count = max(len(wish["neighbours"]), len(wish["prompts"]))
    generator = BatchGenerator(model, prefill_batch_size=count, prefill_step_size=wish["chunk_tokens"], stream=stream)
    neighbours = generator.insert(wish["neighbours"], max_tokens=[NEIGHBOUR_TOKENS] * len(wish["neighbours"]))
    times: Times = {key: [] for key in neighbours}

    def step() -> None:
        _, responses = generator.next()
        for response in responses:
            times[response.uid].append(time.monotonic())

    while any(len(times[key]) < SETTLED_TOKENS for key in neighbours):
        step()
    begun = time.monotonic()
    prompts = generator.insert(wish["prompts"], max_tokens=[NEIGHBOUR_TOKENS] * len(wish["prompts"]))
    times |= {key: [] for key in prompts}
    while not all(times[key] for key in prompts):
        step()
    generator.remove([*neighbours, *prompts])
    generator.close()
    gaps = sorted(_gaps([row for row in times[key] if row > begun] for key in neighbours))
    firsts = [times[key][0] - begun for key in prompts]
    return {
        "tokens": len(prompts),
        "wall_s": max(firsts),
        "first_token_s": firsts,
        "gap_p95_s": gaps[int(0.95 * len(gaps))],
        "gap_max_s": gaps[-1],
    }


def _gaps(rows: Iterable[Sequence[float]]) -> list[float]:
    return [after - before for row in rows for before, after in itertools.pairwise(row)]


def main() -> None:
    model, _ = load_model(Path(sys.argv[1]))
    mx.eval(model.parameters())
    engine = Engine(model, (), KV_TOKENS) if "--engine" in sys.argv else None
    print(json.dumps({"blas": str(BLAS)}), flush=True)
    for line in sys.stdin:
        wish = json.loads(line)
        if "neighbours" in wish:
            found = run_beside(model, wish)
        else:
            found = run(model, wish) if engine is None else run_engine(engine, wish)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
