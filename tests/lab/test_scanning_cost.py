"""What it costs to look at a Mac: no heartbeat waits for a command, and at rest it takes under 1% of a core."""

import os
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from installation import until
from lab.doors import Door
from lab.macs import MACHINES, Mac, built
from lab.network import Lab
from lab.nodes import PORTS, Cluster, Node
from macos.standing_in import StandIns
from thunderline.cluster.limits import DEFAULTS
from thunderline.process.metrics import PORT_OFFSET

IS_PROOF = bool(os.environ.get("PROVE"))
SLOW_S = 4.0
# The first scan is under way; a proof sees the next ones too.
WATCHED_S = 150.0 if IS_PROOF else 15.0
GAP_MAX_S = 2 * DEFAULTS.heartbeat_s
LOOK_EVERY_S = 0.05
MET_S = 20.0
# Without a change all is looked at once in this time.
SCAN_PERIOD_S = 60.0
MEASURED_S = 3 * SCAN_PERIOD_S + 10 if IS_PROOF else 10.0
SHARE_MAX = 0.01
FIRST_SCAN_S = 60.0
# A change is seen, and scanned for, within this.
SCANNED_S = 15.0


def exchanged(door: Door) -> int:
    """Cards that a node's discovery has exchanged, whoever called."""
    lines = httpx.get(f"http://{door.target}/metrics", timeout=5, trust_env=False).text.splitlines()
    kinds = [f'thunderline_card_exchanges_total{{result="{one}"}}' for one in ("answered", "served")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(tuple(kinds))))


def gaps_s(door: Door, watched_s: float) -> list[float]:
    """Between two exchanges, at the least: from when one was seen until the next was still not there."""
    known, seen_s = exchanged(door), time.monotonic()
    end_s, last_s, found = seen_s + watched_s, seen_s, []
    while time.monotonic() < end_s:
        time.sleep(LOOK_EVERY_S)
        count = exchanged(door)
        if count > known:
            found.append(last_s - seen_s)
            known, seen_s = count, time.monotonic()
        last_s = time.monotonic()
    return [*found, last_s - seen_s]


@pytest.mark.timeout(400)
def test_no_heartbeat_is_late_while_commands_take_long(
    net: Lab, cluster: Cluster, tmp_path: Path, evidence: dict[str, Any]
) -> None:
    situation = built(net, cluster, "direct_cable", tmp_path)
    for mac in situation.macs.values():
        mac.stand_ins.take_s(SLOW_S)
    cluster.start()
    peer = situation.macs["birch"]
    door = Door(peer.node.host.namespace, PORTS["discovery"] + PORT_OFFSET)
    try:
        until("they have met", lambda: exchanged(door), MET_S)
        found_s = gaps_s(door, WATCHED_S)
    finally:
        door.close()
    assert len(found_s) > WATCHED_S / GAP_MAX_S
    for mac in situation.macs.values():
        assert "system_profiler SPThunderboltDataType -json" in mac.stand_ins.calls()
    evidence["each_command_takes_s"] = SLOW_S
    evidence["exchanges"] = len(found_s)
    evidence["between_two_exchanges_s_max"] = round(max(found_s), 2)
    assert max(found_s) < GAP_MAX_S, sorted(found_s)[-5:]


def used_s(node: Node) -> float:
    """By discovery, and by whatever it has started and seen the end of."""
    times = psutil.Process(node.processes["discovery"].pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def is_idle(mac: Mac) -> bool:
    """All has been looked at once, also what MLX can do."""
    (own,) = mac.node.roster().members
    running = psutil.Process(mac.node.processes["discovery"].pid).children(recursive=True)
    return mac.is_asked() and own.card.machine.mlx_told and not running


def more_used_s(mac: Mac, plain: Node, over_s: float) -> tuple[float, float]:
    """By both, for some time."""
    before_s = used_s(mac.node), used_s(plain)
    time.sleep(over_s)
    return used_s(mac.node) - before_s[0], used_s(plain) - before_s[1]


@pytest.mark.timeout(600)
def test_at_rest_scanning_costs_little(net: Lab, cluster: Cluster, tmp_path: Path, evidence: dict[str, Any]) -> None:
    hosts = net.host("alder"), net.host("birch")
    machine = MACHINES / "studio"
    mac = Mac(cluster.node(hosts[0]), StandIns(tmp_path / "commands"), (machine,))
    mac.show()
    mac.node.environment.update(mac.stand_ins.environment)
    plain = cluster.node(hosts[1])
    for node in (mac.node, plain):
        node.start("discovery")
    for node in (mac.node, plain):
        node.until_serving("discovery")
    until("the first scan has ended", lambda: is_idle(mac), FIRST_SCAN_S, 0.5)
    called = len(mac.stand_ins.calls())

    mac_s, plain_s = more_used_s(mac, plain, MEASURED_S)
    share = (mac_s - plain_s) / MEASURED_S
    scans = (len(mac.stand_ins.calls()) - called) / called
    if IS_PROOF:
        assert scans > 1, "too few commands were run to say anything"
    # An interface that is new on both: a scan at once on the one, and a new card on the other.
    called = len(mac.stand_ins.calls())
    net.lan(*hosts, interface="en0")
    mac_s, plain_s = more_used_s(mac, plain, SCANNED_S)
    assert len(mac.stand_ins.calls()) > called
    scan_s = max(0.0, mac_s - plain_s)
    evidence["measured_s"] = MEASURED_S
    evidence["scanning_share_of_a_core"] = round(share, 4)
    evidence["one_scan_cpu_s"] = round(scan_s, 3)
    assert share < SHARE_MAX
    # Where no scan has come to pass meanwhile.
    assert share + (0 if scans else scan_s / SCAN_PERIOD_S) < SHARE_MAX
