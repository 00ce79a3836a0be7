"""IMPOSSIBLE against WAITING, and whom it waits for; what a refusal says of each set."""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pytest

from scheduler.placing.scenes import (
    CANNOT,
    GIB,
    LINUX,
    MAC,
    cable,
    failed,
    lan,
    mesh_of_rails,
    model,
    node,
    nodes,
    placed,
    rail,
    situation,
    told,
    vpn,
    where,
)
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Outcome, Tried
from thunderline.cluster.links import Link, LinkState
from thunderline.cluster.machine_facts import RdmaPortState, RdmaState
from thunderline.cluster.media import Medium
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import (
    Ability,
    Backend,
    Files,
    Measured,
    Model,
    Policy,
    Reason,
    Situation,
    Strategy,
    Verdict,
    WaitFor,
)

HUGE = model(400)
TENSOR = Policy(strategy=Strategy.TENSOR)
JACCL = Policy(backend=Backend.JACCL)
FAST = Policy(requires_fast=True)


@dataclass(frozen=True)
class Row:
    here: Situation
    wants: Model
    verdict: Verdict
    # Part of the sentence.
    says: str
    # Of the first wait.
    waits: tuple[WaitFor, str] | None = None
    policy: Policy | None = None


IMPOSSIBLE, WAITING = Verdict.IMPOSSIBLE, Verdict.WAITING
TWO = situation(nodes("ab", backends=LINUX), lan("ab"))
DEAD_TOO = [*nodes("ab", backends=LINUX), node("c", 300, is_alive=False, backends=LINUX)]
ROWS: dict[str, Row] = {
    "a model too large for all together": Row(
        TWO, HUGE, IMPOSSIBLE, "needs 452.50 GiB, 2 nodes together have 192.00 GiB"
    ),
    "a model too large for who can use the files": Row(
        situation([node("a"), node("b", files=Files.UNUSABLE)], lan("ab")),
        HUGE,
        IMPOSSIBLE,
        "GiB, a has 96.00 GiB",
    ),
    "too large for those that are ALIVE": Row(
        situation(DEAD_TOO, lan("ab")), HUGE, WAITING, "c is not ALIVE", (WaitFor.NODES, "c")
    ),
    "too large for those that are known, and not all are": Row(
        replace(TWO, is_complete=False), HUGE, WAITING, "does not know all members", (WaitFor.NODES, "")
    ),
    "too large, and one has not told of its links": Row(
        situation(nodes("ab", backends=LINUX), lan("ab"), incomplete=(NodeId("b"),)),
        HUGE,
        WAITING,
        "b has not told of all its links",
        (WaitFor.NODES, "b"),
    ),
    "too large, and one has not told its memory": Row(
        situation([node("a"), replace(node("b"), memory_bytes=None)], lan("ab")),
        HUGE,
        WAITING,
        "b has not told its memory",
        (WaitFor.FACTS, "b"),
    ),
    "too large beside what others hold": Row(
        situation(nodes("ab", backends=LINUX, reserved_bytes=60 * GIB), lan("ab")),
        model(120),
        WAITING,
        "60.00 GiB of a are promised to others",
        (WaitFor.MEMORY, "a"),
    ),
    "no link between two that would do": Row(
        situation(nodes("ab", backends=LINUX), [], tried=[failed("a", "b", "10.0.0.2"), failed("b", "a", "10.0.0.1")]),
        model(120),
        WAITING,
        "a → b: 10.0.0.2 TIMED_OUT, errno 110",
        (WaitFor.LINKS, "ab"),
    ),
    "a link that is DOWN": Row(
        situation(
            nodes("ab", backends=LINUX),
            [lan("ab")[0], replace(lan("ab")[1], state=LinkState.DOWN)],
        ),
        model(120),
        WAITING,
        "b → a: 192.168.1.1 ANSWERED, DOWN",
        (WaitFor.LINKS, "ba"),
    ),
    "only a VPN, and it must be fast": Row(
        situation(nodes("ab", backends=LINUX), vpn("ab", 45)),
        model(120),
        WAITING,
        "100.64.0.2 (VPN, utun3, 45 ms, UP): VPN has no minimum",
        (WaitFor.LINKS, "ab"),
        FAST,
    ),
    "only Wi-Fi, and it must be fast": Row(
        situation(nodes("ab", backends=LINUX), lan("ab", 5, Medium.WIFI)),
        model(120),
        WAITING,
        "WIFI is none of the fast media",
        (WaitFor.LINKS, "ab"),
        FAST,
    ),
    "rails that are asked for and not plugged in": Row(
        situation(nodes("ab"), lan("ab")), model(120), WAITING, "no rail between a and b", (WaitFor.LINKS, "ab"), JACCL
    ),
    "a port that is DOWN": Row(
        situation(nodes("ab"), lan("ab"), [rail("a", "b", states=(RdmaPortState.ACTIVE, RdmaPortState.DOWN))]),
        model(120),
        WAITING,
        "rdma_en5 of b is PORT_DOWN",
        (WaitFor.LINKS, "ab"),
        JACCL,
    ),
    "rails that are asked for, and RDMA is off": Row(
        situation([node("a"), node("b", rdma=RdmaState.DISABLED)], lan("ab"), [rail("a", "b")]),
        model(120),
        IMPOSSIBLE,
        "RDMA is off on b",
        policy=JACCL,
    ),
    "rails that are asked for, and nobody knows whether RDMA is on": Row(
        situation([node("a"), node("b", rdma=RdmaState.UNKNOWN)], lan("ab"), [rail("a", "b")]),
        model(120),
        WAITING,
        "whether RDMA is on is not known of b",
        (WaitFor.FACTS, "b"),
        JACCL,
    ),
    "what a node's MLX offers is not known": Row(
        situation([node("a", backends=LINUX), node("b", backends=None)], lan("ab")),
        model(120),
        WAITING,
        "b has not said yet what its MLX offers",
        (WaitFor.FACTS, "b"),
    ),
    "whether the engine can split it was not tried": Row(
        situation(nodes("ab", backends=LINUX), lan("ab")),
        model(120, pipeline=Ability(), tensor=Ability()),
        WAITING,
        "has not been tried yet",
        (WaitFor.FACTS, ""),
    ),
    "the engine cannot split it": Row(
        TWO, model(120, pipeline=CANNOT, tensor=CANNOT), IMPOSSIBLE, "hand on more than one array"
    ),
    "the engine cannot split it as asked for, whoever else is there": Row(
        replace(TWO, is_complete=False), model(20, tensor=CANNOT), IMPOSSIBLE, "more than one array", policy=TENSOR
    ),
    "heads that the pinned nodes do not divide": Row(
        situation(nodes("abc", backends=LINUX), lan("abc")),
        model(20),
        IMPOSSIBLE,
        "3 ranks do not divide its 64 attention heads and 16 key-value heads",
        policy=Policy(strategy=Strategy.TENSOR, nodes=frozenset(NodeId(one) for one in "abc")),
    ),
    "how many heads it has is not known": Row(
        situation(nodes("ab", backends=LINUX), lan("ab")),
        model(20, head_count=0),
        IMPOSSIBLE,
        "how many heads it has is not known",
        policy=TENSOR,
    ),
    "one pinned node has nothing to divide": Row(
        TWO,
        model(20),
        IMPOSSIBLE,
        "one node has nothing to divide",
        policy=Policy(strategy=Strategy.PIPELINE, nodes=frozenset({NodeId("a")})),
    ),
    "an address that is given up before it was tried": Row(
        situation(nodes("ab", backends=LINUX), [lan("ab")[0]], tried=[Tried(NodeId("b"), NodeId("a"), "10.0.0.1")]),
        model(120),
        WAITING,
        "b → a: 10.0.0.1 was not tried yet",
        (WaitFor.LINKS, "ba"),
    ),
    "more nodes than there are layers": Row(
        situation(nodes("abc", backends=LINUX), lan("abc")),
        model(2),
        IMPOSSIBLE,
        "3 ranks for 2 layers",
        policy=Policy(node_count_min=3),
    ),
    "a pinned node that is not ALIVE": Row(
        situation(DEAD_TOO, lan("ab")),
        model(20),
        WAITING,
        "c is not ALIVE",
        (WaitFor.NODES, "c"),
        Policy(nodes=frozenset({NodeId("a"), NodeId("c")})),
    ),
    "a pinned node that is no member": Row(
        TWO, model(20), WAITING, "z is no member", (WaitFor.NODES, "z"), Policy(nodes=frozenset({NodeId("z")}))
    ),
    "files that are broken everywhere": Row(
        situation(nodes("ab", files=Files.UNUSABLE, file_problem="no config.json"), lan("ab")),
        model(20),
        IMPOSSIBLE,
        "no config.json",
    ),
    "more nodes asked for than there are": Row(
        TWO, model(20), IMPOSSIBLE, "3 nodes at least are asked for, 2 can take part", policy=Policy(node_count_min=3)
    ),
    "no node at all": Row(situation([]), model(20), IMPOSSIBLE, "there is no node"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_it_is(row: Row) -> None:
    found = plan(row.here, row.wants, row.policy)
    assert (found.verdict, found.placement) == (row.verdict, None), found.why
    everything = "; ".join([found.why, *(one.text for one in found.waits)])
    assert row.says in everything
    if row.waits is not None:
        what, names = row.waits
        first = found.waits[0]
        assert (first.what, "".join(first.nodes)) == (what, names)
    else:
        assert not found.waits


# What is wrong at the end of b, and what a plan says of it.
OBSTACLES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "DOWN": ({"state": RdmaPortState.DOWN}, {}, "rdma_en5 of b is PORT_DOWN"),
    "unknown": ({"state": RdmaPortState.UNKNOWN}, {}, "whether rdma_en5 of b is PORT_ACTIVE is not known"),
    "in a bridge": ({"bridge": "bridge0"}, {}, "en5 of b is a member of bridge0"),
    "the wrong port": ({"is_next_to_ethernet": True}, {}, "rdma_en5 of b is the port next to Ethernet"),
    "without IPv4": ({}, {"without_ipv4": frozenset({"en5"})}, "en5 of b has no IPv4 address"),
}


@pytest.mark.parametrize(("end", "facts", "says"), OBSTACLES.values(), ids=OBSTACLES.keys())
def test_an_end_that_RDMA_cannot_use_is_named(end: dict[str, Any], facts: dict[str, Any], says: str) -> None:
    fine = rail("a", "b")
    broken = replace(fine, other=replace(fine.other, **end))
    here = situation([node("a"), node("b", **facts)], lan("ab"), [broken])
    found = plan(here, model(120), JACCL)
    assert found.verdict is WAITING
    assert says in found.why
    # Another cable between the two does not suffer from it.
    both = replace(here, graph=replace(here.graph, rails=(broken, rail("a", "b", ("en3", "en4")))))
    assert placed(plan(both, model(120), JACCL)).devices[0][1] == ("rdma_en3",)


def crossed(one: Link) -> Tried:
    return Tried(*one.id, Outcome.ANSWERED, state=one.state, rtt_us=one.rtt_us)


YOUNG_C = [*nodes("ab", backends=LINUX), node("c", backends=LINUX, alive_for_s=1.0)]
UNTRIED = [
    Tried(NodeId(i), NodeId(j), f"10.0.0.{k}")
    for i, j, k in (("a", "c", 3), ("b", "c", 3), ("c", "a", 1), ("c", "b", 2))
]
YOUNG_BOTH = nodes("ab", backends=LINUX, alive_for_s=1.0)
SILENT = (NodeId("a"), NodeId("b"))
# Nodes that have just come, or whose topology has: what is planned meanwhile.
COMING: dict[str, tuple[Situation, Model, str]] = {
    "a newcomer that is not needed": (situation(YOUNG_C, lan("ab"), tried=UNTRIED), model(120), "pipeline ring a b"),
    "a newcomer that flaps, of which a link is known": (
        situation(YOUNG_C, lan("abc"), tried=UNTRIED[:1]),
        model(120),
        "pipeline ring a b",
    ),
    "a newcomer that is needed": (situation(YOUNG_C, lan("abc"), tried=UNTRIED), model(200), "WAITING"),
    "a newcomer, and without it only a VPN": (situation(YOUNG_C, vpn("ab"), tried=UNTRIED), model(120), "WAITING"),
    "a topology that has told of the VPN only": (
        situation(YOUNG_BOTH, vpn("ab"), tried=[crossed(one) for one in vpn("ab")], incomplete=SILENT),
        model(120),
        "WAITING",
    ),
    "one that has told all": (
        situation(YOUNG_BOTH, vpn("ab"), tried=[crossed(one) for one in vpn("ab")]),
        model(120),
        "pipeline ring a b",
    ),
    "one that has told so little for long": (
        situation(nodes("ab", backends=LINUX), vpn("ab"), incomplete=SILENT),
        model(120),
        "pipeline ring a b",
    ),
    "one whose model fits on one node": (
        situation(YOUNG_BOTH, vpn("ab"), incomplete=SILENT),
        model(20),
        "whole a",
    ),
}


@pytest.mark.parametrize(("here", "of", "expected"), COMING.values(), ids=COMING.keys())
def test_while_nodes_come(here: Situation, of: Model, expected: str) -> None:
    found = plan(here, of)
    assert where(found) == expected, found.why
    if expected == "pipeline ring a b" and len(here.nodes) == 3:
        assert any(one.nodes == ("c",) and one.reason is Reason.LINK for one in found.rejected)
    if expected == "WAITING":
        assert found.waits[0].what is WaitFor.LINKS


def test_nodes_of_one_machine_meet_by_loopback() -> None:
    """Never slow, also where it must be fast."""
    found = placed(plan(situation(nodes("ab", backends=LINUX), lan("ab", 0.1, Medium.LOOPBACK)), model(120), FAST))
    assert not found.slow


# What is slow, and what is chosen instead of it.
SLOW: dict[str, tuple[Situation, Policy | None, list[str], list[str]]] = {
    "a cable at 6 ms gives way to a LAN": (
        situation(nodes("ab", backends=LINUX), [*cable("a", "b", 6), *lan("ab")]),
        None,
        ["192.168.1.2", "192.168.1.1"],
        [],
    ),
    "a cable with too little bandwidth gives way to a LAN": (
        replace(
            situation(nodes("ab", backends=LINUX), [*lan("ab"), *cable("a", "b")]),
            measured={one.id: Measured(bits_per_s=10**8) for one in cable("a", "b")},
        ),
        None,
        ["192.168.1.2", "192.168.1.1"],
        [],
    ),
    "a VPN when nothing else is left": (
        situation(nodes("ab", backends=LINUX), vpn("ab", 45)),
        None,
        ["100.64.0.2", "100.64.0.1"],
        ["a → b over 100.64.0.2 (VPN, utun3, 45 ms, UP): VPN has no minimum that it could meet"],
    ),
    "Wi-Fi within its minimums is not slow": (
        situation(nodes("ab", backends=LINUX), lan("ab", 5, Medium.WIFI)),
        None,
        ["192.168.1.2", "192.168.1.1"],
        [],
    ),
    "a cable at 6 ms, when nothing else is left": (
        situation(nodes("ab", backends=LINUX), cable("a", "b", 6)),
        None,
        ["10.1.2.2", "10.1.2.1"],
        ["a → b over 10.1.2.2 (THUNDERBOLT, en5, 6 ms, UP): RTT 6 ms, at most 5 ms for THUNDERBOLT"],
    ),
}


@pytest.mark.parametrize(("here", "policy", "addresses", "slow"), SLOW.values(), ids=SLOW.keys())
def test_a_slow_link_is_used_when(
    here: Situation, policy: Policy | None, addresses: list[str], slow: list[str]
) -> None:
    found = placed(plan(here, model(120), policy))
    assert [dial.link.address for rank in found.ranks for dial in rank.dials if dial.link] == addresses
    assert list(found.slow[: len(slow)]) == slow and bool(found.slow) == bool(slow)


def test_a_newer_rtt_counts_for_the_minimums() -> None:
    here = situation(nodes("ab", backends=LINUX), lan("ab", 0.5))
    here = replace(here, measured={one.id: Measured(rtt_us=30_000) for one in here.graph.links})
    assert "RTT 30 ms, at most 10 ms for ETHERNET" in placed(plan(here, model(120))).slow[0]
    assert plan(here, model(120), FAST).verdict is Verdict.WAITING


def test_a_degraded_link_is_named() -> None:
    """It is within its minimum again, and not yet UP."""
    links = [replace(one, state=LinkState.DEGRADED) for one in lan("ab", 9)]
    found = placed(plan(situation(nodes("ab", backends=LINUX), links), model(120)))
    assert found.degraded[0] == "a → b over 192.168.1.2 (ETHERNET, en0, 9 ms, DEGRADED)"
    assert not found.slow


def test_what_has_failed_too_often_over_rails_falls_back_to_the_ring() -> None:
    policy = Policy(given_up={Backend.JACCL: "three failures in RDMA set-up"})
    found = plan(situation(nodes("ab"), lan("ab"), [rail("a", "b")]), model(120), policy)
    assert where(found) == "pipeline ring a b"
    assert "not tensor over jaccl: three failures in RDMA set-up" in placed(found).reasons


@pytest.mark.parametrize("count", range(2, 9))
def test_a_refusal_names_every_set(count: int) -> None:
    names = "abcdefgh"[:count]
    found = plan(situation(nodes(names, 10), lan(names), mesh_of_rails(names)), HUGE)
    assert found.verdict is Verdict.IMPOSSIBLE
    every = {tuple(sets) for size in range(1, count + 1) for sets in combinations(names, size)}
    assert {one.nodes for one in found.rejected if one.nodes} == every
    assert all(one.text and one.count == 1 for one in found.rejected)


def test_above_eight_nodes_a_refusal_counts() -> None:
    names = "abcdefghi"
    found = plan(situation(nodes(names, 10, backends=LINUX), lan(names)), HUGE)
    assert found.verdict is Verdict.IMPOSSIBLE
    sets = [one for one in found.rejected if one.nodes]
    assert [(one.reason, one.strategy, one.count) for one in sets] == [
        (Reason.MEMORY, Strategy.WHOLE, 9),
        (Reason.MEMORY, Strategy.PIPELINE, 2**9 - 1 - 9),
    ]


def test_what_is_said_of_a_set_has_the_figures() -> None:
    members = [node("a", 48), node("b", 24, backends=MAC), node("c", 24)]
    found = plan(situation(members, lan("abc"), mesh_of_rails("abc")), model(120))
    assert "each of 2 ranks needs 67.88 GiB: a 48.00 GiB and b 24.00 GiB free" in told(found, "ab")
    assert "needs 135.75 GiB, has 72.00 GiB free (a 48.00 GiB and b 24.00 GiB), room for 63 of 120 layers" in told(
        found, "ab"
    )
