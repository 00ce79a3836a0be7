"""Two hundred clients, half of whom leave, ten of whom read a byte a second: nobody else notices, nothing is kept."""

import asyncio
import os
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx
import psutil
import pytest

from faults import hooked_rank
from faults.hooked_rank import Held
from faults.visitors import TOKENS, Leaves, Visitor, crowd, visits
from installation import Installation, until
from patience import PATIENCE
from thunderline.process.metrics import PORT_OFFSET

# All of them in `make prove`, a tenth in `make test`. `QUEUE_S`: about how long the last one waits for its turn.
COUNT, SLOW_COUNT, QUEUE_S = (200, 10, 40.0) if os.environ.get("PROVE") else (20, 1, 2.0)
SAMPLE_EVERY_S = 0.5
OUTLIVES_MAX_S = 1.0 * PATIENCE
# The step under way ends first; on a machine that others keep busy it may take longer than that by itself.
AFTER_THE_STEP_MAX_S = 0.5 * PATIENCE
IDLE_S = 30.0
MIB = 2**20
# What a crowd may cost a role at its peak, and what its second visit may leave more than the first.
ROLE_GROWTH_MIB, ROLE_GROWTH_AGAIN_MIB = 32, 10
# The rank holds the KV of 32 sequences, and of 64 past ones in its prefix cache; both within its KV budget.
RANK_GROWTH_MIB, RANK_GROWTH_AGAIN_MIB = 1500, 200


@dataclass
class Memory:
    """Resident memory of processes, sampled twice a second while the block runs."""

    pids: dict[int, str]
    samples: dict[str, list[float]] = field(default_factory=dict)

    def __enter__(self) -> "Memory":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> dict[str, float]:
        """MiB by role."""
        return {role: round(psutil.Process(pid).memory_info().rss / MIB, 1) for pid, role in self.pids.items()}

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            for role, mib in self.now().items():
                self.samples.setdefault(role, []).append(mib)

    @property
    def peak(self) -> dict[str, float]:
        return {role: max(values) for role, values in self.samples.items()}


def metric(url: str, name: str) -> float:
    """The sum over a metric's labels."""
    lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def sequences_running(up: Installation) -> float:
    host, port = up.target("runner").split(":")
    return metric(f"http://{host}:{int(port) + PORT_OFFSET}", "thunderline_sequences_running")


def outlived_s(visitor: Visitor, steps: Sequence[Held]) -> float | None:
    """How long after its client had left a sequence was at the rank, at most: until a step began without it.

    None for one that no step ever had.
    """
    with_it = [n for n, step in enumerate(steps) if visitor.seed in step.running or visitor.seed in step.waiting]
    if not with_it:
        return None
    # After the last step of all the rank was idle: it had nothing left.
    after = min(with_it[-1] + 1, len(steps) - 1)
    return max(0.0, steps[after].at_s - visitor.closed_s)


@dataclass
class Visit:
    """What one crowd's visit showed."""

    visitors: list[Visitor]
    steps: list[Held]
    lasted_s: float
    peak: dict[str, float]
    after: dict[str, float]
    slow_read_bytes: list[int]
    # In a step some time after them.
    parked_count: int

    @property
    def leavers(self) -> list[Visitor]:
        return [one for one in self.visitors if one.leaves is not Leaves.NEVER]

    @property
    def outlived_s(self) -> list[float]:
        """Of those whose sequence had reached the rank."""
        return [found for one in self.leavers if (found := outlived_s(one, self.steps)) is not None]

    @property
    def longest_step_s(self) -> float:
        """While several were served: a step and what is between it and the next."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return max(after.at_s - step.at_s for step, after in pairs if len(step.running) > 1)

    @property
    def readers(self) -> list[Visitor]:
        return [one for one in self.visitors if one.leaves is Leaves.NEVER]


def one_visit(up: Installation, pids: dict[int, str]) -> Visit:
    """The same crowd each time."""
    visitors = crowd(COUNT, SLOW_COUNT, QUEUE_S, seed=17)
    before = len(hooked_rank.held(up.home))
    slow = [one for one in visitors if one.is_slow]
    read: list[int] = []

    async def between() -> None:
        """Nobody else is left: the slow ones still read, and the rank works for nobody."""
        await asyncio.to_thread(until, "an idle rank", lambda: not sequences_running(up), IDLE_S)
        assert not any(one.closed_s for one in slow)
        read.extend(len(one.data) for one in slow)

    begun_s = time.monotonic()
    with Memory(pids) as memory:
        asyncio.run(visits(up.url, visitors, between))
        lasted_s = time.monotonic() - begun_s
        # Whatever is freed late is freed now.
        threading.Event().wait(2)
    steps, after = hooked_rank.held(up.home)[before:], memory.now()
    until("a good answer", up.answers, 60)
    return Visit(visitors, steps, lasted_s, memory.peak, after, read, hooked_rank.held(up.home)[-1].parked_count)


def check(visit: Visit) -> None:
    unfinished = [one for one in visit.leavers if not one.is_done and not one.finish and not one.problem]
    assert len(unfinished) == COUNT // 2
    assert not [one for one in visit.readers if not one.is_whole]
    # The fault took effect at the rank too: none of those who left got all its tokens.
    for one in visit.leavers:
        assert sum(one.seed in step.running for step in visit.steps) < TOKENS, one
    assert max(visit.outlived_s) <= max(OUTLIVES_MAX_S, visit.longest_step_s + AFTER_THE_STEP_MAX_S)
    # Who leaves is not waited for, as one whose scheduler has died would be.
    assert not visit.parked_count
    assert max(visit.slow_read_bytes) < min(len(one.data) for one in visit.readers if one.is_slow)


def figures(visit: Visit) -> dict[str, Any]:
    """For the evidence."""
    ways = {way: [one for one in visit.leavers if one.leaves is way] for way in Leaves if way is not Leaves.NEVER}
    return {
        "lasted_s": round(visit.lasted_s, 1),
        "left": {way.value: len(leavers) for way, leavers in ways.items()},
        "left_before_their_first_event": sum(not one.events for one in visit.leavers),
        "left_when_the_rank_had_begun_them": len(visit.outlived_s),
        "outlived_median_s": round(statistics.median(visit.outlived_s), 2),
        "outlived_longest_s": round(max(visit.outlived_s), 2),
        "longest_step_s": round(visit.longest_step_s, 2),
        "finished_with_all_tokens": sum(one.is_whole for one in visit.readers),
        "slow_readers_had_read_bytes": max(visit.slow_read_bytes),
        "slow_readers_answers_have_bytes": min(len(one.data) for one in visit.readers if one.is_slow),
        "peak_mib": visit.peak,
        "after_mib": visit.after,
    }


# Two rounds of about a minute on two cores.
@pytest.mark.timeout(1500)
def test_a_crowd_of_which_half_leaves_is_served_and_leaves_nothing_behind(
    hooked: Installation, evidence: dict[str, Any]
) -> None:
    until("a good answer", hooked.answers, 60)
    pids = hooked.processes()
    left = metric(hooked.url, "thunderline_client_disconnects_total")
    before = Memory(pids).now()
    rounds = [one_visit(hooked, pids) for _ in range(2)]
    seen_leaving = metric(hooked.url, "thunderline_client_disconnects_total") - left
    evidence.update(clients=COUNT, slow=SLOW_COUNT, max_tokens=TOKENS, before_mib=before)
    evidence.update(first_visit=figures(rounds[0]), second_visit=figures(rounds[1]))
    evidence.update(disconnects_seen_by_the_gateway=int(seen_leaving))
    for visit in rounds:
        check(visit)
    assert seen_leaving == COUNT // 2 * len(rounds)
    # Those who stayed got the same, whoever left beside them and when.
    first, second = ([one.text for one in visit.readers] for visit in rounds)
    assert first == second
    assert hooked.processes() == pids
    for role in before:
        allowed = RANK_GROWTH_MIB if role == "rank" else ROLE_GROWTH_MIB
        assert max(visit.peak[role] for visit in rounds) - before[role] <= allowed, role
        again = RANK_GROWTH_AGAIN_MIB if role == "rank" else ROLE_GROWTH_AGAIN_MIB
        assert rounds[1].after[role] - rounds[0].after[role] <= again, role
