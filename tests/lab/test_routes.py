"""A cable's address that is really routed over a slow path is no cable, and `links` names the interface it takes."""

import time

from lab import verbs
from lab.media import Cable, Tunnel
from lab.network import Lab
from lab.nodes import Cluster
from lab.pairs import Pair, pair
from lab.seen import THUNDERBOLT, VPN, Holds, Link, Topology, link, links
from thunderline.v1 import topology_pb2

SETTLED_S = 20.0
ASYMMETRIC = topology_pb2.LINK_MARK_ASYMMETRIC_ROUTE


def joined(net: Lab, cluster: Cluster) -> tuple[Pair, Cable, Tunnel]:
    """Two nodes, and what is between them: the cable is a cable."""
    two = pair(net, cluster)
    cable, vpn = net.cable(*two.hosts), net.tunnel(*two.hosts)
    cluster.start()
    two.until("the cable is a cable", is_cable(two, cable), SETTLED_S)
    return two, cable, vpn


def over(topology: Topology, two: Pair, cable: Cable) -> list[Link]:
    """To its addresses."""
    found = [link(topology, *way) for way in two.ways(cable)]
    return [one for one in found if one is not None]


def is_cable(two: Pair, cable: Cable) -> Holds:
    good: list[tuple[int, list[int]]] = [(THUNDERBOLT, [])] * 2
    return lambda topology: [(one.medium, list(one.marks)) for one in over(topology, two, cable)] == good


def test_a_cables_subnet_over_the_vpn_is_no_cable(net: Lab, cluster: Cluster) -> None:
    two, cable, vpn = joined(net, cluster)
    one, other = two.hosts
    begun_s = time.monotonic()
    rules = [
        verbs.route(net, one, other, other.address(cable), vpn),
        verbs.route(net, other, one, one.address(cable), vpn),
    ]

    def is_detour(topology: Topology) -> bool:
        ends = [(each.medium, each.local_interface, each.peer_interface) for each in over(topology, two, cable)]
        return ends == [(VPN, "vpn0", "vpn0")] * 2

    two.until("the cable's addresses are of the VPN", is_detour, SETTLED_S, begun_s)
    for node in two.nodes:
        topology = node.topology()
        assert {each.medium for ids in (two.ids, two.ids[::-1]) for each in links(topology, *ids)} == {VPN}
    said = two.one.run("links")
    lines = [line for line in said.stdout.splitlines() if other.address(cable) in line]
    assert lines, said.stdout + said.stderr
    assert all("vpn0" in line and "THUNDERBOLT" not in line for line in lines), said.stdout

    healed_s = time.monotonic()
    for rule in rules:
        verbs.heal(net, rule)
    two.until("the cable is a cable", is_cable(two, cable), SETTLED_S, healed_s)


def test_a_route_that_differs_there_and_back_is_marked_with_both_interfaces(net: Lab, cluster: Cluster) -> None:
    two, cable, vpn = joined(net, cluster)
    one, other = two.hosts
    begun_s = time.monotonic()
    verbs.route(net, one, other, other.address(cable), vpn, one_way=True)
    way = two.ways(cable)[0]

    def is_marked(topology: Topology) -> bool:
        found = link(topology, *way)
        return found is not None and ASYMMETRIC in found.marks

    two.until("ASYMMETRIC_ROUTE", is_marked, SETTLED_S, begun_s)
    for node in two.nodes:
        found = link(node.topology(), *way)
        assert found is not None and found.medium == VPN and found.path.leaves.interface == "vpn0", found
        assert "cable0" in found.why and "vpn0" in found.why, found.why
    said = two.one.run("links")
    assert "ASYMMETRIC_ROUTE" in said.stdout, said.stdout + said.stderr
