"""A host that can be dialled but cannot dial: the graph holds exactly the direction that works, and says so."""

import time

import pytest

from lab import verbs
from lab.network import Lab
from lab.nodes import Cluster
from lab.pairs import Pair, pair
from lab.seen import Holds, links
from thunderline.cluster.limits import DEFAULTS

SETTLED_S = 20.0
HELD_S = 3 * DEFAULTS.probe_period_s
HEALED_S = 10.0


def only_back(two: Pair) -> Holds:
    """Links from the second to the first, and none the other way."""
    return lambda topology: bool(links(topology, *two.ids[::-1])) and not links(topology, *two.ids)


# Who has the lower id calls first.
@pytest.mark.parametrize("mute_is_lower", [True, False], ids=["with the lower id", "with the higher id"])
def test_a_node_that_cannot_dial(net: Lab, cluster: Cluster, mute_is_lower: bool) -> None:
    nodes = sorted(pair(net, cluster).nodes, key=lambda node: node.node_id, reverse=not mute_is_lower)
    two = Pair(*nodes)
    net.cable(*two.hosts)
    rule = verbs.firewall(net, *two.hosts)
    cluster.start()
    holds = only_back(two)
    known_s = two.until("the one direction is known", lambda told: holds(told) and told.complete, SETTLED_S)
    time.sleep(HELD_S)
    for node in two.nodes:
        assert all(holds(look.topology) for look in node.watching.since(known_s))
        (link,) = links(node.topology(), *two.ids[::-1])
        assert link.chosen and "one direction only" in link.why, link.why
        assert node.alive() == set(two.ids)
    healed_s = time.monotonic()
    verbs.heal(net, rule)
    two.until("both directions are known", two.known(), HEALED_S, healed_s)


@pytest.mark.parametrize("scheduler_is_mute", [True, False], ids=["to a member", "to the scheduler node"])
def test_a_direction_that_is_lost_while_they_run(net: Lab, cluster: Cluster, scheduler_is_mute: bool) -> None:
    nodes = pair(net, cluster).nodes
    two = Pair(*(nodes if scheduler_is_mute else nodes[::-1]))
    net.cable(*two.hosts)
    cluster.start()
    two.until("both directions are known", two.known(), SETTLED_S)
    begun_s = time.monotonic()
    verbs.firewall(net, *two.hosts)
    two.until("one direction is left", only_back(two), SETTLED_S, begun_s)
    time.sleep(HELD_S)
    for node in two.nodes:
        assert only_back(two)(node.topology())
        assert node.alive() == set(two.ids)
