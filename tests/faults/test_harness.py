"""Faults by a seeded schedule under eight clients that never stop asking: nothing hangs, no token is lost or repeated.

A seed that fails is run again with FAULT_SEED=n.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from faults.followers import Follower, by_grpc, by_http, prefill_s
from installation import Installation, until
from thunderline.client import SchedulerClient

PROVING = bool(os.environ.get("PROVE"))
SECONDS = 600.0 if PROVING else 60.0
SEED = int(os.environ.get("FAULT_SEED", "1"))
FAULT_EVERY_S, RANK_FAULT_EVERY_S = 5.0, 30.0
STOPPED_MAX_S = 3.0
VARIANTS = 8
# Of each stream at its end.
CONTEXT = 110
ROLES = ("discovery", "topology", "scheduler", "runner", "gateway")
# The scheduler's, which another process locks.
STORE = "store"
ROLE_FAULTS = ("SIGKILL", "SIGABRT", "SIGTERM", "SIGSTOP")
RANK_FAULTS = ("SIGKILL", "SIGABRT", "SIGSTOP")
# A step may take 60 s in a rank that is young, and that it stands still is noticed within 2 s.
YOUNG_STALL_S, MARGIN_S = 62.0, 3.0
GROWTH_MAX = 1.1


@dataclass(frozen=True)
class Fault:
    at_s: float
    target: str
    kind: str
    for_s: float = 0.0


def schedule(seed: int, seconds: float) -> list[Fault]:
    """A role each time, the rank when it is its turn again."""
    draw, found, rank_at_s = random.Random(seed), [], FAULT_EVERY_S
    for number in range(1, int((seconds - FAULT_EVERY_S) / FAULT_EVERY_S) + 1):
        at_s = number * FAULT_EVERY_S
        if at_s >= rank_at_s:
            # One that hangs is found after a while, and must have time to load.
            rank_at_s = at_s + RANK_FAULT_EVERY_S
            found.append(Fault(at_s, "rank", draw.choice(RANK_FAULTS)))
        else:
            target = draw.choice((*ROLES, STORE))
            kind = "LOCKED" if target == STORE else draw.choice(ROLE_FAULTS)
            found.append(Fault(at_s, target, kind, draw.uniform(0.5, STOPPED_MAX_S)))
    return found


@dataclass
class Sample:
    """What the installation holds: processes, open files and sockets, MiB."""

    processes: int
    files: int
    memory_mib: float


@dataclass
class Record:
    answers: int = 0
    broken_by_gateway: int = 0
    took_effect: int = 0
    wrong: list[str] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    gateway_killed_s: list[float] = field(default_factory=list)


def strike(up: Installation, fault: Fault, record: Record) -> int | None:
    """The pid that has to be continued later, if any."""
    pid = next((pid for pid, name in up.processes().items() if name == fault.target), None)
    if pid is None:
        return None
    os.kill(pid, signal.Signals[fault.kind])
    if fault.target == "gateway":
        record.gateway_killed_s.append(time.monotonic())
    record.took_effect += 1
    return pid if fault.kind == "SIGSTOP" and fault.target != "rank" else None


def lock_store(up: Installation, for_s: float, record: Record) -> None:
    (path,) = up.home.rglob("scheduler.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as store:
        store.execute("BEGIN IMMEDIATE")
        record.took_effect += 1
        threading.Event().wait(for_s)
        store.execute("ROLLBACK")


async def faults(up: Installation, record: Record) -> None:
    begun_s = time.monotonic()
    for fault in schedule(SEED, SECONDS):
        await asyncio.sleep(max(0.0, begun_s + fault.at_s - time.monotonic()))
        if fault.target == STORE:
            await asyncio.to_thread(lock_store, up, fault.for_s, record)
            continue
        pid = await asyncio.to_thread(strike, up, fault, record)
        if pid is not None:
            await asyncio.sleep(fault.for_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    await asyncio.sleep(max(0.0, begun_s + SECONDS - time.monotonic()))


async def ask(up: Installation, variant: int) -> Follower:
    follower = Follower()
    if variant >= VARIANTS // 2:
        await by_http(up.url, variant, follower)
    else:
        async with SchedulerClient(up.target("scheduler")) as client:
            await by_grpc(client, variant, follower)
    return follower


async def everybody(up: Installation) -> list[Follower]:
    return list(await asyncio.gather(*(ask(up, variant) for variant in range(VARIANTS))))


async def client(up: Installation, number: int, right: dict[int, object], record: Record, until_s: float) -> None:
    """The same questions again and again, each answer compared."""
    draw = random.Random(number)
    while time.monotonic() < until_s:
        variant = draw.randrange(VARIANTS // 2) + (VARIANTS // 2 if number % 2 else 0)
        begun_s = time.monotonic()
        follower = await ask(up, variant)
        times = [begun_s, *follower.times_s]
        record.gaps_s.append(max((b - a for a, b in itertools.pairwise(times)), default=0.0))
        if follower.error.startswith("broken") and any(one >= begun_s - 5 for one in record.gateway_killed_s):
            record.broken_by_gateway += 1
            await asyncio.sleep(0.2)
        elif follower.answer == right[variant]:
            record.answers += 1
        else:
            record.wrong.append(f"variant {variant}: {follower.answer} instead of {right[variant]}")


def sample(up: Installation) -> Sample:
    files, memory = 0, 0
    found = [pid for pid, name in up.processes().items() if name not in ("up", "events")]
    for pid in found:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            files += process.num_fds()
            memory += process.memory_info().rss
    return Sample(len(found), files, memory / 2**20)


async def samples(up: Installation, record: Record) -> None:
    while True:
        await asyncio.sleep(1.0)
        record.samples.append(await asyncio.to_thread(sample, up))


async def run(up: Installation, right: dict[int, object]) -> Record:
    record = Record()
    until_s = time.monotonic() + SECONDS
    async with asyncio.TaskGroup() as tasks:
        sampling = tasks.create_task(samples(up, record))
        clients = [tasks.create_task(client(up, number, right, record, until_s)) for number in range(8)]
        await faults(up, record)
        await asyncio.wait(clients)
        sampling.cancel()
    return record


def growth(values: list[float]) -> float:
    """The last third to the middle one."""
    size = len(values) // 3
    return round(statistics.median(values[2 * size :]) / statistics.median(values[size : 2 * size]), 2)


def reload_s(up: Installation) -> float:
    """The longest that an epoch took to be READY."""
    told = up.run("events", "--json", "--count", "1000", timeout_s=20).stdout.splitlines()
    texts = [one["text"] for line in told if (one := json.loads(line))["kind"] == "DEPLOYMENT_READY"]
    return max(float(found[1]) for text in texts if (found := re.search(r"after ([\d.]+) s", text)))


@pytest.fixture(scope="module")
def right(fresh: Installation) -> Iterator[dict[int, object]]:
    until("a good answer", fresh.answers, 60)
    followers = asyncio.run(everybody(fresh))
    assert not any(follower.error for follower in followers)
    yield {variant: follower.answer for variant, follower in enumerate(followers)}


@pytest.mark.timeout(int(SECONDS) + 400)
def test_nothing_is_lost_whatever_dies(fresh: Installation, right: dict[int, object], evidence: dict[str, Any]) -> None:
    record = asyncio.run(run(fresh, right))
    assert not record.wrong, (SEED, record.wrong[:3], len(record.wrong))
    planned = schedule(SEED, SECONDS)
    assert record.took_effect >= len(planned) * 0.8, "faults found nobody"
    until("a good answer", fresh.answers, 60)
    stalls_s = YOUNG_STALL_S if any(one.target == "rank" and one.kind == "SIGSTOP" for one in planned) else 0.0
    reloads_s, prefills_s = reload_s(fresh), asyncio.run(prefill_s(fresh, [Follower(prompt=[0] * CONTEXT)] * 8))
    assert max(record.gaps_s) <= stalls_s + reloads_s + prefills_s + MARGIN_S, (SEED, sorted(record.gaps_s)[-5:])
    files = growth([one.files for one in record.samples])
    memory = growth([one.memory_mib for one in record.samples])
    processes = growth([one.processes for one in record.samples])
    if PROVING:
        assert max(files, memory, processes) <= GROWTH_MAX, (files, memory, processes)
    evidence.update(
        seed=SEED,
        seconds=SECONDS,
        faults=record.took_effect,
        answers_equal=record.answers,
        answers_wrong=len(record.wrong),
        http_streams_closed_by_a_killed_gateway=record.broken_by_gateway,
        longest_gap_s=round(max(record.gaps_s), 1),
        longest_reload_s=reloads_s,
        prefill_of_all_s=round(prefills_s, 1),
        files_last_third_to_middle=files,
        memory_last_third_to_middle=memory,
        processes_last_third_to_middle=processes,
    )
