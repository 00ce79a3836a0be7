"""A cable's address that is really routed over a slow path is no cable, and `links` names the interface it takes."""

import time

from lab import verbs
from lab.media import Cable, Tunnel
from lab.network import Lab
from lab.nodes import Cluster, Node
from lab.seen import THUNDERBOLT, VPN, Link, Topology, link, links
from thunderline.v1 import topology_pb2

SETTLED_S = 20.0
ASYMMETRIC = topology_pb2.LINK_MARK_ASYMMETRIC_ROUTE


def two_nodes(net: Lab, cluster: Cluster) -> tuple[Node, Node, Cable, Tunnel]:
    """Whose connections take the cable."""
    one, other = (cluster.node(net.host(name)) for name in "ab")
    cable, vpn = net.cable(one.host, other.host), net.tunnel(one.host, other.host)
    cluster.start()
    for node in (one, other):
        node.watching.until("the cable is a cable", lambda topology: is_cable(topology, one, other, cable), SETTLED_S)
    return one, other, cable, vpn


def over_cable(topology: Topology, one: Node, other: Node, cable: Cable) -> list[Link]:
    """Both directions."""
    ends = ((one, other), (other, one))
    found = [link(topology, start.node_id, end.node_id, end.host.address(cable)) for start, end in ends]
    return [each for each in found if each is not None]


def is_cable(topology: Topology, one: Node, other: Node, cable: Cable) -> bool:
    found = over_cable(topology, one, other, cable)
    return len(found) == 2 and all(each.medium == THUNDERBOLT and not each.marks for each in found)


def lines_about(node: Node, address: str) -> list[str]:
    """What `thunderline links` prints of an address."""
    said = node.run("links")
    assert said.returncode == 0, said.stderr
    return [line for line in said.stdout.splitlines() if address in line]


def test_a_cables_subnet_over_the_vpn_is_no_cable(net: Lab, cluster: Cluster) -> None:
    one, other, cable, vpn = two_nodes(net, cluster)
    begun_s = time.monotonic()
    ways = ((one, other), (other, one))
    rules = [verbs.route(net, start.host, end.host, end.host.address(cable), vpn) for start, end in ways]

    def is_detour(topology: Topology) -> bool:
        found = over_cable(topology, one, other, cable)
        ends = [(each.medium, each.local_interface, each.peer_interface) for each in found]
        return ends == [(VPN, "vpn0", "vpn0")] * 2

    for node in (one, other):
        node.watching.until("the cable's addresses are of the VPN", is_detour, SETTLED_S, begun_s)
        for start, end in ways:
            media = {each.medium for each in links(node.topology(), start.node_id, end.node_id)}
            assert media == {VPN}
    lines = lines_about(one, other.host.address(cable))
    assert any("vpn0" in line and "THUNDERBOLT" not in line for line in lines), lines

    healed_s = time.monotonic()
    for rule in rules:
        verbs.heal(net, rule)
    for node in (one, other):
        node.watching.until(
            "the cable is a cable", lambda topology: is_cable(topology, one, other, cable), SETTLED_S, healed_s
        )


def test_a_route_that_differs_there_and_back_is_marked_with_both_interfaces(net: Lab, cluster: Cluster) -> None:
    one, other, cable, vpn = two_nodes(net, cluster)
    begun_s = time.monotonic()
    verbs.route(net, one.host, other.host, other.host.address(cable), vpn, one_way=True)
    way = (one.node_id, other.node_id, other.host.address(cable))

    def is_marked(topology: Topology) -> bool:
        found = link(topology, *way)
        return found is not None and ASYMMETRIC in found.marks

    for node in (one, other):
        look = node.watching.until("ASYMMETRIC_ROUTE", is_marked, SETTLED_S, begun_s)
        found = link(look.topology, *way)
        assert found is not None and found.medium == VPN
        assert "cable0" in found.why and "vpn0" in found.why, found.why
        assert found.path.leaves.interface == "vpn0"
