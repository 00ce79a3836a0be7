"""Two hosts, one direct cable, nothing else: however they start, both know both directions within two periods."""

import os
import random
from typing import Any

import pytest

from lab.network import Lab
from lab.nodes import Cluster
from lab.seen import THUNDERBOLT, both_ways, links
from thunderline.cluster.limits import DEFAULTS

ROUNDS = 50 if os.environ.get("PROVE") else 5
WITHIN_S = 2 * DEFAULTS.probe_period_s
# Between the starts of two processes.
GAP_S = 1.0


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_both_directions_are_known_within_two_periods(
    net: Lab, cluster: Cluster, seed: int, evidence: dict[str, Any]
) -> None:
    rng = random.Random(seed)
    one, other = (cluster.node(net.host(name)) for name in "ab")
    net.cable(one.host, other.host)
    watching = [node.watching for node in (one, other)]
    serving_s = cluster.start_in_random_order(rng, GAP_S)
    holds = both_ways(one.node_id, other.node_id)
    looks = [each.until("both directions are known", holds, WITHIN_S + 1) for each in watching]
    after_s = max(0.0, max(look.at_s for look in looks) - serving_s)
    assert after_s <= WITHIN_S
    for look in looks:
        found = [*links(look.topology, one.node_id, other.node_id), *links(look.topology, other.node_id, one.node_id)]
        assert {link.medium for link in found} == {THUNDERBOLT}, found
    evidence["cold_starts"] = evidence.get("cold_starts", 0) + 1
    evidence["both_directions_after_s_max"] = max(round(after_s, 2), evidence.get("both_directions_after_s_max", 0.0))
