"""The processes that a benchmark compares, each started here and ended here."""

import asyncio
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from thunderline.cli.bench import load as http
from thunderline.cli.bench.cells import (
    ENGINE,
    NEIGHBOUR_COUNT,
    NEW_TOKENS,
    RUNNER,
    TEMPERATURE,
    TOP_P,
    Again,
    Beside,
    Cell,
    Run,
    Streams,
    Turn,
    long_text,
    prompts,
)
from thunderline.cli.bench.load import WrongAnswer
from thunderline.client.scheduler import SchedulerClient
from thunderline.process import stopping, tethered
from thunderline.process.metrics import PORT_OFFSET

START_DEADLINE_S = 180.0
RUN_DEADLINE_S = 900.0
# Roles that stand between the client and the rank.
OUTSIDE = ("gateway", "scheduler", "runner")
# Token ids that every tiny copy of a model knows.
TINY_IDS = (3, 100)


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


@dataclass(frozen=True, slots=True)
class Question:
    """What a turn asks in one round."""

    cell: Cell
    round_number: int
    turn: Turn
    tokenizer: Any

    @property
    def texts(self) -> list[str]:
        """For Streams the prompts, for the others the neighbours'."""
        load = self.turn.load
        return prompts(
            self.cell, self.round_number, self.turn, load.count if isinstance(load, Streams) else NEIGHBOUR_COUNT
        )

    @property
    def ids(self) -> list[list[int]]:
        """The same as tokens; a tiny model knows only the first few."""
        whole = [self.tokenizer.encode(text).ids for text in self.texts]
        if self.turn.contender not in (ENGINE, RUNNER):
            return whole
        return [[TINY_IDS[0] + token % (TINY_IDS[1] - TINY_IDS[0]) for token in ids] for ids in whole]

    def long_ids(self, count: int, tokens: int) -> list[list[int]]:
        """Prompts of exactly so many tokens."""
        keys = [f"{self.cell.name}/{self.round_number}/{number}" for number in range(count)]
        return [self.tokenizer.encode(long_text(key, tokens)).ids[:tokens] for key in keys]


@dataclass
class Bare:
    """What is fed by lines: the library's loop; our engine with nothing around it, or with its runner alone."""

    process: asyncio.subprocess.Process
    blas: str

    @classmethod
    async def start(cls, module: str, model: Path, *flags: str) -> "Bare":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            str(model),
            *flags,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        assert process.stdout is not None
        hello = await asyncio.wait_for(process.stdout.readline(), START_DEADLINE_S)
        return cls(process, json.loads(hello)["blas"])

    async def run(self, question: Question) -> Run:
        assert self.process.stdin is not None and self.process.stdout is not None
        ids = question.ids
        match question.turn.load:
            case Streams() as load:
                sampling = {"temperature": TEMPERATURE if load.sampled else 0.0, "top_p": TOP_P}
                wish: dict[str, Any] = {"prompts": ids, "max_tokens": NEW_TOKENS, **sampling}
            case Beside() as load:
                long = question.long_ids(load.prompt_count, load.prompt_tokens)
                wish = {"neighbours": ids, "prompts": long, "chunk_tokens": load.chunk_tokens}
            case Again():
                raise WrongAnswer("the bare loop keeps no prefixes")
        self.process.stdin.write(json.dumps(wish).encode() + b"\n")
        line = await asyncio.wait_for(self.process.stdout.readline(), RUN_DEADLINE_S)
        if not line:
            raise WrongAnswer("the bare loop ended")
        found = json.loads(line)
        return Run(**{**found, "first_token_s": tuple(found["first_token_s"])})

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await _end(self.process, None)


@dataclass
class Tied:
    """A server that does not outlive us, however we end; what it says goes into a file."""

    process: asyncio.subprocess.Process
    lifeline: int

    @classmethod
    async def start(cls, ready: str, log: Path, module: str, *arguments: str, home: Path | None = None) -> "Tied":
        """Returns when `ready` answers 200. Raises WrongAnswer, TimeoutError."""
        reading, writing = os.pipe()
        environment = {
            **os.environ,
            stopping.LIFELINE: str(reading),
            **({"THUNDERLINE_HOME": str(home)} if home else {}),
        }
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *tethered.command(module, *arguments),
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(reading,),
                env=environment,
            )
        os.close(reading)
        tied = cls(process, writing)
        try:
            await _until_ok(ready, process)
        except BaseException:
            await tied.stop()
            raise
        return tied

    async def stop(self) -> None:
        await _end(self.process)
        os.close(self.lifeline)


@dataclass
class Peer:
    """mlx-lm's server."""

    tied: "Tied"
    url: str
    model: Path
    blas: str

    @classmethod
    async def start(cls, model: Path, port: int, log: Path) -> "Peer":
        flags = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
        url = f"http://127.0.0.1:{port}"
        tied = await Tied.start(f"{url}/v1/models", log, "thunderline.rank.peer_server", *flags)
        (blas,) = [line.removeprefix("blas: ") for line in log.read_text().splitlines() if line.startswith("blas: ")]
        return cls(tied, f"{url}/v1", model, blas)

    async def run(self, question: Question) -> Run:
        load = question.turn.load
        assert isinstance(load, Streams)
        return await http.streams(self.url, str(self.model), load, question.texts)

    async def stop(self) -> None:
        await self.tied.stop()


@dataclass
class Ours:
    """A `thunderline up` with a home and ports of its own."""

    tied: "Tied"
    base_port: int
    name: str
    blas: str

    @classmethod
    async def start(cls, model: Path, base_port: int, home: Path) -> Self:
        home.mkdir(parents=True, exist_ok=True)
        flags = ["--base-port", str(base_port + 1), "--port", str(base_port), "--model", str(model)]
        ready = f"http://127.0.0.1:{base_port}/readyz"
        tied = await Tied.start(ready, home / "up.log", "thunderline.cli", "up", *flags, home=home)
        async with SchedulerClient(f"127.0.0.1:{base_port + 3}") as scheduler:
            (blas,) = [rank.engine.blas for one in (await scheduler.cluster()).deployments for rank in one.ranks]
        return cls(tied, base_port, model.name.lower(), blas)

    async def run(self, question: Question) -> Run:
        before, before_steps = self._outside_s(), await self._long_steps()
        run = await self._run(question)
        spent_s, steps = self._outside_s() - before, await self._long_steps() - before_steps
        return replace(run, cpu_outside_s=spent_s, long_steps=steps)

    async def _long_steps(self) -> int:
        async with httpx.AsyncClient() as client:
            runner = self.base_port + 4 + PORT_OFFSET
            return long_steps((await client.get(f"http://127.0.0.1:{runner}/metrics", timeout=10)).text)

    async def _run(self, question: Question) -> Run:
        url = f"http://127.0.0.1:{self.base_port}/v1"
        match question.turn.load:
            case Streams() as load:
                return await http.streams(url, self.name, load, question.texts)
            case Beside() as load:
                long = question.long_ids(load.prompt_count, load.prompt_tokens)
                return await http.beside(url, self.name, question.texts, long)
            case Again() as load:
                return await http.again(url, self.name, question.long_ids(1, load.prompt_tokens)[0])

    def _outside_s(self) -> float:
        """CPU seconds that the roles between client and rank have used so far."""
        total = 0.0
        for child in psutil.Process(self.tied.process.pid).children():
            words = child.cmdline()
            if len(words) > 2 and words[2] in OUTSIDE:
                used = child.cpu_times()
                total += used.user + used.system
        return total

    async def stop(self) -> None:
        await self.tied.stop()


def long_steps(metrics: str) -> int:
    """Of a runner's metrics: the engine steps so far that took longer than a second."""
    steps = [family for family in text_string_to_metric_families(metrics) if family.name == "thunderline_step_seconds"]
    samples = [sample for family in steps for sample in family.samples]
    total = sum(sample.value for sample in samples if sample.name.endswith("_count"))
    return int(total - sum(sample.value for sample in samples if sample.labels.get("le") == "1.0"))


async def tiny_copy(model: Path, folder: Path) -> Path:
    """A random model of the same architecture, whose step takes some milliseconds."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "thunderline.rank.tiny_model", str(model), str(folder)
    )
    if await asyncio.wait_for(process.wait(), START_DEADLINE_S):
        raise WrongAnswer(f"no tiny copy of {model} can be made")
    return folder


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


async def _end(process: asyncio.subprocess.Process, by: signal.Signals | None = signal.SIGINT) -> None:
    """By a signal, or, where it has been told otherwise, without one; by force after 10 s."""
    if process.returncode is not None:
        return
    if by is not None:
        process.send_signal(by)
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        process.kill()
        await process.wait()
