"""The scheduler's laws under faults, by seed; and that this simulation can fail.

`SEED=17 pytest tests/simulation -k law` lives one life again. `make prove simulation` lives ten thousand.
"""

import time
from functools import partial
from typing import Any

import pytest

from simulation.bugs import BUGS, CAUGHT_AT
from simulation.lives import BLOCK, BUG_SEED_COUNT, SEEDS, Lived, caught
from simulation.runner_world import Broken
from simulation.scheduler_laws import LAWS
from simulation.scheduler_world import Cluster, Core

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


@pytest.mark.parametrize("first", SEEDS[::BLOCK], ids=lambda first: f"seeds from {first}")
def test_every_law_holds_and_it_settles(first: int, lived: Lived, evidence: dict[str, Any]) -> None:
    begun_s = time.monotonic()
    of_block = SEEDS[SEEDS.index(first) :][:BLOCK]
    broken = lived(partial(law_broken, core=Core()), of_block)
    assert not broken, "\n".join(broken)
    evidence["laws"] = LAWS
    evidence["seeds_without_a_broken_law"] = evidence.get("seeds_without_a_broken_law", 0) + len(of_block)
    evidence["seconds"] = round(evidence.get("seconds", 0) + time.monotonic() - begun_s, 1)


@pytest.mark.parametrize(("name", "core"), BUGS.items(), ids=BUGS.keys())
def test_a_seeded_bug_is_caught(name: str, core: Core, evidence: dict[str, Any]) -> None:
    found = caught(partial(law_broken, core=core), CAUGHT_AT.get(name))
    assert found, f"{BUG_SEED_COUNT} seeds did not notice it"
    evidence.setdefault("bugs_found_at", {})[name] = found[:200]
