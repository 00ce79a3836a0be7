"""How nodes find each other: by multicast alone, by seeds alone, over an interface that comes later."""

import time
from collections.abc import Callable, Sequence, Set
from functools import partial

import pytest

from installation import until
from lab import probes, verbs
from lab.network import Lab
from lab.nodes import Cluster, Node
from lab.pairs import pair
from lab.seen import UP
from thunderline.cluster.limits import DEFAULTS

FOUND_S = 15.0
# Long enough to hear and to call whoever is there, several times over.
HELD_S = 2 * DEFAULTS.dead_s


def knows(node: Node, wanted: Set[str]) -> bool:
    return node.alive() == wanted


def until_all_know_each_other(nodes: Sequence[Node], timeout_s: float = FOUND_S) -> None:
    wanted = {node.node_id for node in nodes}
    for node in nodes:
        until(f"{node.host.name} knows all of its cluster", partial(knows, node, wanted), timeout_s)


def test_multicast_alone(net: Lab, cluster: Cluster) -> None:
    hosts = [net.host(name) for name in "abc"]
    net.lan(*hosts)
    nodes = [cluster.node(host) for host in hosts]
    cluster.start()
    until_all_know_each_other(nodes)


@pytest.mark.parametrize("mdns", [True, False], ids=["that is not carried", "that is switched off"])
def test_one_seed_is_enough_without_multicast(net: Lab, cluster: Cluster, mdns: bool) -> None:
    hosts = [net.host(name) for name in "abc"]
    lan = net.lan(*hosts)
    if mdns:
        verbs.hush(net, lan)
    seed = hosts[0].address(lan)
    nodes = [cluster.node(host, seeds=[] if host is hosts[0] else [seed], mdns=mdns) for host in hosts]
    cluster.start()
    until_all_know_each_other(nodes)


def test_an_interface_that_comes_later(net: Lab, cluster: Cluster) -> None:
    two = pair(net, cluster)
    hosts = two.hosts
    cluster.start()
    assert [node.alive() for node in two.nodes] == [{one} for one in two.ids]
    cable = net.cable(*hosts)
    until_all_know_each_other(two.nodes)
    two.until("connections take the cable", two.take(cable), FOUND_S)
    # Another one, while they talk; and the first goes.
    begun_s = time.monotonic()
    lan = net.lan(*hosts)
    two.until("the LAN is UP", two.are(lan, UP), FOUND_S, begun_s)
    verbs.cut(net, cable)
    two.until("connections take the LAN", two.take(lan), FOUND_S, begun_s)
    assert [node.alive() for node in two.nodes] == [set(two.ids)] * 2


@pytest.mark.parametrize("second", ["office", "home"], ids=["of another name", "of the same name"])
def test_two_clusters_on_one_lan_never_mix(net: Lab, new_cluster: Callable[..., Cluster], second: str) -> None:
    hosts = [net.host(name) for name in ("a", "b", "c", "d")]
    lan = net.lan(*hosts)
    # Somebody has mistaken an address of the other cluster for one of this.
    first, other = new_cluster("home"), new_cluster(second)
    ours = [first.node(hosts[0], seeds=[hosts[2].address(lan)]), first.node(hosts[1])]
    theirs = [other.node(hosts[2], seeds=[hosts[1].address(lan)]), other.node(hosts[3])]
    first.start()
    other.start()
    until_all_know_each_other(ours)
    until_all_know_each_other(theirs)
    assert probes.hears_group(hosts[0], hosts[2], hosts[2].address(lan), hosts[0].address(lan))
    end_s = time.monotonic() + HELD_S
    while time.monotonic() < end_s:
        for cluster_nodes in (ours, theirs):
            own = {node.node_id for node in cluster_nodes}
            for node in cluster_nodes:
                assert {one.card.node_id for one in node.roster().members} == own
                found = node.topology()
                assert {one.from_node_id for one in found.links} | {one.to_node_id for one in found.links} <= own
                assert {one.to_node_id for one in found.attempts} <= own
        time.sleep(0.5)
    if second != "home":
        foreign = {node.node_id for node in theirs}
        until("they are shown as strangers", lambda: shown(ours[0]) == {(one, second) for one in foreign}, FOUND_S)


def shown(node: Node) -> set[tuple[str, str]]:
    return {(one.node_id, one.cluster_name) for one in node.roster().strangers}
