"""Everything on both hosts is killed and started again: connections take the cable, not the VPN of the field report."""

import os
import random
import time
from typing import Any

import pytest

from lab import connections, verbs
from lab.network import Lab
from lab.nodes import ROLES, Cluster
from lab.pairs import Pair, pair
from lab.seen import Topology
from patience import PATIENCE
from thunderline.cluster.limits import DEFAULTS

ROUNDS = 20 if os.environ.get("PROVE") else 2
ROUNDS_WITHOUT_CABLE = 20 if os.environ.get("PROVE") else 1
WITHIN_S = 5.0 * PATIENCE
RETURNS_AFTER_S = 10.0
# The card tells the address again, and the next probe crosses.
BACK_WITHIN_S = 10.0 * PATIENCE
SETTLED_S = 20.0
# Whom they have known for so long they remember: no multicast crosses the VPN, and nobody has given them seeds.
KNOWN_S = 3.0
GAP_S = 0.5
# What it takes connections to follow the choice; and then nothing goes back.
MOVED_S = 2 * DEFAULTS.probe_period_s
HELD_S = 1.0


def crashed(two: Pair, cluster: Cluster, rng: random.Random, known_s: float = 0.0) -> float:
    """Every process of both nodes, while connections took the cable. The moment after which all is new."""
    cluster.start()
    two.until("connections take the cable", two.take(two.one.host.media["cable0"]), SETTLED_S)
    time.sleep(known_s)
    begun_s = time.monotonic()
    cluster.crash(rng)
    two.until("nobody tells anything", lambda topology: not topology.node_id, 5, begun_s)
    return time.monotonic()


def lost_cables(topology: Topology) -> list[str]:
    return [cable.sentence for cable in topology.cables if cable.lost]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_after_a_crash_connections_take_the_cable(
    net: Lab, cluster: Cluster, seed: int, evidence: dict[str, Any]
) -> None:
    rng = random.Random(seed)
    # In every fourth round whole nodes crash, not only those who find the paths.
    is_whole = seed % 4 == 0
    cluster.roles = ("up",) if is_whole else ROLES
    two = pair(net, cluster)
    cable, vpn = net.cable(*two.hosts), net.tunnel(*two.hosts)
    crashed_s = crashed(two, cluster, rng)
    serving_s = cluster.start_in_random_order(rng, GAP_S)
    taken_s = two.until("connections take the cable", two.take(cable), WITHIN_S + 1, crashed_s)
    after_s = max(0.0, taken_s - serving_s)
    assert after_s <= WITHIN_S
    time.sleep(MOVED_S)
    assert not connections.over(vpn, two.hosts)
    assert len(connections.over(cable, two.hosts)) >= 2 * len(ROLES)
    evidence["crashes_of_whole_nodes"] = evidence.get("crashes_of_whole_nodes", 0) + is_whole
    time.sleep(HELD_S)
    for media in two.taken(crashed_s):
        assert [one for one in media if one is not None] in ([cable], [vpn, cable])
    evidence["crashes"] = evidence.get("crashes", 0) + 1
    evidence["cable_taken_after_s_max"] = max(round(after_s, 2), evidence.get("cable_taken_after_s_max", 0.0))


@pytest.mark.parametrize("seed", range(ROUNDS_WITHOUT_CABLE))
def test_a_cable_that_was_cut_in_the_crash_is_missed_and_taken_when_it_is_back(
    net: Lab, cluster: Cluster, seed: int, evidence: dict[str, Any]
) -> None:
    rng = random.Random(seed)
    two = pair(net, cluster)
    cable, vpn = net.cable(*two.hosts), net.tunnel(*two.hosts)
    crashed_s = crashed(two, cluster, rng, KNOWN_S)
    verbs.cut(net, cable)
    returns_s = time.monotonic() + RETURNS_AFTER_S
    cluster.start_in_random_order(rng, GAP_S)
    two.until("connections take the VPN", two.take(vpn), SETTLED_S, crashed_s)
    two.until("the cable is missed", lambda topology: bool(lost_cables(topology)), SETTLED_S, crashed_s)
    (sentence,) = lost_cables(two.one.topology())
    assert "CABLE_LOST" in sentence and "VPN" in sentence, sentence
    said = two.one.run("links")
    assert "CABLE_LOST" in said.stdout, said.stdout + said.stderr
    # On a busy machine all this may have taken longer.
    time.sleep(max(0.0, returns_s - time.monotonic()))
    verbs.heal(net, cable)
    healed_s = time.monotonic()
    taken_s = two.until("connections take the cable", two.take(cable), BACK_WITHIN_S, healed_s)
    for media in two.taken(crashed_s):
        assert [one for one in media if one is not None] == [vpn, cable]
    two.until("no cable is missed", lambda topology: not lost_cables(topology), BACK_WITHIN_S, taken_s)
    evidence["crashes_without_cable"] = evidence.get("crashes_without_cable", 0) + 1
    back_s = round(taken_s - healed_s, 2)
    evidence["cable_taken_again_after_s_max"] = max(back_s, evidence.get("cable_taken_again_after_s_max", 0.0))
