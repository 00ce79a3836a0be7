"""`thunderline doctor` of Macs: by their cards, and of this one by its own commands where its card does not tell."""

import asyncio
import errno
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.findings.rigs import FACTS, port
from cli.little_node import LittleNode
from macos.recording import file_name
from macos.standing_in import StandIns
from thunderline.cli import dialling, scanning
from thunderline.cli.app import app
from thunderline.cli.findings.privacy import Router
from thunderline.cluster.machine_facts import MachineFacts, RdmaState
from thunderline.rpc.machine_facts import to_proto
from thunderline.v1 import cluster_pb2, discovery_pb2, topology_pb2

MINI = Path(__file__).parents[1] / "macos/machines/mini"
DARWIN = '[node]\nplatform = "darwin"\n'
SLEEPY = replace(FACTS, sleep_after_min=10)
SLEEPS = "it goes to sleep after 10 min"
UNSEEN = "no card tells of disks, memory, files, ports, logs and Local Network privacy"


@pytest.fixture
def node(tmp_path: Path) -> LittleNode:
    return LittleNode(tmp_path / "home", DARWIN)


@pytest.fixture
def stand_ins(tmp_path: Path) -> StandIns:
    """Of a mini at rest."""
    mlx = tmp_path / "mlx"
    mlx.mkdir()
    (mlx / f"{file_name(['thunderline', 'rank', '--probe'])}.txt").write_text('{"backends": ["ring", "jaccl"]}\n')
    made = StandIns(tmp_path / "bin")
    made.show(MINI, mlx)
    return made


def tells(member: discovery_pb2.Member, facts: MachineFacts, system: str = "darwin 25.2.0") -> None:
    """From now on its card does."""
    member.card.operating_system = system
    member.card.memory_bytes = 64 * 2**30
    member.card.machine.CopyFrom(to_proto(facts))
    del member.card.interfaces[:]
    member.card.interfaces.add(name="en3", is_up=True, addresses=["169.254.7.1"])


async def run(node: LittleNode, *flags: str, env: Mapping[str, str] | None = None) -> Any:
    words = ["doctor", "--home", str(node.home), *flags]
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, words, env=env))


async def troubles(node: LittleNode, *flags: str, env: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Without notes, and without those of the machine on which this test runs."""
    result = await run(node, *flags, "--json", env=env)
    assert result.exit_code in (0, 1), result.output
    found = json.loads(result.stdout)["findings"]
    return [one for one in found if one["severity"] != "note" and one["seen"]]


def named(found: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(one["node"], one["what"]) for one in found if not one["seen"].startswith("`df ")]


async def test_a_mac_is_told_of_by_its_own_card(node: LittleNode) -> None:
    tells(node.roster.members[0], replace(SLEEPY, is_filevault_on=True))
    async with node.running():
        found = await troubles(node)
    assert named(found) == [("", SLEEPS), ("", "FileVault is on: after a restart it waits for a person")]
    one = next(one for one in found if one["what"] == SLEEPS)
    assert one["seen"] == "`pmset -g`: sleep 10"
    assert "`sudo pmset -a sleep 0`" in one["remedy"]
    assert one["unknown"] == "whether something keeps it awake now"


async def test_elsewhere_than_on_a_mac_nothing_of_a_mac_is_said(tmp_path: Path) -> None:
    node = LittleNode(tmp_path / "home", '[node]\nplatform = "linux"\n')
    tells(node.roster.members[0], SLEEPY, "linux 6.1")
    tells(node.add("bob"), SLEEPY)
    async with node.running():
        assert named(await troubles(node)) == []


async def test_the_cable_to_another_mac_is_told_with_its_name(node: LittleNode) -> None:
    tells(node.roster.members[0], replace(FACTS, ports=(port("uuid-a", "uuid-b"), *FACTS.ports)))
    bob = node.add("bob")
    off = replace(SLEEPY, ports=(port("uuid-b", "uuid-a"), *FACTS.ports), rdma=RdmaState.DISABLED, os_build="25D50")
    tells(bob, off)
    async with node.running():
        found = named(await troubles(node))
        everybody = named(await troubles(node, "--all"))
    # What is wrong with bob alone is said where all are asked for.
    assert ("", "RDMA is enabled on this node, and not on bob at the other end of a cable") in found
    assert ("", "different builds of macOS where RDMA may join this node and bob") in found
    assert not [one for one in found if "sleep" in one[1]]
    assert ("bob", SLEEPS) in everybody
    assert ("bob", "RDMA is disabled") in everybody
    assert ("", "RDMA is enabled on ada, and not on bob at the other end of a cable") in everybody
    assert ("", "different builds of macOS where RDMA may join ada and bob") in everybody


async def test_all_says_once_what_no_card_tells_and_names_each_node(node: LittleNode) -> None:
    tells(node.roster.members[0], SLEEPY)
    tells(node.add("bob"), SLEEPY)
    node.add("cleo").card.operating_system = "darwin 25.2.0"
    tells(node.add("dora", discovery_pb2.MEMBER_STATE_DEAD), SLEEPY)
    async with node.running():
        result = await run(node, "--all")
        alone = await run(node)
    lines = result.stdout.splitlines()
    assert f"  ada: {SLEEPS}" in lines
    assert f"  bob: {SLEEPS}" in lines
    # Its card is as old as its last heartbeat.
    assert not [line for line in lines if "dora" in line and "sleep" in line]
    assert any(line.startswith("  cleo: its hardware is not known") for line in lines)
    assert [line for line in lines if UNSEEN in line] == [
        f"  {UNSEEN}: `thunderline doctor` on bob and cleo looks at those"
    ]
    assert "roles that answer: discovery" in result.stdout
    assert f"  {SLEEPS}" in alone.stdout.splitlines()
    assert UNSEEN not in alone.stdout


async def test_links_between_others_are_told_with_all(node: LittleNode) -> None:
    bob, cleo = node.add("bob"), node.add("cleo")
    ids = [one.card.node_id for one in (node.roster.members[0], bob, cleo)]
    for one, other in [(a, b) for a in ids for b in ids if a != b]:
        is_vpn = ids[0] not in (one, other)
        node.topology.links.add(
            from_node_id=one,
            to_node_id=other,
            peer_address="100.64.0.2" if is_vpn else "10.0.0.2",
            medium=cluster_pb2.MEDIUM_VPN if is_vpn else cluster_pb2.MEDIUM_ETHERNET,
            state=topology_pb2.LINK_STATE_UP,
            rtt_us=9_000,
        )
    tells(node.roster.members[0], FACTS)
    async with node.running():
        assert ("bob", "only a VPN joins bob and cleo") in named(await troubles(node, "--all"))
        assert not [what for _, what in named(await troubles(node)) if "VPN" in what]


async def test_without_discovery_this_mac_is_scanned(node: LittleNode, stand_ins: StandIns) -> None:
    sleeps = stand_ins.folder.parent / "sleeps"
    sleeps.mkdir()
    (sleeps / "pmset_-g.txt").write_text("System-wide power settings:\nCurrently in use:\n sleep                10\n")
    stand_ins.show(MINI, stand_ins.folder.parent / "mlx", sleeps)
    found = named(await troubles(node, env=stand_ins.environment))
    assert found == [("", SLEEPS)]
    # It asked, and changed nothing.
    asked = {call.split(" ")[0] for call in stand_ins.calls()}
    assert {"system_profiler", "pmset", "rdma_ctl"} <= asked
    words = " ".join(stand_ins.calls())
    assert not [word for word in ("sudo", "-set", "enable ", "deletem", "alias", "autorestart") if word in words]


async def test_a_card_that_tells_nothing_yet_is_made_up_for_by_a_scan(node: LittleNode, stand_ins: StandIns) -> None:
    node.roster.members[0].card.operating_system = "darwin 25.2.0"
    async with node.running():
        result = await run(node, "--json", env=stand_ins.environment)
    whats = [one["what"] for one in json.loads(result.stdout)["findings"]]
    assert "RDMA is enabled" in whats
    assert "system_profiler SPThunderboltDataType -json" in stand_ins.calls()


async def test_a_command_that_hangs_is_waited_for_in_sight_and_costs_itself_only(
    node: LittleNode, stand_ins: StandIns
) -> None:
    hangs = stand_ins.folder.parent / "hangs"
    hangs.mkdir()
    (hangs / "ibv_devinfo.hangs").touch()
    stand_ins.show(MINI, stand_ins.folder.parent / "mlx", hangs)
    begun_s = time.monotonic()
    result = await run(node, "--json", env=stand_ins.environment)
    assert time.monotonic() - begun_s < 30
    assert "looking at the hardware" in result.stderr
    found = [one for one in json.loads(result.stdout)["findings"] if "ibv_devinfo" in one["what"]]
    assert [(one["severity"], one["seen"]) for one in found] == [("warning", "`ibv_devinfo`: took longer than 5 s")]
    assert found[0]["unknown"] == "which RDMA ports are active"


def route_says(folder: Path, text: str) -> dict[str, str]:
    """A PATH on which `route` prints that."""
    folder.mkdir()
    script = folder / "route"
    script.write_text(f"#!/bin/sh\ncat <<END\n{text}\nEND\n")
    script.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


ROUTERS = {
    "one that is there": ("   route to: default\n    gateway: 127.0.0.1\n  interface: en0", Router("127.0.0.1", True)),
    "a network without one": ("   route to: default\n  interface: en5", Router()),
    "nonsense": ("route: writing to routing socket: not in table", Router()),
}


@pytest.mark.parametrize(("text", "expected"), ROUTERS.values(), ids=ROUTERS.keys())
async def test_a_router_answers_by_taking_or_refusing_a_connection(tmp_path: Path, text: str, expected: Router) -> None:
    assert await scanning.router(route_says(tmp_path / "bin", text)) == expected


async def test_without_the_command_no_router_is_known(tmp_path: Path) -> None:
    assert await scanning.router({"PATH": str(tmp_path)}) == Router()


async def test_how_a_connection_ends_is_told_by_its_errno() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        taken = await scanning.dials([("bob", "127.0.0.1"), ("cleo", "127.0.0.1")], {"bob": number})
    assert taken["127.0.0.1"].is_answered and taken["127.0.0.1"].errno == 0
    refused = await dialling.dialled("127.0.0.1", number)
    assert refused.errno == errno.ECONNREFUSED and refused.is_answered and not refused.is_kept_away
    assert refused.took_s < 1
