"""`thunderline bench serve`: the library's loop, the library's server and us, interleaved; writes JSON as it goes."""

import asyncio
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from thunderline.cli.bench import cells, contenders
from thunderline.cli.bench.cells import BARE, ENGINE, OURS, PEER, RUNNER, Cell, Run, Turn
from thunderline.cli.bench.contenders import Question
from thunderline.cli.bench.load import WrongAnswer
from thunderline.process.home import write_atomically

BASE_PORT = 18000
# What is fed by lines.
LOOP = "thunderline.rank.bare_loop"


async def serve(
    model: Path,
    out: Path,
    wanted: Sequence[Cell],
    rounds: int,
    end_token_id: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Runs what `out` does not hold yet. Each round is saved as it ends; a restart goes on after the last one.

    Raises WrongAnswer, also when `out` holds figures of another model or other versions, httpx.HTTPError, OSError.
    """
    from tokenizers import Tokenizer

    found = json.loads(out.read_text()) if out.exists() else {"cells": {}}
    setup = _setup(model, end_token_id)
    if found.setdefault("setup", setup) != setup:
        raise WrongAnswer(f"{out} holds figures of {found['setup']}, this would be {setup}: name another --out")
    missing = [cell for cell in wanted if len(found["cells"].get(cell.name, {}).get("runs", [])) < rounds]
    if not missing:
        say("every cell is there already")
        return dict(found)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    with tempfile.TemporaryDirectory(prefix="thunderline-bench-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            field = _Field(model, Path(folder), end_token_id, stack, say)
            for number, cell in enumerate(missing, 1):
                place = f"cell {number} of {len(missing)} ({cell.name})"
                await _cell(cell, place, field, tokenizer, rounds, found, out, say)
    return dict(found)


def _setup(model: Path, end_token_id: int) -> dict[str, Any]:
    """What figures must share to stand in one file."""
    versions = {name: importlib.metadata.version(name) for name in ("thunderline", "mlx", "mlx-lm", "grpcio")}
    config = hashlib.sha256((model / "config.json").read_bytes()).hexdigest()[:16]
    return {
        "model": model.name,
        "config": config,
        "cores": os.cpu_count(),
        "new_tokens": cells.NEW_TOKENS,
        "end_token_id": end_token_id,
        **versions,
    }


class _Field:
    """The contenders, each started when its first turn comes."""

    def __init__(
        self,
        model: Path,
        folder: Path,
        end_token_id: int,
        stack: contextlib.AsyncExitStack,
        say: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._stack = stack
        self._say = say
        self._started: dict[str, Any] = {}
        self._endless = contenders.endless_copy(model, folder / "endless", end_token_id)
        self._tiny: Path | None = None
        self.blas: dict[str, str] = {}

    async def contender(self, name: str) -> Any:
        if name not in self._started:
            self._say(f"starting {name}")
            self._started[name] = started = await self._start(name)
            self._stack.push_async_callback(started.stop)
            self.blas[name] = started.blas
            self._say(f"the BLAS of {name}: {started.blas}")
        return self._started[name]

    def _start(self, name: str) -> Awaitable[Any]:
        starts: dict[str, Callable[[], Awaitable[Any]]] = {
            BARE: lambda: contenders.Bare.start(LOOP, self._endless),
            PEER: lambda: contenders.Peer.start(self._endless, BASE_PORT + 10, self._folder / "peer.log"),
            OURS: lambda: contenders.Ours.start(self._endless, BASE_PORT, self._folder / "home"),
            ENGINE: self._engine,
            RUNNER: self._runner,
        }
        return starts[name]()

    async def _engine(self) -> contenders.Bare:
        return await contenders.Bare.start(LOOP, await self._tiny_model(), "--engine")

    async def _runner(self) -> contenders.Bare:
        return await contenders.Bare.start("thunderline.runner.bare_runner", await self._tiny_model())

    async def _tiny_model(self) -> Path:
        if self._tiny is None:
            self._tiny = await contenders.tiny_copy(self._endless, self._folder / "tiny")
        return self._tiny


async def _cell(
    cell: Cell,
    place: str,
    field: _Field,
    tokenizer: Any,
    rounds: int,
    found: dict[str, Any],
    out: Path,
    say: Callable[[str], None],
) -> None:
    async def run(turn: Turn, number: int) -> Run:
        contender = await field.contender(turn.contender)
        answer: Run = await contender.run(Question(cell, number, turn, tokenizer))
        return answer

    entry = found["cells"].setdefault(cell.name, {"runs": []})
    say(f"{place}: warming up")
    for turn in cells.warm_up(cell):
        await run(turn, -1)
    while len(entry["runs"]) < rounds:
        number = len(entry["runs"])
        runs: dict[str, Any] = {}
        for turn in cells.order(cell, number):
            begun = time.monotonic()
            answer = await run(turn, number)
            runs[turn.name] = dataclasses.asdict(answer)
            say(
                f"{place}, round {number + 1} of {rounds}: {turn.name}, {answer.tokens_per_s:.1f} tokens/s, "
                f"first token {min(answer.first_token_s):.2f} s, in {time.monotonic() - begun:.0f} s"
            )
            await asyncio.sleep(0.2)
        entry["runs"].append(runs)
        entry["summary"] = cells.summary(cell, [_runs(one) for one in entry["runs"]])
        found["blas"] = {**found.get("blas", {}), **field.blas}
        write_atomically(out, json.dumps(found, indent=1).encode(), mode=0o644)


def _runs(saved: dict[str, Any]) -> dict[str, Run]:
    return {name: Run(**{**values, "first_token_s": tuple(values["first_token_s"])}) for name, values in saved.items()}
