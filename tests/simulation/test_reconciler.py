"""The scheduler's laws under faults, by seed; and that this simulation can fail.

`SEED=17 pytest tests/simulation -k law` lives one life again. `make prove simulation` lives ten thousand.
"""

import os
import time
from typing import Any

import pytest

from simulation.bugs import BUGS
from simulation.runner_world import Broken
from simulation.scheduler_laws import LAWS
from simulation.scheduler_world import Cluster, Core

PROVES = os.environ.get("PROVE") == "simulation"
SEED_COUNT = 10_000 if PROVES else 1_000
BLOCK = 100
# Every seeded bug is found within so many.
BUG_SEED_COUNT = 1_000
FAULTS_S = 40.0
# Five crashes with the waits between them, an attempt that is made every 60 s, and what is lost for 5 s.
PEACE_S = 200.0
QUIET_S = 12.0


def live(seed: int, core: Core) -> Cluster:
    """Faults, then peace, then what was given up is mended: it settles each time, and then does nothing more."""
    cluster = Cluster(seed, core)
    cluster.run(cluster.now_s + FAULTS_S)
    cluster.faults = False
    settle(cluster)
    cluster.mend()
    settle(cluster)
    before = cluster.action_count
    cluster.run(cluster.now_s + QUIET_S)
    if cluster.action_count != before:
        raise Broken("it goes on doing things although all is well")
    return cluster


def settle(cluster: Cluster) -> None:
    deadline_s = cluster.now_s + PEACE_S
    cluster.run(cluster.now_s + 1.0)
    while not cluster.settled():
        if cluster.now_s >= deadline_s:
            raise Broken(f"not settled {PEACE_S:.0f} s after the last fault: {cluster.standings}")
        cluster.run(cluster.now_s + 1.0)
    # Answers of the last commands are still on their way, and files are looked at every 10 s.
    cluster.run(cluster.now_s + QUIET_S)


def law_broken(seed: int, core: Core) -> str:
    try:
        live(seed, core)
    except Broken as broken:
        return f"seed {seed}: {broken}"
    return ""


SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else range(SEED_COUNT)


@pytest.mark.parametrize("first", SEEDS[::BLOCK], ids=lambda first: f"seeds from {first}")
def test_every_law_holds_and_it_settles(first: int, evidence: dict[str, Any]) -> None:
    begun_s = time.monotonic()
    of_block = SEEDS[SEEDS.index(first) :][:BLOCK]
    broken = [found for seed in of_block if (found := law_broken(seed, Core()))]
    assert not broken, "\n".join(broken)
    evidence["laws"] = LAWS
    evidence["seeds_without_a_broken_law"] = evidence.get("seeds_without_a_broken_law", 0) + len(of_block)
    evidence["seconds"] = round(evidence.get("seconds", 0) + time.monotonic() - begun_s, 1)


@pytest.mark.parametrize(("name", "core"), BUGS.items(), ids=BUGS.keys())
def test_a_seeded_bug_is_caught(name: str, core: Core, evidence: dict[str, Any]) -> None:
    found = next((told for seed in range(BUG_SEED_COUNT) if (told := law_broken(seed, core))), None)
    assert found, f"{BUG_SEED_COUNT} seeds did not notice it"
    evidence.setdefault("bugs_found_at", {})[name] = found[:200]
