"""Everything on both hosts is killed and started again: connections take the cable, not the VPN of the field report."""

import os
import random
import time
from itertools import groupby
from typing import Any

import pytest

from lab import verbs
from lab.media import Cable, Tunnel
from lab.network import Lab
from lab.nodes import Cluster
from lab.seen import Holds, Topology, chosen, takes
from lab.watching import Watching

ROUNDS = 20 if os.environ.get("PROVE") else 2
ROUNDS_WITHOUT_CABLE = 20 if os.environ.get("PROVE") else 1
WITHIN_S = 5.0
RETURNS_AFTER_S = 10.0
# The card tells the address again, and the next probe crosses.
BACK_WITHIN_S = 10.0
SETTLED_S = 20.0
GAP_S = 0.5


class Scene:
    """A cable of 0.05 ms and a VPN of 50 ms between two nodes that know each other."""

    def __init__(self, net: Lab, cluster: Cluster) -> None:
        self.net, self.cluster = net, cluster
        self.one, self.other = (cluster.node(net.host(name)) for name in "ab")
        self.cable: Cable = net.cable(self.one.host, self.other.host)
        self.vpn: Tunnel = net.tunnel(self.one.host, self.other.host)
        self.watching: list[Watching] = [node.watching for node in (self.one, self.other)]
        cluster.start()
        self.until("connections take the cable", self.takes(self.cable), SETTLED_S)

    def takes(self, medium: Cable | Tunnel) -> Holds:
        one, other = self.one, self.other
        ends = ((one, other), (other, one))
        return takes((start.node_id, end.node_id, end.host.address(medium)) for start, end in ends)

    def until(self, what: str, holds: Holds, timeout_s: float, since_s: float = 0.0) -> float:
        """The moment from which on both nodes say so."""
        return max(each.until(what, holds, timeout_s, since_s).at_s for each in self.watching)

    def crash(self, rng: random.Random) -> float:
        self.cluster.crash(rng)
        crashed_s = time.monotonic()
        self.until("nobody tells anything", lambda topology: not topology.node_id, 5, crashed_s)
        return time.monotonic()

    def taken(self, watching: Watching, since_s: float) -> list[str]:
        """Which addresses connections from the first to the second node took, one after the other."""
        told = [one.topology for one in watching.since(since_s)]
        ways = [chosen(topology, self.one.node_id, self.other.node_id) for topology in told]
        return [address for address, _ in groupby(way for way in ways if way)]


def lost_cables(topology: Topology) -> list[str]:
    return [cable.sentence for cable in topology.cables if cable.lost]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_after_a_crash_connections_take_the_cable(
    net: Lab, cluster: Cluster, seed: int, evidence: dict[str, Any]
) -> None:
    rng = random.Random(seed)
    scene = Scene(net, cluster)
    crashed_s = scene.crash(rng)
    serving_s = cluster.start_in_random_order(rng, GAP_S)
    taken_s = scene.until("connections take the cable", scene.takes(scene.cable), WITHIN_S + 1, crashed_s)
    after_s = max(0.0, taken_s - serving_s)
    assert after_s <= WITHIN_S
    evidence["crashes"] = evidence.get("crashes", 0) + 1
    evidence["cable_taken_after_s_max"] = max(round(after_s, 2), evidence.get("cable_taken_after_s_max", 0.0))


@pytest.mark.parametrize("seed", range(ROUNDS_WITHOUT_CABLE))
def test_a_cable_that_was_cut_in_the_crash_is_missed_and_taken_when_it_is_back(
    net: Lab, cluster: Cluster, seed: int, evidence: dict[str, Any]
) -> None:
    rng = random.Random(seed)
    scene = Scene(net, cluster)
    crashed_s = scene.crash(rng)
    verbs.cut(net, scene.cable)
    returns_s = time.monotonic() + RETURNS_AFTER_S
    cluster.start_in_random_order(rng, GAP_S)
    scene.until("connections take the VPN", scene.takes(scene.vpn), SETTLED_S, crashed_s)
    scene.until("the cable is missed", lambda topology: bool(lost_cables(topology)), SETTLED_S, crashed_s)
    (sentence,) = lost_cables(scene.one.topology())
    assert "CABLE_LOST" in sentence and "VPN" in sentence, sentence
    said = scene.one.run("links")
    assert "CABLE_LOST" in said.stdout, said.stdout + said.stderr
    # It may have taken longer than that on a busy machine.
    time.sleep(max(0.0, returns_s - time.monotonic()))
    verbs.heal(net, scene.cable)
    healed_s = time.monotonic()
    taken_s = scene.until("connections take the cable", scene.takes(scene.cable), BACK_WITHIN_S, healed_s)
    ways = [scene.other.host.address(medium) for medium in (scene.vpn, scene.cable)]
    assert [scene.taken(each, crashed_s) for each in scene.watching] == [ways, ways]
    scene.until("no cable is missed", lambda topology: not lost_cables(topology), BACK_WITHIN_S, taken_s)
    evidence["crashes_without_cable"] = evidence.get("crashes_without_cable", 0) + 1
    back_s = round(taken_s - healed_s, 2)
    evidence["cable_taken_again_after_s_max"] = max(back_s, evidence.get("cable_taken_again_after_s_max", 0.0))
