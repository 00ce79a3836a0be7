"""`thunderline doctor` against roles that answer, do not, or are something else: what it says, and its exit code."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.little_node import LittleNode
from rpc.little_cluster import YEAR_S, LittleCluster
from thunderline.cli import dialling, examining
from thunderline.cli.app import app
from thunderline.cli.findings.roles import Answer
from thunderline.cluster.callers import Caller
from thunderline.process.settings import read
from thunderline.process.trust import Wallet, keep
from thunderline.v1 import cluster_pb2, discovery_pb2, topology_pb2

ALL = ("discovery", "topology", "scheduler", "runner", "gateway")


@pytest.fixture
def node(tmp_path: Path) -> LittleNode:
    return LittleNode(tmp_path / "home")


async def run(home: Path, *flags: str) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, app, ["doctor", "--home", str(home), *flags])


async def told(home: Path) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit code, and the findings by severity."""
    result = await run(home, "--json")
    tree = json.loads(result.stdout)
    assert tree["ok"] is (result.exit_code == 0), result.output
    assert tree["home"] == str(home)
    found: dict[str, list[dict[str, str]]] = {"wrong": [], "warning": [], "note": []}
    for one in tree["findings"]:
        assert one.keys() == {"severity", "node", "what", "seen", "why", "remedy", "unknown"}
        assert bool(one["remedy"]) is (one["severity"] != "note")
        found[one["severity"]].append(one)
    return result.exit_code, found


def whats(found: list[dict[str, str]]) -> list[str]:
    return [one["what"] for one in found]


@pytest.fixture
def cluster(tmp_path: Path) -> LittleCluster:
    return LittleCluster(tmp_path, "thunderline")


def certified(node: LittleNode, cluster: LittleCluster, age_s: float = 0.0) -> Wallet:
    keep(node.home, cluster.identity(Caller.SCHEDULER, node.node_id, age_s))
    return Wallet(node.home, cluster.name)


async def test_a_node_whose_roles_all_answer_is_well(node: LittleNode) -> None:
    async with node.running():
        code, found = await told(node.home)
    assert (code, found["wrong"]) == (0, [])
    answering = next(one for one in found["note"] if one["what"] == "roles that answer")
    assert answering["why"] == "discovery, topology, scheduler, runner and gateway"
    assert "ranks compute with" in whats(found["note"])


async def test_in_words_it_ends_with_a_summary(node: LittleNode) -> None:
    async with node.running():
        result = await run(node.home)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("nothing is wrong")
    assert "roles that answer: discovery" in result.stdout


async def test_when_nothing_runs_it_says_what_to_start_and_makes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "nowhere"
    (tmp_path / "free").mkdir()
    node = LittleNode(tmp_path / "free")
    ports = {f"THUNDERLINE_{role.upper()}_PORT": str(port) for role, port in node.ports.items() if role in ALL}
    words = ["doctor", "--home", str(home)]
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, words, env=ports))
    assert result.exit_code == 1
    assert "no role of this node runs" in result.stdout
    assert "`thunderline up`" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("1 thing is wrong")
    assert not home.exists()


@pytest.mark.parametrize("role", ["discovery", "topology", "scheduler"])
async def test_a_role_that_is_down_costs_its_own_finding_only(node: LittleNode, role: str) -> None:
    (node.home / "logs").mkdir()
    (node.home / "logs" / f"{role}.log").write_text(f"{{}}\nthunderline {role}: the store is locked\n")
    async with node.running(without=(role,)):
        code, found = await told(node.home)
    assert (code, whats(found["wrong"])) == (1, [f"{role} does not answer"])
    assert "the store is locked" in found["wrong"][0]["why"]
    assert f"`thunderline {role}`" in found["wrong"][0]["remedy"]


@pytest.mark.parametrize("role", ["runner", "gateway"])
async def test_a_node_may_do_without_some_roles(node: LittleNode, role: str) -> None:
    async with node.running(without=(role,)):
        code, found = await told(node.home)
    assert (code, found["wrong"]) == (0, [])
    assert f"{role} does not run here" in whats(found["warning"])


async def test_a_role_that_starts_is_waited_for(node: LittleNode) -> None:
    async with node.running():
        await node.servers["scheduler"].serving(False)
        code, found = await told(node.home)
    assert (code, found["wrong"]) == (0, [])
    assert "scheduler is not ready" in whats(found["warning"])


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize("has_certificate", [False, True], ids=["plain", "TLS"])
async def test_a_role_that_is_stuck_is_told_from_one_that_refuses(
    node: LittleNode, cluster: LittleCluster, silent: socket.socket, has_certificate: bool
) -> None:
    wallet = certified(node, cluster) if has_certificate else Wallet(node.home, "thunderline")
    own = examining.own(read(home=node.home), wallet)
    look = await dialling.look_at("discovery", "127.0.0.1", silent.getsockname()[1], wallet, own)
    assert look.answer is Answer.SILENT


@pytest.mark.parametrize("role", ["discovery", "gateway"])
async def test_what_never_answers_holds_nothing_up(node: LittleNode, silent: socket.socket, role: str) -> None:
    taken = silent.getsockname()[1]
    config = node.home / "config.toml"
    config.write_text(config.read_text().replace(f"port = {node.ports[role]}\n", f"port = {taken}\n"))
    async with node.running(without=(role,)):
        begun_s = time.monotonic()
        result = await run(node.home)
    assert time.monotonic() - begun_s < 20
    assert result.exit_code == 1
    # This process is no role.
    assert f"the port of {role} is taken" in result.stdout
    assert "looking at " in result.stderr and role in result.stderr
    assert "looking at" not in result.stdout


async def test_a_port_for_metrics_that_is_taken_is_told_before_the_role_starts(node: LittleNode) -> None:
    with socket.create_server(("127.0.0.1", node.ports["runner"] + 100)):
        async with node.running(without=("runner",)):
            code, found = await told(node.home)
    assert (code, whats(found["wrong"])) == (1, [f"port {node.ports['runner'] + 100} (runner metrics) is taken"])


async def test_a_discovery_that_serves_and_does_not_answer_is_given_up(node: LittleNode) -> None:
    node.is_mute = True
    async with node.running():
        code, found = await told(node.home)
    assert (code, whats(found["wrong"])) == (1, ["discovery serves, and answers no question"])


async def test_another_homes_roles_at_our_ports_are_noticed(node: LittleNode, tmp_path: Path) -> None:
    other = LittleNode(tmp_path / "other")
    (other.home / "config.toml").write_text((node.home / "config.toml").read_text())
    async with node.running():
        code, found = await told(other.home)
    assert (code, whats(found["wrong"])) == (1, ["another node's roles answer at this node's ports"])
    assert node.node_id in found["wrong"][0]["why"]


async def test_what_discovery_and_topology_know_is_told(node: LittleNode) -> None:
    bob, cleo = node.add("bob"), node.add("cleo", discovery_pb2.MEMBER_STATE_DEAD)
    cleo.problem = "nobody listens"
    bob.clock_ahead_s = -3.0
    for ends in ((node.node_id, bob.card.node_id), (bob.card.node_id, node.node_id)):
        node.topology.links.add(
            from_node_id=ends[0],
            to_node_id=ends[1],
            peer_address="100.64.0.2",
            medium=cluster_pb2.MEDIUM_VPN,
            state=topology_pb2.LINK_STATE_UP,
            rtt_us=50_000,
        )
    async with node.running():
        code, found = await told(node.home)
    assert (code, found["wrong"]) == (0, [])
    said = whats(found["warning"])
    assert "cleo is DEAD" in said
    assert "the clock of bob is 3.0 s behind this node's" in said
    assert "only a VPN joins this node and bob" in said


async def test_a_peer_without_any_link_is_wrong_and_quotes_its_addresses(node: LittleNode) -> None:
    bob = node.add("bob")
    ends = {"from_node_id": node.node_id, "to_node_id": bob.card.node_id}
    node.topology.attempts.add(**ends, address="10.0.0.2", sentence="no way there (EHOSTUNREACH)")
    async with node.running():
        code, found = await told(node.home)
    assert (code, whats(found["wrong"])) == (1, ["no link joins this node and bob"])
    assert "10.0.0.2: no way there (EHOSTUNREACH)" in found["wrong"][0]["why"]


async def test_an_echo_that_the_card_promises_is_tried(node: LittleNode) -> None:
    node.roster.members[0].card.endpoints.add(role="echo", port=node.ports["echo"])
    async with node.running():
        code, found = await told(node.home)
        assert (code, whats(found["wrong"])) == (1, ["peers cannot measure their links to this node"])
        with socket.create_server(("127.0.0.1", node.ports["echo"])):
            code, found = await told(node.home)
    assert (code, found["wrong"]) == (0, [])


async def test_where_another_node_schedules_four_roles_are_enough(tmp_path: Path) -> None:
    node = LittleNode(tmp_path / "home", '[cluster]\nscheduler = "another"\n')
    async with node.running(without=("scheduler",)):
        code, found = await told(node.home)
    assert (code, whats(found["wrong"])) == (1, ["the scheduler node is not found"])
    answering = next(one for one in found["note"] if one["what"] == "roles that answer")
    assert answering["why"] == "discovery, topology, runner and gateway"


async def test_settings_that_cannot_be_read_are_the_one_finding(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[gateway]\nprot = 8000\n")
    code, found = await told(tmp_path)
    assert (code, whats(found["wrong"])) == (1, ["the settings cannot be read"])
    assert "'prot'" in found["wrong"][0]["why"]


async def test_doors_that_stand_open_are_told(tmp_path: Path) -> None:
    node = LittleNode(tmp_path / "home", '[node]\nmetrics_bind = "0.0.0.0"\nbind = "0.0.0.0"\n')
    code, found = await told(node.home)
    assert code == 1
    assert "the roles do not start: this node has no certificate" in whats(found["wrong"])
    assert "everybody on the network can read this node's metrics" in whats(found["warning"])


async def test_a_node_of_a_cluster_is_asked_by_tls(node: LittleNode, cluster: LittleCluster) -> None:
    async with node.running(wallet=certified(node, cluster)):
        code, found = await told(node.home)
    assert (code, found["wrong"]) == (0, [])
    note = next(one for one in found["note"] if one["what"] == "certificate")
    assert f"scheduler node {node.node_id} of cluster 'thunderline'" in note["why"]


def test_seeds_on_this_machine_are_not_far(tmp_path: Path) -> None:
    settings = read({"THUNDERLINE_DISCOVERY_SEEDS": "ada,[::1],::1,127.0.0.1:9"}, home=tmp_path)
    assert examining.own(settings, Wallet(tmp_path, "thunderline")).far_seeds == ("ada",)


async def test_roles_that_run_since_before_the_node_joined_are_told(node: LittleNode, cluster: LittleCluster) -> None:
    async with node.running():
        wallet = certified(node, cluster)
        own = examining.own(read(home=node.home), wallet)
        look = await dialling.look_at("discovery", "127.0.0.1", node.ports["discovery"], wallet, own)
        code, found = await told(node.home)
    assert look.answer is Answer.OTHER
    assert "does not speak TLS" in look.detail and "since before this node had its certificate" in look.detail
    assert code == 1
    assert len(found["wrong"]) == 4


async def test_an_expired_certificate_is_the_one_finding(node: LittleNode, cluster: LittleCluster) -> None:
    good = LittleNode(node.home.parent / "good")
    wallet = certified(good, cluster)
    certified(node, cluster, 1.5 * YEAR_S)
    async with node.running(wallet=wallet):
        code, found = await told(node.home)
    assert (code, whats(found["wrong"])) == (1, ["no other node takes this node's certificate"])
    assert "has expired" in found["wrong"][0]["why"]


async def test_roles_that_outlive_their_certificate_are_not_blamed(node: LittleNode, cluster: LittleCluster) -> None:
    wallet = certified(node, cluster)
    async with node.running(wallet=wallet):
        (node.home / "cluster" / "node.pem").unlink()
        config = node.home / "config.toml"
        config.write_text(f'{config.read_text()}[node]\nbind = "0.0.0.0"\n')
        code, found = await told(node.home)
    assert (code, whats(found["wrong"])) == (1, ["the roles do not start: this node has no certificate"])


async def test_a_key_that_others_may_read_is_told(node: LittleNode, cluster: LittleCluster) -> None:
    certified(node, cluster)
    (node.home / "cluster" / "node.pem").chmod(0o644)
    code, found = await told(node.home)
    assert code == 1
    others = f"others may read {node.home}/cluster/node.pem"
    assert sorted(whats(found["wrong"])) == ["no role of this node runs", others]


OTHERS = {
    "of another cluster": ("work", "another cluster, 'work'"),
    "of another cluster of this name": ("thunderline", "another authority signed its certificate"),
}


@pytest.mark.parametrize(("name", "why"), OTHERS.values(), ids=OTHERS.keys())
async def test_a_seed_that_does_not_trust_this_node_is_told_with_its_reason(
    tmp_path: Path, cluster: LittleCluster, name: str, why: str
) -> None:
    theirs = LittleCluster(tmp_path, name)
    there = LittleNode(tmp_path / "there")
    seed = f"127.0.0.1:{there.ports['discovery']}"
    node = LittleNode(tmp_path / "home", seeds=(seed,))
    without = ("topology", "scheduler", "runner", "gateway")
    async with node.running(wallet=certified(node, cluster)):
        async with there.running(without, theirs.wallet()):
            code, found = await told(node.home)
        assert (code, found["wrong"]) == (0, [])
        one = next(one for one in found["warning"] if seed in one["what"])
        assert why in one["why"]
        code, found = await told(node.home)
    assert f"seed {seed} does not answer" in whats(found["warning"])


async def test_what_hangs_is_left_behind() -> None:
    begun_s = time.monotonic()
    with pytest.raises(TimeoutError):
        await dialling.in_thread(lambda: time.sleep(5), 0.1)
    assert time.monotonic() - begun_s < 2


async def test_what_a_thread_raises_or_returns_comes_back() -> None:
    assert await dialling.in_thread(lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        await dialling.in_thread(lambda: 1 / 0, 5)


def test_a_listening_process_is_known_by_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        owner = examining.listeners().get(listener.getsockname()[1])
    assert owner is not None
    assert owner.role == ""


def test_the_blas_is_what_a_rank_would_get() -> None:
    found = examining.engine()
    assert found is not None
    assert found.blas
    assert found.mlx
