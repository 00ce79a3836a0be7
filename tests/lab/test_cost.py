"""What probing costs: 15 peers with 2 addresses each, under 3% of a core for a node's topology."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from installation import until
from lab.network import Lab
from lab.nodes import Cluster, Node
from lab.seen import DEGRADED, UP
from thunderline.cluster.limits import DEFAULTS

NODES = 16 if os.environ.get("PROVE") else 4
SHARE_MAX = 0.03
MEASURED_S = 40.0 if os.environ.get("PROVE") else 10.0
SETTLED_S = 120.0
# Until what has begun among so many is told to all.
REST_S = 15.0 if os.environ.get("PROVE") else 0.0


def dialled(pid: int) -> int:
    """Connections that the process's host has opened since it is there."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/snmp").read_text().splitlines() if line.startswith("Tcp:")]
    return int(lines[1][lines[0].index("ActiveOpens")])


def used_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def has_links(node: Node, wanted: int) -> bool:
    try:
        topology = node.topology()
    except grpc.RpcError:
        # Sixteen nodes start on two cores.
        return False
    # Where all of them share two cores an echo may be late.
    found = [link for link in topology.links if link.from_node_id == node.node_id and link.state in (UP, DEGRADED)]
    return len(found) == wanted


@pytest.mark.timeout(600)
def test_probing_costs_little(net: Lab, cluster: Cluster, evidence: dict[str, Any]) -> None:
    hosts = [net.host(f"h{number}") for number in range(NODES)]
    net.lan(*hosts)
    net.lan(*hosts, subnet="10.0.1.0/24", interface="lan1")
    nodes = [cluster.node(host) for host in hosts]
    # Two at a time, and the next ones once they have found all: what all cost together at rest is not much less than
    # two cores, and whoever starts among peers that are late is late himself.
    for place in range(0, NODES, 2):
        for node in nodes[place : place + 2]:
            node.start()
        for node in nodes[place : place + 2]:
            node.until_serving()
        wanted = 2 * (len(nodes[: place + 2]) - 1)
        for node in nodes[place : place + 2]:
            until(f"{wanted} links of {node.host.name}", partial(has_links, node, wanted), SETTLED_S, 1)
    for node in nodes:
        until(f"{wanted} links of {node.host.name}", partial(has_links, node, wanted), SETTLED_S, 1)
    time.sleep(REST_S)
    pids = {role: [node.processes[role].pid for node in nodes] for role in ("topology", "discovery")}
    begun_s = time.monotonic()
    before = {role: [used_s(pid) for pid in found] for role, found in pids.items()}
    dialled_before = [dialled(pid) for pid in pids["topology"]]
    time.sleep(MEASURED_S)
    taken_s = time.monotonic() - begun_s
    shares = {
        role: [(used_s(pid) - first) / taken_s for pid, first in zip(found, before[role], strict=True)]
        for role, found in pids.items()
    }
    probed = [dialled(pid) - first for pid, first in zip(pids["topology"], dialled_before, strict=True)]
    # A connection to each address in each period, but for what comes late where 32 roles share two cores.
    assert min(probed) >= 0.85 * wanted * taken_s / DEFAULTS.probe_period_s, probed
    figures = {
        "peers": NODES - 1,
        "addresses_of_each": 2,
        "measured_s": round(taken_s, 1),
        "probes_per_s": round(sum(probed) / len(probed) / taken_s, 1),
        **{f"{role}_share_of_a_core_max": round(max(found), 4) for role, found in shares.items()},
        **{f"{role}_share_of_a_core_mean": round(sum(found) / NODES, 4) for role, found in shares.items()},
    }
    evidence.update(figures)
    assert max(shares["topology"]) < SHARE_MAX, figures
