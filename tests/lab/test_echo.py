"""The RTT that topology tells is the network's: within 0.3 ms of ping."""

from statistics import median
from typing import Any

import pytest

from installation import until
from lab import probes, verbs
from lab.network import Lab
from lab.nodes import Cluster
from lab.pairs import pair
from lab.seen import UP, link

SETTLED_S = 20.0
NEAR_S = 0.0003
PING_COUNT = 50


@pytest.mark.parametrize("one_way_s", [0.0, 0.001], ids=["as it is", "a millisecond each way"])
def test_an_rtt_is_that_of_ping(net: Lab, cluster: Cluster, one_way_s: float, evidence: dict[str, Any]) -> None:
    two = pair(net, cluster)
    one, other = two.nodes
    cable = net.cable(one.host, other.host)
    if one_way_s:
        verbs.delay(net, cable, one_way_s)
    cluster.start()
    two.until("the cable is UP", two.are(cable, UP), SETTLED_S)
    way = two.ways(cable)[0]
    seen: list[tuple[float, float]] = []

    def is_near() -> bool:
        pings = [probes.ping_s(one.host, other.host.address(cable)) for _ in range(PING_COUNT)]
        found = link(one.topology(), *way)
        assert found is not None
        seen.append((median(taken_s for taken_s in pings if taken_s), found.rtt_us / 1e6))
        return abs(seen[-1][0] - seen[-1][1]) <= NEAR_S

    # The first probes met imports: the median of the last five is told.
    until("within 0.3 ms of ping", is_near, SETTLED_S, 1)
    name = f"{one_way_s * 2000:g}_ms"
    evidence[f"ping_{name}_ms"], evidence[f"rtt_{name}_ms"] = (round(value * 1000, 3) for value in seen[-1])
