"""The processes that a benchmark compares, each started here and ended here."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from thunderline.cli.bench.cells import NEW_TOKENS, TEMPERATURE, TOP_P, Cell, Run
from thunderline.cli.bench.load import WrongAnswer, load

START_DEADLINE_S = 180.0
RUN_DEADLINE_S = 900.0
# Roles that stand between the client and the rank.
OUTSIDE = ("gateway", "scheduler", "runner")


def endless_copy(model: Path, folder: Path, end_token_id: int) -> Path:
    """The model with an end token that never comes, so that every answer has its full length.

    Weights are linked, not copied. `end_token_id` should be a special token that the model never makes.
    """
    folder.mkdir(parents=True)
    for file in model.iterdir():
        if file.suffix in {".json", ".jinja"}:
            shutil.copy(file, folder / file.name)
        else:
            (folder / file.name).symlink_to(file.resolve())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    names = {added["id"]: added["content"] for added in vocabulary.get("added_tokens", [])}
    for name, changes in {
        "config.json": {"eos_token_id": end_token_id},
        "generation_config.json": {"eos_token_id": end_token_id},
        "tokenizer_config.json": {"eos_token": names[end_token_id]},
    }.items():
        path = folder / name
        if path.exists():
            path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=2))
    return folder


@dataclass
class Bare:
    """The library's loop, fed by lines."""

    process: asyncio.subprocess.Process
    tokenizer: Any
    blas: str

    @classmethod
    async def start(cls, model: Path) -> "Bare":
        from tokenizers import Tokenizer

        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "thunderline.rank.bare_loop",
            str(model),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        hello = await asyncio.wait_for(process.stdout.readline(), START_DEADLINE_S)
        return cls(process, Tokenizer.from_file(str(model / "tokenizer.json")), json.loads(hello)["blas"])

    async def run(self, cell: Cell, prompts: Sequence[str]) -> Run:
        assert self.process.stdin is not None and self.process.stdout is not None
        wish = {
            "prompts": [self.tokenizer.encode(prompt).ids for prompt in prompts],
            "max_tokens": NEW_TOKENS,
            "temperature": TEMPERATURE if cell.sampled else 0.0,
            "top_p": TOP_P,
        }
        self.process.stdin.write(json.dumps(wish).encode() + b"\n")
        line = await asyncio.wait_for(self.process.stdout.readline(), RUN_DEADLINE_S)
        if not line:
            raise WrongAnswer("the bare loop ended")
        found = json.loads(line)
        return Run(found["tokens"], found["wall_s"], tuple(found["first_token_s"]), found["gap_p95_s"])

    async def stop(self) -> None:
        await _end(self.process)


@dataclass
class Peer:
    """mlx-lm's server."""

    process: asyncio.subprocess.Process
    url: str
    model: Path

    @classmethod
    async def start(cls, model: Path, port: int, log: Path) -> "Peer":
        flags = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "thunderline.rank.peer_server", *flags, stdout=output, stderr=output
            )
        url = f"http://127.0.0.1:{port}"
        await _until_ok(f"{url}/v1/models", process)
        return cls(process, f"{url}/v1", model)

    async def run(self, cell: Cell, prompts: Sequence[str]) -> Run:
        return await load(self.url, str(self.model), cell, prompts)

    async def stop(self) -> None:
        await _end(self.process)


@dataclass
class Ours:
    """A `thunderline up` with a home and ports of its own."""

    process: asyncio.subprocess.Process
    url: str
    name: str
    home: Path

    @classmethod
    async def start(cls, model: Path, base_port: int, home: Path) -> "Ours":
        home.mkdir(parents=True, exist_ok=True)
        program = str(Path(sys.executable).parent / "thunderline")
        flags = ["--base-port", str(base_port + 1), "--port", str(base_port), "--model", str(model)]
        with (home / "up.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                program,
                "up",
                *flags,
                env={**os.environ, "THUNDERLINE_HOME": str(home)},
                stdout=output,
                stderr=output,
            )
        url = f"http://127.0.0.1:{base_port}"
        await _until_ok(f"{url}/readyz", process)
        return cls(process, f"{url}/v1", model.name.lower(), home)

    async def run(self, cell: Cell, prompts: Sequence[str]) -> Run:
        before = self._outside_s()
        run = await load(self.url, self.name, cell, prompts)
        return Run(run.tokens, run.wall_s, run.first_token_s, run.gap_p95_s, self._outside_s() - before)

    def _outside_s(self) -> float:
        """CPU seconds that the roles between client and rank have used so far."""
        total = 0.0
        for child in psutil.Process(self.process.pid).children():
            words = child.cmdline()
            if len(words) > 2 and words[2] in OUTSIDE:
                used = child.cpu_times()
                total += used.user + used.system
        return total

    async def stop(self) -> None:
        await _end(self.process)


async def _until_ok(url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_DEADLINE_S), httpx.AsyncClient(timeout=5) as client:
        while True:
            if process.returncode is not None:
                raise WrongAnswer(f"{url}: its process ended with {process.returncode}")
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        process.kill()
        await process.wait()
