"""Connections between nodes move to the better link: two periods after the cable is UP none is left on the VPN."""

import time
from typing import Any

import pytest

from installation import until
from lab import connections, verbs
from lab.network import Lab
from lab.nodes import PORTS, ROLES, Cluster
from lab.seen import UP, Topology, state, takes
from thunderline.cluster.limits import DEFAULTS

SETTLED_S = 30.0
WITHIN_S = 2 * DEFAULTS.probe_period_s
HELD_S = 4.0
LOOK_EVERY_S = 0.1
# `up` starts the scheduler on the scheduler node only.
WHOLE = [role for role in PORTS if role != "scheduler"]


@pytest.mark.parametrize("started", [ROLES, ("up",)], ids=["discovery and topology", "whole nodes"])
def test_no_connection_is_left_on_the_vpn(
    net: Lab, cluster: Cluster, started: tuple[str, ...], evidence: dict[str, Any]
) -> None:
    hosts = [net.host(name) for name in "ab"]
    cable, vpn = net.cable(*hosts), net.tunnel(*hosts)
    # Nobody hears multicast over a VPN.
    one, other = cluster.node(hosts[0]), cluster.node(hosts[1], seeds=[hosts[0].address(vpn)])
    verbs.cut(net, cable)
    ways = ((one, other), (other, one))
    for node in (one, other):
        node.start(*started)
    for node in (one, other):
        node.until_serving(*(WHOLE if started == ("up",) else ROLES))
    for node in (one, other):
        on_vpn = takes((start.node_id, end.node_id, end.host.address(vpn)) for start, end in ways)
        node.watching.until("connections take the VPN", on_vpn, SETTLED_S)
    until("connections on the VPN", lambda: len(connections.over(vpn, hosts)) >= 2, SETTLED_S)

    def is_up(topology: Topology) -> bool:
        paths = [(start.node_id, end.node_id, end.host.address(cable)) for start, end in ways]
        return all(state(topology, *path) == UP for path in paths)

    verbs.heal(net, cable)
    up_s = max(node.watching.until("the cable is UP", is_up, SETTLED_S).at_s for node in (one, other))
    left: list[Any] = []
    while time.monotonic() < up_s + WITHIN_S:
        left = connections.over(vpn, hosts)
        if not left:
            break
        time.sleep(LOOK_EVERY_S)
    moved_s = time.monotonic()
    assert not (left := connections.over(vpn, hosts)), left
    while time.monotonic() < moved_s + HELD_S:
        assert not (left := connections.over(vpn, hosts)), left
        assert all(node.alive() == {one.node_id, other.node_id} for node in (one, other))
        time.sleep(LOOK_EVERY_S)
    assert connections.over(cable, hosts)
    key = "whole_nodes" if started == ("up",) else "two_roles"
    evidence[f"{key}_moved_after_s"] = round(max(0.0, moved_s - up_s), 2)
