"""Connections between nodes move to the better link: two periods after the cable is UP none is left on the VPN."""

import time
from typing import Any

import pytest

from installation import until
from lab import connections, verbs
from lab.network import Lab
from lab.nodes import ROLES, Cluster
from lab.pairs import Pair
from lab.seen import UP
from patience import PATIENCE
from thunderline.cluster.limits import DEFAULTS

SETTLED_S = 30.0
WITHIN_S = 2 * DEFAULTS.probe_period_s * PATIENCE
HELD_S = 4.0
LOOK_EVERY_S = 0.1


@pytest.mark.parametrize("started", [ROLES, ("up",)], ids=["discovery and topology", "whole nodes"])
def test_no_connection_is_left_on_the_vpn(
    net: Lab, cluster: Cluster, started: tuple[str, ...], evidence: dict[str, Any]
) -> None:
    hosts = net.host("a"), net.host("b")
    cable, vpn = net.cable(*hosts), net.tunnel(*hosts)
    # Nobody hears multicast over a VPN.
    two = Pair(cluster.node(hosts[0]), cluster.node(hosts[1], seeds=[hosts[0].address(vpn)]))
    verbs.cut(net, cable)
    for node in two.nodes:
        node.start(*started)
    serving = ROLES if started == ROLES else (*ROLES, "runner")
    for node in two.nodes:
        node.until_serving(*serving)
    two.until("connections take the VPN", two.take(vpn), SETTLED_S)
    # Discovery and topology of both; and the scheduler to the other's runner.
    until("connections on the VPN", lambda: len(connections.over(vpn, hosts)) >= 2 * len(serving), SETTLED_S)

    begun_s = time.monotonic()
    verbs.heal(net, cable)
    up_s = two.until("the cable is UP", two.are(cable, UP), SETTLED_S, begun_s)
    while connections.over(vpn, hosts) and time.monotonic() < up_s + WITHIN_S:
        time.sleep(LOOK_EVERY_S)
    moved_s = time.monotonic()
    while time.monotonic() < moved_s + HELD_S:
        left = connections.over(vpn, hosts)
        assert not left
        assert all(node.alive() == set(two.ids) for node in two.nodes)
        time.sleep(LOOK_EVERY_S)
    assert len(connections.over(cable, hosts)) >= 2 * len(serving)
    key = "two_roles" if started == ROLES else "whole_nodes"
    evidence[f"{key}_moved_after_s"] = round(max(0.0, moved_s - up_s), 2)
