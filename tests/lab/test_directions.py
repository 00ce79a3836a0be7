"""A host that can be dialled but cannot dial: the graph holds exactly the direction that works, and says so."""

import time

import pytest

from lab import verbs
from lab.network import Lab
from lab.nodes import Cluster
from lab.seen import Topology, both_ways, links
from thunderline.cluster.limits import DEFAULTS

SETTLED_S = 20.0
HELD_S = 3 * DEFAULTS.probe_period_s
HEALED_S = 10.0


# Who has the lower id calls first.
@pytest.mark.parametrize("mute_is_first", [True, False], ids=["the one with the lower id", "the one with the higher id"])
def test_a_node_that_cannot_dial(net: Lab, cluster: Cluster, mute_is_first: bool) -> None:
    nodes = sorted((cluster.node(net.host(name)) for name in "ab"), key=lambda node: node.node_id)
    mute, other = nodes if mute_is_first else nodes[::-1]
    net.cable(mute.host, other.host)
    rule = verbs.firewall(net, mute.host, other.host)
    watching = [node.watching for node in (mute, other)]
    cluster.start()

    def only_one_way(topology: Topology) -> bool:
        there = links(topology, other.node_id, mute.node_id)
        return bool(there) and not links(topology, mute.node_id, other.node_id) and topology.complete

    known_s = max(each.until("the direction that works is known", only_one_way, SETTLED_S).at_s for each in watching)
    time.sleep(HELD_S)
    for each in watching:
        assert all(only_one_way(look.topology) for look in each.since(known_s))
    for node in (mute, other):
        (link,) = links(node.topology(), other.node_id, mute.node_id)
        assert link.chosen and "one direction only" in link.why, link.why
        assert node.alive() == {mute.node_id, other.node_id}

    verbs.heal(net, rule)
    for each in watching:
        each.until("both directions are known", both_ways(mute.node_id, other.node_id), HEALED_S)


def test_a_direction_that_is_lost_while_they_run(net: Lab, cluster: Cluster) -> None:
    mute, other = (cluster.node(net.host(name)) for name in "ab")
    net.cable(mute.host, other.host)
    cluster.start()
    for node in (mute, other):
        node.watching.until("both directions are known", both_ways(mute.node_id, other.node_id), SETTLED_S)
    begun_s = time.monotonic()
    verbs.firewall(net, mute.host, other.host)
    for node in (mute, other):

        def only_one_way(topology: Topology) -> bool:
            there = links(topology, other.node_id, mute.node_id)
            return bool(there) and not links(topology, mute.node_id, other.node_id)

        node.watching.until("the direction that works is known", only_one_way, SETTLED_S, begun_s)
        assert node.alive() == {mute.node_id, other.node_id}
