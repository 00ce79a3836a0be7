"""`thunderline topology` as a process: how it starts, is told to stop, and refuses to start."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from thunderline.client import TopologyClient
from thunderline.cluster.errors import ClusterError, Draining
from thunderline.topology.permits import STREAM_COUNT
from topology.little_network import HERE, LittleDiscovery, Node, living, nodes, pairs, roster, until

START_S = 40.0
STOP_S = 5.0
# Of one second that 20 probes take.
PROBES_UNDER_WAY_S = 0.3


def start(node: Node) -> "subprocess.Popen[bytes]":
    environ = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
    names = {"DISCOVERY_PORT": node.discovery, "TOPOLOGY_PORT": node.topology, "TOPOLOGY_ECHO_PORT": node.echo}
    environ |= {f"THUNDERLINE_{name}": str(port) for name, port in names.items()}
    program = Path(sys.executable).parent / "thunderline"
    with (node.home / "topology.err").open("ab") as errors:
        return subprocess.Popen([str(program), "topology", "--home", str(node.home)], env=environ, stderr=errors)


async def told(node: Node) -> None:
    """Waits until it answers."""
    async with asyncio.timeout(START_S), TopologyClient(f"{HERE}:{node.topology}") as client:
        while True:
            try:
                await client.topology()
                return
            except ClusterError:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
async def test_it_stops_at_once_also_while_its_streams_stand(tmp_path: Path, number: signal.Signals) -> None:
    one, other = nodes(tmp_path, 2)
    cards = roster(one.card(), other.card())
    async with living(other, cards) as life, LittleDiscovery(cards).served(one.discovery):
        process = start(one)
        try:
            both = {(one.node, other.node), (other.node, one.node)}
            await life.until("both directions", lambda told: pairs(told) == both)
            begun_s = time.monotonic()
            process.send_signal(number)
            assert await asyncio.to_thread(process.wait, 2 * STOP_S) == 0
            assert time.monotonic() - begun_s < STOP_S
        finally:
            process.kill()
            await asyncio.to_thread(process.wait, STOP_S)
    assert "Traceback" not in (one.home / "topology.err").read_text()


@pytest.mark.parametrize("sends", [False, True], ids=["probes", "streams"])
async def test_it_stops_at_once_also_while_it_measures(tmp_path: Path, sends: bool) -> None:
    one, other = nodes(tmp_path, 2)
    cards = roster(one.card(), other.card())
    async with living(other, cards) as life, LittleDiscovery(cards).served(one.discovery):
        process = start(one)
        try:
            both = {(one.node, other.node), (other.node, one.node)}
            await life.until("both directions", lambda told: pairs(told) == both)
            async with TopologyClient(f"{HERE}:{one.topology}") as client, asyncio.timeout(START_S):
                # Its own word: its peer may know of the link by itself.
                async for found in client.watch_topology():
                    if pairs(found) == both:
                        break
                (link,) = (link for link in found.links if link.from_node_id == one.node)
                asked = asyncio.create_task(client.measure_link(link, bandwidth=True))
                await asyncio.sleep(PROBES_UNDER_WAY_S)
                if sends:
                    await until("its streams send", lambda: life.role.echo.open_count >= STREAM_COUNT)
                begun_s = time.monotonic()
                process.terminate()
                with pytest.raises(Draining):
                    await asked
                assert await asyncio.to_thread(process.wait, 2 * STOP_S) == 0
            assert time.monotonic() - begun_s < STOP_S
        finally:
            process.kill()
            await asyncio.to_thread(process.wait, STOP_S)
    assert "Traceback" not in (one.home / "topology.err").read_text()


async def test_its_metrics_tell_of_links_and_probes(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    cards = roster(one.card(), other.card())
    async with living(other, cards) as life, LittleDiscovery(cards).served(one.discovery):
        process = start(one)
        try:
            both = {(one.node, other.node), (other.node, one.node)}
            await life.until("both directions", lambda told: pairs(told) == both)
            wanted = [
                rf'thunderline_link_rtt_seconds{{medium="LOOPBACK",peer="{other.node}"}} [0-9.e-]+',
                rf'thunderline_link_state{{medium="LOOPBACK",peer="{other.node}"}} 1.0',
                rf'thunderline_link_chosen{{medium="LOOPBACK",peer="{other.node}"}} 1.0',
                r'thunderline_probes_total{outcome="ANSWERED"} [1-9]',
                r"thunderline_report_streams 1.0",
            ]
            missing = wanted
            async with asyncio.timeout(START_S):
                while missing:
                    page = await asyncio.to_thread(page_of, f"http://{HERE}:{one.topology + 100}/metrics")
                    missing = [pattern for pattern in wanted if not re.search(pattern, page)]
                    await asyncio.sleep(0.1)
        finally:
            process.kill()
            await asyncio.to_thread(process.wait, STOP_S)


def page_of(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


async def test_a_taken_echo_port_is_one_line(tmp_path: Path) -> None:
    (one,) = nodes(tmp_path, 1)
    with socket.create_server((HERE, one.echo)):
        process = start(one)
        assert await asyncio.to_thread(process.wait, START_S) == 1
    lines = (one.home / "topology.err").read_text().splitlines()
    assert lines[-1] == f"thunderline topology: the echo cannot listen on {HERE}:{one.echo}: Address already in use"


async def test_a_killed_one_is_there_again_with_a_higher_count(tmp_path: Path) -> None:
    (one,) = nodes(tmp_path, 1)
    starts = []
    for _ in range(2):
        process = start(one)
        try:
            await told(one)
            async with TopologyClient(f"{HERE}:{one.topology}") as client:
                starts.append((await client.topology()).version.start)
        finally:
            process.kill()
            await asyncio.to_thread(process.wait, STOP_S)
    assert starts[1] == starts[0] + 1
