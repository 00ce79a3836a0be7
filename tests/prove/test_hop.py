"""What a runner adds to a step of a tiny model, and what of that the second core's sharing is: a profile by threads.

Three in turn: our engine with nothing around it; the same beside a process that has nothing to do with it, which is
busy as long a step as the rank's event loop and its runner are; and a rank with its runner. What a busy stranger adds
too is no cost of the way from rank to runner, but of a machine with two cores (facts: a step keeps one core busy, and
the engine thread wakes some thirty times a step on the other).
"""

import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from installation import DEMO, installed

# Many and short: what is looked for is a fiftieth of a step, and the machine's own speed wanders.
ROUNDS = 45
STREAMS, NEW_TOKENS = 8, 64
# Of a turn's 1.8 s: after the prompts, and before the end.
SETTLED_S, WATCHED_S = 0.5, 0.7
# Busy for so long, then asleep for so long; by turns, for ever.
STRANGER = "import time\nwhile True:\n e=time.perf_counter()+%f\n while time.perf_counter()<e: pass\n time.sleep(%f)"


@dataclass(frozen=True)
class Work:
    """Of a thread, in milliseconds a step: on a core, and ready but without one."""

    busy_ms: float
    waiting_ms: float


class Contender:
    """Fed by lines, as the benchmark does it."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ask()

    def _ask(self, **wish: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        if wish:
            self.process.stdin.write(json.dumps(wish) + "\n")
            self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def step_ms(self, number: int) -> float:
        draw = random.Random(number)
        prompts = [[draw.randrange(3, 100) for _ in range(50)] for _ in range(STREAMS)]
        found = self._ask(prompts=prompts, max_tokens=NEW_TOKENS, temperature=0.0, top_p=0.0)
        return 1000 * float(found["wall_s"] - max(found["first_token_s"])) / (NEW_TOKENS - 1)

    def turn(self, number: int) -> tuple[float, list[Work]]:
        """The step, and its busiest threads."""
        taken: list[float] = []
        running = threading.Thread(target=lambda: taken.append(self.step_ms(number)))
        running.start()
        time.sleep(SETTLED_S)
        before, begun_s = self._spent(), time.monotonic()
        time.sleep(WATCHED_S)
        after, steps_ms = self._spent(), 1000 * (time.monotonic() - begun_s)
        running.join(60)
        steps = steps_ms / taken[0]
        each = [
            Work(*((b - a) / steps for a, b in zip(before[key], now, strict=True)))
            for key, now in after.items()
            if key in before
        ]
        return taken[0], sorted(each, key=lambda one: -one.busy_ms)

    def _spent(self) -> dict[str, tuple[float, float]]:
        """Of each thread of these processes: milliseconds on a core, and milliseconds of waiting for one."""
        mine = psutil.Process(self.process.pid)
        found = {}
        for process in [mine, *mine.children(recursive=True)]:
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                busy, waiting, _ = (task / "schedstat").read_text().split()
                found[task.name] = (int(busy) / 1e6, int(waiting) / 1e6)
        return found

    def end(self) -> None:
        # Its input ends, and it with it.
        self.process.communicate(timeout=30)


@contextmanager
def stranger(busy_ms: float, step_ms: float) -> Iterator[None]:
    code = STRANGER % (busy_ms / 1000, max(0.1, step_ms - busy_ms) / 1000)
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def medians(turns: Sequence[list[Work]]) -> list[dict[str, float]]:
    return [
        {
            "busy_ms": round(statistics.median(one[place].busy_ms for one in turns), 2),
            "waits_for_a_core_ms": round(statistics.median(one[place].waiting_ms for one in turns), 2),
        }
        for place in range(min(4, *(len(one) for one in turns)))
    ]


@pytest.mark.timeout(900)
def test_what_a_runner_adds_and_what_a_busy_stranger_adds_too(tmp_path: Path, evidence: dict[str, Any]) -> None:
    with installed(tmp_path / "home", "--demo") as made:
        model = made.home / "models" / DEMO
    tiny = tmp_path / "tiny"
    subprocess.run([sys.executable, "-m", "thunderline.rank.tiny_model", str(model), str(tiny)], check=True, timeout=60)
    engine = Contender("thunderline.rank.bare_loop", str(tiny), "--engine")
    runner = Contender("thunderline.runner.bare_runner", str(tiny))
    for contender in (engine, runner):
        contender.step_ms(0)
    # What the runner's side is busy with: all threads but the two of the engine.
    step_ms, threads = runner.turn(1)
    beside_ms = sum(one.busy_ms for one in threads[2:])
    steps: dict[str, list[float]] = {"engine": [], "stranger": [], "runner": []}
    works: dict[str, list[list[Work]]] = {name: [] for name in steps}
    for number in range(2, 2 + ROUNDS):
        order = [*steps][number % 3 :] + [*steps][: number % 3]
        for name in order:
            if name == "stranger":
                with stranger(beside_ms, step_ms):
                    taken = engine.turn(1000 * number)
            else:
                taken = (engine if name == "engine" else runner).turn(1000 * number + len(name))
            steps[name].append(taken[0])
            works[name].append(taken[1])
    for contender in (engine, runner):
        contender.end()

    def adds(what: str, name: str, rival: str) -> float:
        """Median and quartiles of the rounds, as figures."""
        values = sorted(a - b for a, b in zip(steps[name], steps[rival], strict=True))
        quarter = len(values) // 4
        evidence[f"{what}_quartiles"] = [round(values[quarter], 3), round(values[-1 - quarter], 3)]
        evidence[what] = median = round(statistics.median(values), 3)
        return median

    evidence.update(
        rounds=ROUNDS,
        cores=os.cpu_count(),
        busy_beside_the_engine_ms_per_step=round(beside_ms, 2),
        step_ms={name: round(statistics.median(values), 2) for name, values in steps.items()},
        threads={name: medians(turns) for name, turns in works.items()},
    )
    adds("runner_adds_ms_per_step", "runner", "engine")
    adds("a_busy_stranger_adds_ms_per_step", "stranger", "engine")
    assert adds("runner_adds_beyond_a_busy_stranger_ms_per_step", "runner", "stranger") <= 0.5
