"""`thunderline bench serve`: the library's loop, the library's server and us, interleaved; writes JSON as it goes."""

import asyncio
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from thunderline.cli.bench import cells, contenders
from thunderline.cli.bench.cells import BARE, OURS, PEER, Cell, Run
from thunderline.process.home import write_atomically

BASE_PORT = 18000


async def serve(
    model: Path,
    out: Path,
    wanted: Sequence[Cell],
    rounds: int,
    end_token_id: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Runs what `out` does not hold yet. Each round is saved as it ends; a restart goes on after the last one.

    Raises WrongAnswer, httpx.HTTPError, OSError.
    """
    found = json.loads(out.read_text()) if out.exists() else {"cells": {}}
    missing = [cell for cell in wanted if len(found["cells"].get(cell.name, {}).get("runs", [])) < rounds]
    if not missing:
        say("every cell is there already")
        return dict(found)
    with tempfile.TemporaryDirectory(prefix="thunderline-bench-") as folder:
        endless = contenders.endless_copy(model, Path(folder) / "endless", end_token_id)
        say("starting the bare loop, mlx_lm.server and thunderline")
        started: dict[str, Any] = {}
        try:
            started[BARE] = await contenders.Bare.start(endless)
            started[PEER] = await contenders.Peer.start(endless, BASE_PORT + 10, Path(folder) / "peer.log")
            started[OURS] = await contenders.Ours.start(endless, BASE_PORT, Path(folder) / "home")
            found["machine"] = {"cores": os.cpu_count(), "blas": started[BARE].blas, "model": model.name}
            say(f"the BLAS of all three: {started[BARE].blas}")
            for number, cell in enumerate(missing, 1):
                await _cell(cell, f"cell {number} of {len(missing)}", started, rounds, found, out, say)
        finally:
            for contender in started.values():
                await contender.stop()
    return dict(found)


async def _cell(
    cell: Cell,
    where: str,
    started: dict[str, Any],
    rounds: int,
    found: dict[str, Any],
    out: Path,
    say: Callable[[str], None],
) -> None:
    entry = found["cells"].setdefault(cell.name, {"runs": []})
    if not entry["runs"]:
        # The first run of a shape compiles and touches memory: nobody's figure.
        for contender in cell.contenders:
            await started[contender].run(cell, cells.prompts(cell, -1, contender))
    while len(entry["runs"]) < rounds:
        number = len(entry["runs"])
        runs: dict[str, Any] = {}
        for contender in cells.order(cell, number):
            begun = time.monotonic()
            run = await started[contender].run(cell, cells.prompts(cell, number, contender))
            runs[contender] = dataclasses.asdict(run)
            say(
                f"{where} ({cell.name}), round {number + 1} of {rounds}: {contender} "
                f"{run.tokens_per_s:.1f} tokens/s in {time.monotonic() - begun:.0f} s"
            )
            await asyncio.sleep(0.2)
        entry["runs"].append(runs)
        entry["summary"] = cells.summary([_runs(one) for one in entry["runs"]])
        write_atomically(out, json.dumps(found, indent=1).encode(), mode=0o644)


def _runs(saved: dict[str, Any]) -> dict[str, Run]:
    return {name: Run(**{**values, "first_token_s": tuple(values["first_token_s"])}) for name, values in saved.items()}
