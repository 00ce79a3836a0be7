"""Two hosts, one direct cable, nothing else: however they start, both know both directions within two periods."""

import os
import random
import time
from typing import Any

import pytest

from lab.network import Lab
from lab.nodes import Cluster
from lab.pairs import pair
from lab.seen import THUNDERBOLT, UP, links
from patience import PATIENCE
from thunderline.cluster.limits import DEFAULTS

ROUNDS = 50 if os.environ.get("PROVE") else 5
WITHIN_S = 2 * DEFAULTS.probe_period_s * PATIENCE
# Between the starts of two processes, at most.
GAP_S = 1.0
HELD_S = 1.0


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_both_directions_are_known_within_two_periods(
    net: Lab, cluster: Cluster, seed: int, evidence: dict[str, Any]
) -> None:
    two = pair(net, cluster)
    cable = net.cable(*two.hosts)
    serving_s = cluster.start_in_random_order(random.Random(seed), GAP_S)
    # A node's own word on a try of before the other was there may still follow what the other has heard since.
    known_s = two.until("both directions are known", two.are(cable, UP), WITHIN_S + 1)
    after_s = max(0.0, known_s - serving_s)
    assert after_s <= WITHIN_S
    time.sleep(HELD_S)
    for node in two.nodes:
        topology = node.topology()
        for ids in (two.ids, two.ids[::-1]):
            assert [one.medium for one in links(topology, *ids)] == [THUNDERBOLT], topology
    evidence["cold_starts"] = evidence.get("cold_starts", 0) + 1
    evidence["both_directions_after_s_max"] = max(round(after_s, 2), evidence.get("both_directions_after_s_max", 0.0))
