"""Why a real rank ended: each way to end, for a child, for one that was adopted, and for one that ended alone."""

import asyncio
import json
import os
import signal
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

import endings
from runner import little_model
from runner.little_runner import PREPARED, READY, Little
from runner.rank_that_ends import MEMORY, WAIT, order
from runner.runner_process import Process, until_gone
from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.runner import rank_process
from thunderline.v1 import cluster_pb2

SOON_S = 60.0
# Real ranks beside each other on a machine of two cores; in `make prove` one batch follows the other.
BATCH_SIZE = 4
# The timer comes fourteen seconds after this.
WARM_UP_S = 2.0
LARGE, LARGE_TOKENS = "large", 2**26


@dataclass(frozen=True)
class Row:
    """`how`: a signal, or the name of an ending. The causes' names, and words of what is told of them."""

    how: signal.Signals | str
    state: RankState
    child: tuple[str, str]
    # Nobody is told an adopted one's status.
    adopted: tuple[str, str]
    model: str = "little"

    @property
    def ends_alone(self) -> bool:
        return self.state is RankState.WARMING or isinstance(self.how, signal.Signals)


S = RankState
ABORTED = ("SIGNAL", "SIGABRT: Fatal Python error: Aborted")
CRASHED = ("SIGNAL", "SIGSEGV: Fatal Python error: Segmentation fault")
THROWN = ("SIGNAL", "SIGABRT: terminate called after throwing an instance of 'std::bad_alloc'")
RAISED = ("ENGINE_EXCEPTION", f"RuntimeError: {endings.INJECTED}")
LEFT = ("ENGINE_EXCEPTION", f"SystemExit: {endings.CODE}")
NO_MEMORY = ("ENGINE_EXCEPTION", "MemoryError")
UNREAD = ("ENGINE_EXCEPTION", "there is no memory for the weights")
KILLED = ("KILLED", "ended without a word while READY: killed from outside, perhaps by the system for want of memory")
HUNG = ("RANK_HUNG", "its own timer ended it")


ROWS = {
    "killed": Row(signal.SIGKILL, S.READY, ("SIGNAL", "SIGKILL: killed from outside, perhaps by the system"), KILLED),
    "crashed": Row(signal.SIGSEGV, S.READY, CRASHED, CRASHED),
    "aborted": Row(signal.SIGABRT, S.READY, ABORTED, ABORTED),
    "raised": Row("raises", S.WARMING, RAISED, RAISED),
    "left by sys.exit": Row("leaves", S.READY, LEFT, LEFT),
    "exited": Row(
        "exits",
        S.WARMING,
        ("EXIT_CODE", f"exit code {endings.CODE}: {endings.LAST_WORDS}"),
        ("KILLED", endings.LAST_WORDS),
    ),
    "no memory": Row("has_no_memory", S.WARMING, NO_MEMORY, NO_MEMORY),
    "no memory in C++": Row("has_no_memory_in_cpp", S.WARMING, THROWN, THROWN),
    "no memory for the weights": Row(MEMORY, S.LOADING, UNREAD, UNREAD, LARGE),
}
TIMER = "its own timer"
CHILD, ADOPTED, ALONE = "child", "adopted", "alone"
# In `make test`; signals are in test_runner_adoption.py too, with stand-ins.
FEW = [("left by sys.exit", CHILD), ("no memory in C++", ADOPTED)]
# Alone it makes no step, and loads nothing.
ALL = [(name, kind) for name in ROWS for kind in (CHILD, ADOPTED, ALONE) if kind != ALONE or ROWS[name].ends_alone]
CHOSEN = ALL if os.environ.get("PROVE") else FEW
CASES = [*CHOSEN, (TIMER, CHILD), (TIMER, ADOPTED)]
T = TypeVar("T")
Found = dict[tuple[str, str], cluster_pb2.RankReport]


def write(path: Path, text: str) -> None:
    """Whole, or not there."""
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def make_large(folder: Path) -> None:
    """The little model with very many tokens: 8 GiB of zeros, of which the disk holds none."""
    little_model.make(folder)
    config = {**little_model.config(), "vocab_size": LARGE_TOKENS}
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / "model.safetensors"
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    header = json.loads(path.read_bytes()[8 : 8 + length])
    end = max(one["data_offsets"][1] for name, one in header.items() if name != "__metadata__")
    name, size_bytes = "model.embed_tokens.weight", LARGE_TOKENS * little_model.HIDDEN * 4
    header[name].update(shape=[LARGE_TOKENS, little_model.HIDDEN], data_offsets=[end, end + size_bytes])
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    os.truncate(path, 8 + len(head) + end + size_bytes)


@dataclass
class One:
    """A rank of a story, and a client of the runner that it has at the time."""

    row: Row
    kind: str
    little: Little

    def order(self, what: str) -> None:
        write(order(self.little.settings.home, self.little.instance), what)

    async def prepare(self) -> None:
        if self.row.state is S.WARMING:
            self.order(WAIT)
        elif self.row.how == MEMORY:
            self.order(MEMORY)
        await self.little.set_rank(PREPARED)
        await self.little.until(S.PREPARED.value, timeout_s=SOON_S)

    async def reach(self) -> None:
        """The phase in which it ends; one that loads ends by itself."""
        await self.little.set_rank(READY)
        if self.row.state is not S.LOADING:
            await self.little.until(self.row.state.value, timeout_s=SOON_S)

    def end(self, pid: int) -> None:
        if isinstance(self.row.how, signal.Signals):
            os.kill(pid, self.row.how)
        elif self.row.how != MEMORY:
            self.order(self.row.how)

    async def ended(self) -> cluster_pb2.RankReport:
        if self.row.state is S.READY and not isinstance(self.row.how, signal.Signals):
            # An idle rank makes no step.
            await self.little.refused()
        return await self.little.until(S.ABSENT.value, timeout_s=SOON_S)


async def each(ones: Iterable[One], what: Callable[[One], Awaitable[T]]) -> list[T]:
    """All at once."""
    return await asyncio.gather(*(what(one) for one in ones))


async def until_there(one: One) -> None:
    """Its new runner has it, and it has dialled in."""
    await one.little.until(one.row.state.value, look=lambda report: report.attached, timeout_s=SOON_S)


async def batch(process: Process, cases: Sequence[tuple[str, str]]) -> Found:
    """One story: all come up; children end; the runner is killed; some end alone, the others under the next."""
    process.start("ends")
    async with process.client() as little:
        ones = [
            One(ROWS[name], kind, replace(little, instance=f"i{number}", model=ROWS[name].model))
            for number, (name, kind) in enumerate(cases)
        ]
        children, others = [one for one in ones if one.kind == CHILD], [one for one in ones if one.kind != CHILD]
        loads = [one for one in others if one.row.state is S.LOADING]
        await each(ones, One.prepare)
        await each([one for one in ones if one not in loads], One.reach)
        view = await process.complete(little)
        pids = {report.id.instance: report.pid for report in view.ranks}
        for one in children:
            one.end(pids[one.little.instance])
        ends = dict(zip(map(id, children), await each(children, One.ended), strict=True))
    process.kill()
    for one in others:
        if one.kind == ALONE:
            one.end(pids[one.little.instance])
            await until_gone(pids[one.little.instance], SOON_S)
    process.start("ends")
    async with process.client() as little:
        for one in others:
            one.little.stub = little.stub
        adopted = [one for one in others if one.kind == ADOPTED]
        await each(loads, One.reach)
        await each([one for one in adopted if one not in loads], until_there)
        for one in adopted:
            one.end(pids[one.little.instance])
        ends |= dict(zip(map(id, others), await each(others, One.ended), strict=True))
    for one in ones:
        assert ends[id(one)].pid == pids[one.little.instance]
    assert not list(process.map().parent.iterdir()), "a map is left"
    return {case: ends[id(one)] for case, one in zip(cases, ones, strict=True)}


async def timers(process: Process) -> Found:
    """Two ranks stand in C++, and their runner is stopped: nobody but they themselves can end them."""
    row = Row("stands", S.WARMING, HUNG, HUNG)
    process.start("ends", warm_up_s=WARM_UP_S)
    async with process.client() as little:
        adopted = One(row, ADOPTED, replace(little, instance="i1"))
        await adopted.little.set_rank(PREPARED)
        await adopted.little.until(S.PREPARED.value, timeout_s=SOON_S)
    process.kill()
    runner = process.start("ends", warm_up_s=WARM_UP_S)
    async with process.client() as little:
        child = One(row, CHILD, replace(little, instance="i2"))
        adopted.little.stub = little.stub
        await child.little.set_rank(PREPARED)
        await each([child, adopted], lambda one: one.little.until(S.PREPARED.value, timeout_s=SOON_S))
        marks = [rank_process.map_path(process.settings, RankId(InstanceId(name), 1, 0)) for name in ("i2", "i1")]
        for one in (child, adopted):
            one.order("stands")
            await one.little.set_rank(READY)
        async with asyncio.timeout(SOON_S):
            while not all(mark is not None and mark.state is S.WARMING for mark in map(rank_process.read_mark, marks)):
                await asyncio.sleep(0.02)
        runner.send_signal(signal.SIGSTOP)
        pids = [mark.pid for mark in map(rank_process.read_mark, marks) if mark is not None]
        for pid in pids:
            await until_gone(pid, SOON_S)
        runner.send_signal(signal.SIGCONT)
        ends = await each([child, adopted], One.ended)
    assert [end.pid for end in ends] == pids
    return dict(zip([(TIMER, CHILD), (TIMER, ADOPTED)], ends, strict=True))


async def stories(folder: Path) -> Found:
    """The timers run while the others come and go."""

    async def batches() -> Found:
        found: Found = {}
        for number in range(0, len(CHOSEN), BATCH_SIZE):
            cases = CHOSEN[number : number + BATCH_SIZE]
            found |= await on_a_home(folder / str(number), cases)
        return found

    async def on_a_home(home: Path, cases: Sequence[tuple[str, str]] | None) -> Found:
        process = Process(home)
        make_large(process.settings.models / LARGE)
        try:
            return await (timers(process) if cases is None else batch(process, cases))
        finally:
            process.end()

    hung, others = await asyncio.gather(on_a_home(folder / "timers", None), batches())
    return hung | others


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return asyncio.run(stories(tmp_path_factory.mktemp("c")))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "kind"), CASES, ids=[" ".join(case) for case in CASES])
def test_it_is_named_with_its_phase_and_its_last_words(
    found: Found, name: str, kind: str, evidence: dict[str, Any]
) -> None:
    row = Row("stands", S.WARMING, HUNG, HUNG) if name == TIMER else ROWS[name]
    cause = found[name, kind].cause
    expected, words = row.child if kind == CHILD else row.adopted
    assert (cause.name, cause.state, cause.permanent) == (expected, row.state.value, False), cause
    assert words in cause.detail, cause
    evidence[f"{name}, {kind}"] = f"{cause.name}: {cause.detail}"
