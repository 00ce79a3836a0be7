"""What each process of an installation holds, sampled; the last third of a run is compared with the middle one."""

import asyncio
import contextlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

from installation import Installation

GROWTH_MAX = 1.1
# What one that has been restarted lately may hold more than one that was restarted in the middle.
MEMORY_SLACK_MIB, SOCKETS_SLACK, FILES_SLACK = 8.0, 3.0, 6.0
EVERY_S = 1.0
COUNTS = ("processes", "files", "sockets", "memory_mib")
SLACK = {"processes": 0.0, "files": FILES_SLACK, "sockets": SOCKETS_SLACK, "memory_mib": MEMORY_SLACK_MIB}


@dataclass(frozen=True)
class Held:
    """By one process: open files, sockets among them, MiB; or by all of a name."""

    processes: float
    files: float
    sockets: float
    memory_mib: float


# By the name of the process: a role's, or "rank".
Sample = dict[str, list[Held]]


def sample(up: Installation) -> Sample:
    found: Sample = {}
    for pid, name in up.processes().items():
        if name in ("up", "events"):
            continue
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            sockets = len(process.net_connections(kind="all"))
            memory_mib = process.memory_info().rss / 2**20
            found.setdefault(name, []).append(Held(1, process.num_fds(), sockets, memory_mib))
    return found


async def samples(up: Installation, found: list[Sample]) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        found.append(await asyncio.to_thread(sample, up))


def _medians(sampled: Sequence[Sample], name: str) -> dict[str, float]:
    """Over the samples in which there was one of the name; two at once count as two."""
    present = [one[name] for one in sampled if one.get(name)]
    return {key: statistics.median(sum(getattr(held, key) for held in one) for one in present) for key in COUNTS}


def thirds(sampled: Sequence[Sample]) -> dict[str, dict[str, tuple[float, float]]]:
    """By name and by what is held: the medians of the middle third, and of the last."""
    size = len(sampled) // 3
    middle, last = sampled[size : 2 * size], sampled[2 * size :]
    names = sorted(set.intersection(*({name for one in part for name in one} for part in (middle, last))))
    return {name: {key: (_medians(middle, name)[key], _medians(last, name)[key]) for key in COUNTS} for name in names}


def grown(found: dict[str, dict[str, tuple[float, float]]], keys: Iterable[str] = COUNTS) -> list[str]:
    """What has grown by more than it may."""
    return [
        f"{name}: {key} {before:.1f} to {after:.1f}"
        for name, held in found.items()
        for key, (before, after) in held.items()
        if key in keys and after > GROWTH_MAX * before + SLACK[key]
    ]


def ratio(sampled: Sequence[Sample], of: Callable[[Held], float]) -> float:
    """Of all together: the last third to the middle one."""
    values = [sum(of(held) for each in one.values() for held in each) for one in sampled]
    size = len(values) // 3
    return round(statistics.median(values[2 * size :]) / statistics.median(values[size : 2 * size]), 2)
