"""The laws of discovery under faults, by seed; that this simulation can fail; and what many nodes cost.

`SEED=17 pytest tests/simulation -k discovery` lives one life again. `make prove simulation` lives ten thousand.
"""

import time
from functools import partial
from typing import Any

import pytest

from simulation.discovery_bugs import BUGS, CAUGHT_AT
from simulation.discovery_host import WAITS, Broken
from simulation.discovery_laws import LAWS, unsettled
from simulation.discovery_world import Core, Network
from simulation.lives import (
    BLOCK,
    BUG_SEED_COUNT,
    LARGE_BLOCK,
    LARGE_DEADLINE_S,
    LARGE_HOSTS,
    LARGE_SEEDS,
    NETWORK_SEEDS,
    PROVES,
    Lived,
    caught,
)
from thunderline.discovery.peers import STRANGER_AGAIN

FAULTS_S, LARGE_FAULTS_S = 25.0, 12.0
# What was lost is called again after 2 s, told again after 5, and a node that lost its count is believed after 4.
PEACE_S = 25.0
QUIET_S = 4.0


def live(seed: int, core: Core, host_count: int = 0) -> Network:
    """Faults, then peace: it settles, and then nothing changes any more."""
    network = Network(seed, core, host_count)
    network.run(network.now_s + (LARGE_FAULTS_S if host_count else FAULTS_S))
    network.make_peace()
    deadline_s = network.now_s + PEACE_S
    # Nobody is complete before.
    network.run(network.now_s + 5.5)
    while found := unsettled(network.facts, network.hosts, network.multicast):
        if network.now_s >= deadline_s:
            raise Broken(f"not settled {PEACE_S:.0f} s after the last fault: {found}")
        network.run(network.now_s + 1.0)
    if not network.multicast and len(set(network.facts.clusters.values())) > 1:
        # A seed of the other cluster is called each half minute, and hears of us then.
        network.run(network.now_s + STRANGER_AGAIN * WAITS.heartbeat_s + 1.0)
    before = {host.index: host.roster.version for host in network.hosts if host.up}
    network.run(network.now_s + QUIET_S)
    if changed := [host.index for host in network.hosts if host.up and host.roster.version != before[host.index]]:
        raise Broken(f"rosters of {changed} go on changing although all is well")
    return network


def law_broken(seed: int, core: Core, host_count: int = 0) -> str:
    try:
        live(seed, core, host_count)
    except Broken as broken:
        return f"seed {seed}: {broken}"
    return ""


@pytest.mark.parametrize("first", NETWORK_SEEDS[::BLOCK], ids=lambda first: f"seeds from {first}")
def test_every_law_of_discovery_holds_and_it_settles(first: int, lived: Lived, evidence: dict[str, Any]) -> None:
    begun_s = time.monotonic()
    of_block = NETWORK_SEEDS[NETWORK_SEEDS.index(first) :][:BLOCK]
    broken = lived(partial(law_broken, core=Core()), of_block)
    assert not broken, "\n".join(broken)
    evidence["discovery_laws"] = LAWS
    done = evidence.get("discovery_seeds_without_a_broken_law", 0) + len(of_block)
    evidence["discovery_seeds_without_a_broken_law"] = done
    evidence["discovery_seconds"] = round(evidence.get("discovery_seconds", 0) + time.monotonic() - begun_s, 1)


@pytest.mark.timeout(LARGE_DEADLINE_S)
@pytest.mark.parametrize("first", LARGE_SEEDS[::LARGE_BLOCK], ids=lambda first: f"seeds from {first}")
def test_every_law_of_discovery_holds_with_a_hundred_nodes(first: int, lived: Lived, evidence: dict[str, Any]) -> None:
    of_block = LARGE_SEEDS[first:][:LARGE_BLOCK]
    broken = lived(partial(law_broken, core=Core(), host_count=LARGE_HOSTS), of_block)
    assert not broken, "\n".join(broken)
    done = evidence.get("discovery_worlds_of_100_nodes", 0) + len(of_block)
    evidence["discovery_worlds_of_100_nodes"] = done


@pytest.mark.parametrize(("name", "core"), BUGS.items(), ids=BUGS.keys())
def test_a_seeded_bug_of_discovery_is_caught(name: str, core: Core, evidence: dict[str, Any]) -> None:
    found = caught(partial(law_broken, core=core), CAUGHT_AT.get(name))
    assert found, f"{BUG_SEED_COUNT} seeds did not notice it"
    evidence.setdefault("discovery_bugs_found_at", {})[name] = found[:200]


@pytest.mark.parametrize("host_count", [2, 8, 32, *([100] if PROVES else [])])
def test_messages_grow_with_the_number_of_nodes(host_count: int, evidence: dict[str, Any]) -> None:
    """One exchange a second serves each pair: so a node sends one message a second for each other."""
    network = Network(0, Core(), host_count)
    network.make_peace()
    network.run(network.now_s + 8.0)
    before, seconds = network.message_count, 4.0
    network.run(network.now_s + seconds)
    per_node = (network.message_count - before) / seconds / host_count
    evidence[f"discovery_messages_per_second_per_node_of_{host_count}"] = round(per_node, 1)
    assert per_node <= 1.1 * (host_count - 1)
