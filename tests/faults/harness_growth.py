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
# A role that reads a model's files holds half as much again for a while: its median is one or the other by chance, its
# peak too. What is never given back lifts the floor.
FLOOR = "memory_floor_mib"


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


def _typical(sampled: Sequence[Sample], name: str) -> dict[str, float]:
    """Medians over the samples in which there was one of the name, two at once count as two; and the floor."""
    present = [one[name] for one in sampled if one.get(name)]
    sums = {key: [sum(getattr(held, key) for held in one) for one in present] for key in COUNTS}
    floor = statistics.quantiles(sums["memory_mib"], n=4)[0] if len(present) > 1 else sums["memory_mib"][0]
    return {**{key: statistics.median(values) for key, values in sums.items()}, FLOOR: floor}


def thirds(sampled: Sequence[Sample]) -> dict[str, dict[str, tuple[float, float]]]:
    """By name and by what is held: of the middle third, and of the last."""
    size = len(sampled) // 3
    middle, last = sampled[size : 2 * size], sampled[2 * size :]
    found = {}
    for name in sorted({name for one in middle for name in one} & {name for one in last for name in one}):
        before, after = _typical(middle, name), _typical(last, name)
        found[name] = {key: (round(before[key], 1), round(after[key], 1)) for key in before}
    return found


def grown(found: dict[str, dict[str, tuple[float, float]]], keys: Iterable[str] = COUNTS) -> list[str]:
    """What has grown by more than it may."""
    return [
        f"{name}: {key} {held[key][0]} to {held[key][1]}"
        for name, held in found.items()
        for key in keys
        if _is_grown(*held[key], SLACK[key]) and (key != "memory_mib" or _is_grown(*held[FLOOR], MEMORY_SLACK_MIB))
    ]


def _is_grown(before: float, after: float, slack: float) -> bool:
    return after > GROWTH_MAX * before + slack


def ratio(sampled: Sequence[Sample], of: Callable[[Held], float]) -> float:
    """Of all together: the last third to the middle one."""
    values = [sum(of(held) for each in one.values() for held in each) for one in sampled]
    size = len(values) // 3
    return round(statistics.median(values[2 * size :]) / statistics.median(values[size : 2 * size]), 2)
