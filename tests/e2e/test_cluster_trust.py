"""Two nodes as people make them, on this machine: `cluster init`, `cluster join`, and what strangers meet there."""

import contextlib
import json
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from installation import GRPC_ROLES, Installation, end, free_base_port, until
from rpc.little_cluster import LittleCluster
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import CERTIFICATE_S, Bearer
from thunderline.cluster.members import HAS_LEFT
from thunderline.process import authority
from thunderline.process.certificates import new_key, public_key, sign
from thunderline.process.home import node_id
from thunderline.process.trust import Identity, Wallet, identity, parsed
from thunderline.rpc import credentials
from thunderline.rpc.channel import TLS_CHANNEL_OPTIONS
from thunderline.v1 import runner_pb2

HEALTH = "/grpc.health.v1.Health/Check"
SET_RANK = "/thunderline.v1.RunnerService/SetRank"
GET_CLUSTER = "/thunderline.v1.SchedulerService/GetCluster"
DEADLINE_S = 10.0
# Its roles' ports lie this far above the other node's.
APART = 10


@dataclass
class Pair:
    scheduler: Installation
    member: Installation

    @property
    def targets(self) -> list[str]:
        """Every gRPC port of every role, but the enrolment port."""
        others = [one for one in GRPC_ROLES if one != "scheduler"]
        return [*map(self.scheduler.target, GRPC_ROLES), *map(self.member.target, others)]

    @property
    def name(self) -> str:
        return "study"

    def wallet(self, one: Installation) -> Wallet:
        return Wallet(one.home, self.name)


def node(home: Path, base_port: int) -> Installation:
    return Installation(
        home,
        base_port,
        {
            # Of one machine, so that nothing but loopback is needed.
            "THUNDERLINE_NODE_BIND": "127.0.0.1",
            "THUNDERLINE_DISCOVERY_MDNS": "false",
            "THUNDERLINE_SCHEDULER_ENROLLMENT_PORT": str(base_port + 5),
            "THUNDERLINE_TOPOLOGY_ECHO_PORT": str(base_port + 6),
        },
    )


def done(one: Installation, *words: str) -> str:
    answer = one.run(*words)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def token(one: Installation) -> str:
    return str(json.loads(done(one, "cluster", "init", "--name", "study", "--address", "127.0.0.1", "--json"))["token"])


def members(one: Installation) -> dict[str, dict[str, Any]]:
    """As `nodes` shows them, by id."""
    answer = one.run("nodes", "--json")
    found = json.loads(answer.stdout).get("members", []) if answer.returncode == 0 else []
    return {member["card"]["node_id"]: member for member in found}


def alive(one: Installation) -> set[str]:
    return {node for node, member in members(one).items() if member["state"] == "MEMBER_STATE_ALIVE"}


def join(one: Installation, text: str) -> None:
    """The port listens within a second or two."""
    until("it has joined", lambda: one.run("cluster", "join", text, "--yes").returncode == 0, 20)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root, base = tmp_path_factory.mktemp("cluster"), free_base_port()
    found = Pair(node(root / "scheduler", base), node(root / "member", base + APART))
    try:
        text = token(found.scheduler)
        found.scheduler.start()
        found.scheduler.wait_ready(60)
        join(found.member, text)
        found.member.start()
        both = {node_id(one.home) for one in (found.scheduler, found.member)}
        for one in (found.scheduler, found.member):
            until(f"both are ALIVE:\n{one.output}", lambda one=one: alive(one) == both, 30, every_s=0.2)  # type: ignore[misc]
        yield found
    finally:
        end(found.member)
        end(found.scheduler)


def called(target: str, method: str, one: Identity | None, request: bytes = b"") -> grpc.StatusCode:
    """As somebody who does not look at their own certificate first; without one by plain TCP."""
    options = [*TLS_CHANNEL_OPTIONS, *credentials.expects(None)]
    if one is None:
        channel = grpc.insecure_channel(target, options=options)
    else:
        channel = grpc.secure_channel(target, credentials.for_channel(one), options=options)
    with channel:
        try:
            call: Any = channel.unary_unary(method)
            call(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def signed(home: Path, to: Bearer, age_s: float = 0.0) -> Identity:
    """By the cluster's own authority, which only this test may take from its file."""
    ours, key = authority.kept(home), new_key()
    assert ours is not None
    return identity(key, sign(ours.signing, public_key(key), to, time.time() - age_s), ours.bundle)


def lying(one: Identity, bundle: bytes) -> Identity:
    """It takes the server for one of its own, so that only the server can refuse."""
    return Identity(one.key_pem, one.certificate_pem, bundle, one.facts)


STRANGERS = ["without TLS", "of another cluster", "of another cluster of this name", "expired"]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_refused_at_every_grpc_port_of_every_role(pair: Pair, tmp_path: Path, stranger: str) -> None:
    bundle = pair.wallet(pair.scheduler).checked().authorities_pem
    scheduler = Bearer(pair.name, Caller.SCHEDULER, node_id(pair.scheduler.home))
    shown: Identity | None = None
    if stranger == "expired":
        shown = signed(pair.scheduler.home, scheduler, age_s=CERTIFICATE_S + 10.0)
    elif stranger != "without TLS":
        name = pair.name if stranger.endswith("name") else "work"
        shown = lying(LittleCluster(tmp_path, name).identity(Caller.SCHEDULER), bundle)
    for target in pair.targets:
        assert called(target, HEALTH, shown) is grpc.StatusCode.UNAVAILABLE, target
    # The same with a certificate that is good: else nothing of this would say anything.
    for target in pair.targets:
        assert called(target, HEALTH, signed(pair.scheduler.home, scheduler)) is grpc.StatusCode.OK, target


def test_tls_without_a_certificate_is_refused_too(pair: Pair) -> None:
    bundle = pair.wallet(pair.scheduler).checked().authorities_pem
    for target in pair.targets:
        options = [*TLS_CHANNEL_OPTIONS, *credentials.expects(None)]
        with grpc.secure_channel(target, grpc.ssl_channel_credentials(bundle), options=options) as channel:
            call: Any = channel.unary_unary(HEALTH)
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=DEADLINE_S)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_only_the_scheduler_nodes_certificate_commands_ranks(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "laptop.pem"
    done(pair.scheduler, "cluster", "client", "laptop", "--out", str(path))
    client = parsed(path.read_bytes())
    member, scheduler = (pair.wallet(one).checked() for one in (pair.member, pair.scheduler))
    command = runner_pb2.SetRankRequest(store_id="stolen").SerializeToString()
    for one in (pair.scheduler, pair.member):
        target = one.target("runner")
        for shown in (member, client):
            assert called(target, SET_RANK, shown, command) is grpc.StatusCode.UNAUTHENTICATED
        # It gets as far as being read.
        assert called(target, SET_RANK, scheduler, command) is grpc.StatusCode.INVALID_ARGUMENT
    for shown in (member, client, scheduler):
        assert called(pair.scheduler.target("scheduler"), GET_CLUSTER, shown) is grpc.StatusCode.OK
    assert called(pair.scheduler.target("discovery"), HEALTH, client) is grpc.StatusCode.OK
    get_roster = "/thunderline.v1.DiscoveryService/GetRoster"
    assert called(pair.scheduler.target("discovery"), get_roster, client) is grpc.StatusCode.UNAUTHENTICATED


def test_a_used_token_lets_in_nobody_else(pair: Pair, tmp_path: Path) -> None:
    third = node(tmp_path / "third", free_base_port())
    text = token(pair.scheduler)
    join(third, text)
    fourth = node(tmp_path / "fourth", third.base_port)
    refused = fourth.run("cluster", "join", text)
    assert refused.returncode == 1
    assert "has been used" in refused.stderr
    assert not (fourth.home / "cluster/node.pem").exists()


def test_a_second_cluster_of_this_name_does_not_mix_with_it(pair: Pair, tmp_path: Path) -> None:
    other = node(tmp_path / "other", free_base_port())
    seeds = [pair.scheduler.target("discovery"), pair.member.target("discovery")]
    other.environment["THUNDERLINE_DISCOVERY_SEEDS"] = ",".join(seeds)
    before = alive(pair.scheduler)
    token(other)
    other.start()
    try:
        other.wait_ready(60)
        # Longer than it takes two nodes of one cluster to find each other.
        own = {node_id(other.home)}
        ends_s = time.monotonic() + 5
        while time.monotonic() < ends_s:
            assert alive(other) == own
            assert alive(pair.scheduler) == before
    finally:
        end(other)


def rotation(one: Installation) -> dict[str, Any]:
    return dict(json.loads(done(one, "cluster", "rotate", "--json")))


def test_a_rotation_ends_while_everything_goes_on(pair: Pair) -> None:
    first = pair.wallet(pair.scheduler).checked().facts.authority
    both = alive(pair.scheduler)
    begun = rotation(pair.scheduler)
    assert begun["began"] and begun["signing"] == first
    newest = begun["trusted"][1]

    def is_over() -> bool:
        # Each is asked by the other's roles and by the command line all the time.
        assert alive(pair.scheduler) == alive(pair.member) == both
        found = [pair.wallet(one).checked() for one in (pair.scheduler, pair.member)]
        return all(one.authorities_pem.count(b"BEGIN CERT") == 1 and one.facts.authority == newest for one in found)

    until("every node is under the new authority", is_over, 90)
    for target in pair.targets:
        assert called(target, HEALTH, pair.wallet(pair.member).checked()) is grpc.StatusCode.OK


def test_a_node_that_was_taken_out_stays_out_until_a_token_lets_it_in(pair: Pair) -> None:
    scheduler, member = pair.scheduler, pair.member
    first, out = node_id(scheduler.home), node_id(member.home)
    done(scheduler, "cluster", "leave", out, "--yes")
    until("it is no member any more", lambda: alive(scheduler) == {first}, 10)
    # Its certificate is good for a year, and it starts again.
    end(member)
    member.start()

    def problem() -> str:
        return str(members(member).get(first, {}).get("problem", ""))

    until("it knows why", lambda: f"node {out} {HAS_LEFT}" in problem(), 30, every_s=0.2)
    ends_s = time.monotonic() + 5
    while time.monotonic() < ends_s:
        assert alive(scheduler) == {first}
        assert alive(member) == {out}
    told = json.loads(member.run("doctor", "--json").stdout)
    (finding,) = [one for one in told["findings"] if HAS_LEFT in one["why"]]
    assert "cluster join TOKEN" in finding["remedy"]
    # No rotation waits for it.
    newest = rotation(scheduler)["trusted"][1]
    until("the rotation is over", lambda: rotation_of(pair) == ([newest], newest), 60)
    join(member, token(scheduler))
    end(member)
    member.start()
    for one in (scheduler, member):
        until(f"both are ALIVE:\n{one.output}", lambda one=one: alive(one) == {first, out}, 30, every_s=0.2)  # type: ignore[misc]


def rotation_of(pair: Pair) -> tuple[list[str], str]:
    ours = authority.kept(pair.scheduler.home)
    assert ours is not None
    return list(ours.ring.trusted), ours.ring.signing


def test_a_node_that_leaves_is_on_its_own_again(pair: Pair) -> None:
    left = node_id(pair.member.home)
    done(pair.member, "cluster", "leave", "--yes")
    until("it is no member any more", lambda: left not in alive(pair.scheduler), 10)
    assert pair.wallet(pair.member).identity() is None
    end(pair.member)
    pair.member.start()
    until("it is alone", lambda: alive(pair.member) == {left}, 30)


def test_wider_than_loopback_without_a_cluster_nothing_starts(tmp_path: Path) -> None:
    one = node(tmp_path / "home", free_base_port())
    one.environment["THUNDERLINE_NODE_BIND"] = "0.0.0.0"
    for role in GRPC_ROLES:
        refused = one.run(role)
        assert refused.returncode == 1, (role, refused.stderr)
        last = refused.stderr.strip().splitlines()[-1]
        assert last.startswith(f"thunderline {role}: [node] bind = '0.0.0.0'") and "cluster init" in last
    with contextlib.closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", one.base_port + GRPC_ROLES["scheduler"])) != 0
    assert str(uuid.UUID(node_id(one.home)))
