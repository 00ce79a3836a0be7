"""A cable that gets slow is DEGRADED, and another link is taken if one is better; nothing flaps."""

import itertools
import os
import time
from typing import Any

import pytest

from lab import probes, verbs
from lab.network import Lab
from lab.nodes import Cluster, Node
from lab.relay import Shape
from lab.seen import DEGRADED, UP, WIFI, Holds, Topology, chosen, link, state, takes
from lab.watching import Watching

SETTLED_S = 20.0
DEGRADED_WITHIN_S = 8.0
# Five good probes, a period each, and one more.
UP_WITHIN_S = 14.0
# Of its own node, which tells it at once; the other has it from there.
SLOW_ONE_WAY_S, WIFI_ONE_WAY_S = 0.020, 0.015
LIMIT_S = 0.005


def pair_of(net: Lab, cluster: Cluster) -> tuple[Node, Node]:
    one, other = (cluster.node(net.host(name)) for name in "ab")
    return one, other


def until_both(one: Node, other: Node, what: str, holds: Holds, timeout_s: float, since_s: float = 0.0) -> float:
    return max(node.watching.until(what, holds, timeout_s, since_s).at_s for node in (one, other))


def are(one: Node, other: Node, medium: Any, wanted: "Any") -> Holds:
    """Both directions over this medium are in that state."""
    ways = [(one.node_id, other.node_id, other.host.address(medium)), (other.node_id, one.node_id, one.host.address(medium))]
    return lambda topology: all(state(topology, *way) == wanted for way in ways)


def taking(one: Node, other: Node, medium: Any) -> Holds:
    return takes((start.node_id, end.node_id, end.host.address(medium)) for start, end in ((one, other), (other, one)))


def states(watching: Watching, way: tuple[str, str, str], since_s: float) -> list[int]:
    """One after the other, from that moment on."""
    told = [one.topology for one in watching.since(since_s) if one.topology.node_id]
    return [value for value, _ in itertools.groupby(state(topology, *way) for topology in told)]


def test_a_slow_cable_is_degraded_and_left_and_taken_again(
    net: Lab, cluster: Cluster, evidence: dict[str, Any]
) -> None:
    one, other = pair_of(net, cluster)
    cable, lan = net.cable(one.host, other.host), net.lan(one.host, other.host)
    wifi = net.lan(one.host, other.host, subnet="10.0.1.0/24", interface="wifi0")
    verbs.delay(net, wifi, WIFI_ONE_WAY_S)
    watching = [node.watching for node in (one, other)]
    cluster.start()
    until_both(one, other, "connections take the cable", taking(one, other, cable), SETTLED_S)
    begun_s = until_both(one, other, "the Wi-Fi is UP", are(one, other, wifi, UP), SETTLED_S)

    slowed_s = time.monotonic()
    verbs.delay(net, cable, SLOW_ONE_WAY_S)
    found_s = until_both(one, other, "DEGRADED", are(one, other, cable, DEGRADED), DEGRADED_WITHIN_S, slowed_s)
    left_s = until_both(one, other, "connections take the LAN", taking(one, other, lan), DEGRADED_WITHIN_S, slowed_s)
    why = next(each.why for each in one.topology().links if each.peer_address == other.host.address(cable))
    assert "DEGRADED" in why, why

    verbs.heal(net, cable)
    healed_s = time.monotonic()
    up_s = until_both(one, other, "UP again", are(one, other, cable, UP), UP_WITHIN_S, healed_s)
    back_s = until_both(one, other, "connections take the cable", taking(one, other, cable), UP_WITHIN_S, healed_s)

    for each, way in itertools.product(watching, ((one, other), (other, one))):
        start, end = way
        path = (start.node_id, end.node_id, end.host.address(wifi))
        assert states(each, path, begun_s) == [UP], "a Wi-Fi at a steady 30 ms"
        found = link(each.since(back_s)[-1].topology, *path)
        assert found is not None and found.medium == WIFI and 29_000 < found.rtt_us < 45_000, found
        ways = [way for way, _ in itertools.groupby(addresses(each, start, end, slowed_s))]
        assert ways == [end.host.address(medium) for medium in (cable, lan, cable)]
    evidence["degraded_after_s"] = round(found_s - slowed_s, 2)
    evidence["better_link_taken_after_s"] = round(left_s - slowed_s, 2)
    evidence["up_again_after_s"] = round(up_s - healed_s, 2)
    evidence["taken_again_after_s"] = round(back_s - healed_s, 2)


def addresses(watching: Watching, start: Node, end: Node, since_s: float) -> list[str]:
    """That connections took, from that moment on."""
    return [chosen(look.topology, start.node_id, end.node_id) for look in watching.since(since_s)]


def test_a_slow_cable_stays_better_than_a_vpn(net: Lab, cluster: Cluster) -> None:
    one, other = pair_of(net, cluster)
    cable, vpn = net.cable(one.host, other.host), net.tunnel(one.host, other.host)
    watching = [node.watching for node in (one, other)]
    cluster.start()
    until_both(one, other, "connections take the cable", taking(one, other, cable), SETTLED_S)
    until_both(one, other, "the VPN is UP", are(one, other, vpn, UP), SETTLED_S)
    slowed_s = time.monotonic()
    verbs.delay(net, cable, SLOW_ONE_WAY_S)
    until_both(one, other, "DEGRADED", are(one, other, cable, DEGRADED), DEGRADED_WITHIN_S, slowed_s)
    for each in watching:
        assert set(addresses(each, one, other, slowed_s)) == {other.host.address(cable)}


# One way, and more or less: the limit is 5 ms there and back, and 4 ms to be UP again.
JITTERS = [(0.0027, 0.0015), (0.0022, 0.0013)]
QUICK = {"THUNDERLINE_LIMITS_PROBE_PERIOD_S": "0.5", "THUNDERLINE_LIMITS_PROBE_TIMEOUT_S": "0.4"}
PROBE_COUNT = 30


@pytest.mark.parametrize(("delay_s", "jitter_s"), JITTERS if os.environ.get("PROVE") else JITTERS[:1])
def test_jitter_around_the_limit_flaps_nothing(
    net: Lab, new_cluster: Any, delay_s: float, jitter_s: float, evidence: dict[str, Any]
) -> None:
    settings = {} if os.environ.get("PROVE") else QUICK
    period_s = float(settings.get("THUNDERLINE_LIMITS_PROBE_PERIOD_S", 2))
    cluster = new_cluster(**settings)
    one, other = pair_of(net, cluster)
    cable, lan = net.cable(one.host, other.host), net.lan(one.host, other.host)
    watching = [node.watching for node in (one, other)]
    cluster.start()
    until_both(one, other, "connections take the cable", taking(one, other, cable), SETTLED_S)
    begun_s = time.monotonic()
    cable.become(Shape(delay_s=delay_s))
    verbs.jitter(net, cable, jitter_s)
    to = other.host.address(cable)
    bursts = [[probes.rtt_s(one.host, other.host, to) or 1.0 for _ in range(3)] for _ in range(40)]
    best = sorted(min(burst) for burst in bursts)
    assert best[0] < LIMIT_S < best[-1], "that is not around the limit"
    time.sleep(PROBE_COUNT * period_s)
    for each, (start, end) in itertools.product(watching, ((one, other), (other, one))):
        path = (start.node_id, end.node_id, end.host.address(cable))
        assert states(each, path, begun_s) in ([UP], [UP, DEGRADED])
        ways = [way for way, _ in itertools.groupby(addresses(each, start, end, begun_s))]
        assert ways in ([path[2]], [path[2], end.host.address(lan)])
    evidence[f"jitter_{delay_s * 2000:g}_ms_changes_max"] = max(
        len(states(each, (one.node_id, other.node_id, to), begun_s)) - 1 for each in watching
    )
