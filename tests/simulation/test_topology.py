"""The laws of topology under faults, by seed; that this simulation can fail; and what many nodes cost.

`SEED=17 pytest tests/simulation -k topology` lives one life again. `make prove simulation` lives ten thousand.
"""

import time
from functools import partial
from typing import Any

import pytest

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
from simulation.topology_bugs import BUGS, CAUGHT_AT
from simulation.topology_host import PERIOD_S, Broken, Core
from simulation.topology_laws import LAWS
from simulation.topology_peace import unsettled
from simulation.topology_world import World

FAULTS_S, LARGE_FAULTS_S = 12.0, 5.0
# Five fast answers in a row after one that was lost, and five periods until a mere RTT is told; twice that.
PEACE_S = 45.0
QUIET_S = 5.0


def live(seed: int, core: Core, host_count: int = 0) -> World:
    """Faults, then peace: it settles, and then nothing changes any more."""
    world = World(seed, core, host_count)
    world.run(world.now_s + (LARGE_FAULTS_S if host_count else FAULTS_S))
    world.make_peace()
    deadline_s = world.now_s + PEACE_S
    world.run(world.now_s + 6.0)
    while found := unsettled(world) or unrest(world):
        if world.now_s >= deadline_s:
            raise Broken(f"not settled {PEACE_S:.0f} s after the last fault: {found}")
        world.run(world.now_s + 2.0)
    return world


def unrest(world: World) -> str:
    """What changes for a while although all is well."""
    versions = [host.known.report.version for host in world.hosts]
    earlier = [{peer: len(row) for peer, row in host.choices.items()} for host in world.hosts]
    probes_before = world.probe_count
    world.run(world.now_s + QUIET_S)
    row_count = sum(len(host.rows) for host in world.hosts)
    least, most = row_count * int(QUIET_S / (PERIOD_S + world.tick_s)), row_count * (QUIET_S / PERIOD_S + 1)
    if not least <= world.probe_count - probes_before <= most:
        raise Broken(f"{world.probe_count - probes_before} probes of {row_count} addresses in {QUIET_S:.0f} s")
    is_near = any(net.near_limit for net in world.networks.nets)
    for host, before in zip(world.hosts, earlier, strict=True):
        for peer, row in host.choices.items():
            since = row[max(before.get(peer, 0) - 1, 0) :]
            if len(set(since)) < len(since):
                raise Broken(f"{host.node} goes back and forth between its links to {peer}: {since}")
            if len(since) > 1 and not is_near:
                return f"{host.node} chooses anew for {peer}: {since}"
    after = [host.known.report.version for host in world.hosts]
    return f"reports go on changing: {after}" if after != versions and not is_near else ""


def law_broken(seed: int, core: Core, host_count: int = 0) -> str:
    try:
        live(seed, core, host_count)
    except Broken as broken:
        return f"seed {seed}: {broken}"
    return ""


@pytest.mark.parametrize("first", NETWORK_SEEDS[::BLOCK], ids=lambda first: f"seeds from {first}")
def test_every_law_of_topology_holds_and_it_settles(first: int, lived: Lived, evidence: dict[str, Any]) -> None:
    begun_s = time.monotonic()
    of_block = NETWORK_SEEDS[NETWORK_SEEDS.index(first) :][:BLOCK]
    broken = lived(partial(law_broken, core=Core()), of_block)
    assert not broken, "\n".join(broken)
    evidence["topology_laws"] = LAWS
    done = evidence.get("topology_seeds_without_a_broken_law", 0) + len(of_block)
    evidence["topology_seeds_without_a_broken_law"] = done
    evidence["topology_seconds"] = round(evidence.get("topology_seconds", 0) + time.monotonic() - begun_s, 1)


@pytest.mark.timeout(LARGE_DEADLINE_S)
@pytest.mark.parametrize("first", LARGE_SEEDS[::LARGE_BLOCK], ids=lambda first: f"seeds from {first}")
def test_every_law_of_topology_holds_with_a_hundred_nodes(first: int, lived: Lived, evidence: dict[str, Any]) -> None:
    of_block = LARGE_SEEDS[first:][:LARGE_BLOCK]
    broken = lived(partial(law_broken, core=Core(), host_count=LARGE_HOSTS), of_block)
    assert not broken, "\n".join(broken)
    done = evidence.get("topology_worlds_of_100_nodes", 0) + len(of_block)
    evidence["topology_worlds_of_100_nodes"] = done


@pytest.mark.parametrize(("name", "core"), BUGS.items(), ids=BUGS.keys())
def test_a_seeded_bug_of_topology_is_caught(name: str, core: Core, evidence: dict[str, Any]) -> None:
    found = caught(partial(law_broken, core=core), CAUGHT_AT.get(name))
    assert found, f"{BUG_SEED_COUNT} seeds did not notice it"
    evidence.setdefault("topology_bugs_found_at", {})[name] = found[:200]


@pytest.mark.parametrize("host_count", [2, 8, 32, *([100] if PROVES else [])])
def test_reports_grow_with_the_number_of_nodes(host_count: int, evidence: dict[str, Any]) -> None:
    """In quiet nobody says anything; a change is told by each node to each other, and passed on by none."""
    world = World(0, Core(), host_count)
    world.make_peace()
    world.run(world.now_s + 16.0)
    messages, probes_before, seconds = world.streams.message_count, world.probe_count, 6.0
    world.run(world.now_s + seconds)
    quiet = (world.streams.message_count - messages) / seconds / host_count
    probed = (world.probe_count - probes_before) / seconds / host_count
    messages, told = world.streams.message_count, world.streams.report_count
    host = world.hosts[0]
    host.stop()
    world.run(world.now_s + 1.0)
    host.start(world.now_s)
    world.run(world.now_s + 10.0)
    per_node = (world.streams.message_count - messages) / host_count
    evidence[f"topology_messages_per_second_per_node_of_{host_count}"] = round(quiet, 2)
    evidence[f"topology_messages_per_node_of_{host_count}_after_a_restart"] = round(per_node, 1)
    evidence[f"topology_reports_per_node_of_{host_count}_after_a_restart"] = round(
        (world.streams.report_count - told) / host_count, 1
    )
    evidence[f"topology_probes_per_second_per_node_of_{host_count}"] = round(probed, 1)
    assert quiet == 0
    assert per_node <= 10 * (host_count - 1)
