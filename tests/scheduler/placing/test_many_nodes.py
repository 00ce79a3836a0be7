"""More nodes than all sets of which are looked at."""

import os
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.placing import drawn
from scheduler.placing.scenes import (
    CUDA,
    GIB,
    LINUX,
    cable,
    cable_way,
    circle_of_rails,
    counts,
    lan,
    link,
    mesh_of_rails,
    model,
    node,
    placed,
    rail,
    situation,
    vpn,
    where,
)
from thunderline.cluster.machine_facts import RdmaState
from thunderline.cluster.media import Medium
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.rings import Joined
from thunderline.scheduler.placing.sets import parts
from thunderline.scheduler.placing.values import Backend, Model, Policy, Reason, Situation, Strategy, Verdict

TWELVE = "abcdefghijkl"
PLAIN = [node(name, backends=LINUX) for name in TWELVE]
CIRCLE = [one for i, j in zip(TWELVE, TWELVE[1:] + TWELVE[:1], strict=True) for one in cable(i, j)]
ROUND = [one for i, j in zip("dheg", "hegd", strict=True) for one in cable_way(i, j)]
# 48 and 12 heads.
MANY_HEADS = {"head_count": 48, "kv_head_count": 12}

# The cluster, the model, and how many ranks it takes in which way.
ROWS: dict[str, tuple[Situation, Model, Policy | None, str, int]] = {
    "one node of many": (situation(PLAIN, lan(TWELVE)), model(40), None, "whole", 1),
    "two by the only cable": (
        situation(PLAIN, [*lan(TWELVE), *cable("k", "e")]),
        model(120),
        None,
        "pipeline ring e k",
        2,
    ),
    "three by the only cables": (
        situation(PLAIN, [*lan(TWELVE), *cable("k", "e"), *cable("e", "g"), *cable("k", "g")]),
        model(250),
        None,
        "pipeline ring e g k",
        3,
    ),
    "five over a LAN": (situation(PLAIN, lan(TWELVE)), model(400), None, "pipeline ring", 5),
    "ten over a LAN": (situation(PLAIN, lan(TWELVE)), model(800), None, "pipeline ring", 10),
    "all twelve": (situation(PLAIN, lan(TWELVE)), model(1000), None, "pipeline ring", 12),
    "all twelve, around a circle of cables": (situation(PLAIN, CIRCLE), model(1000), None, "pipeline ring a", 12),
    "four that can be dialled one way round only": (situation(PLAIN, ROUND), model(300), None, "pipeline ring d h", 4),
    "six over a VPN, where there is nothing else": (
        situation(PLAIN, vpn(TWELVE)),
        model(450),
        None,
        "pipeline ring",
        6,
    ),
    "six over a LAN, although a VPN joins all": (
        situation(PLAIN, [*vpn(TWELVE), *lan("abcdef")]),
        model(450),
        None,
        "pipeline ring",
        6,
    ),
    "three over rails": (
        situation([node(name) for name in TWELVE], lan(TWELVE), mesh_of_rails("ghi")),
        model(180, **MANY_HEADS),
        None,
        "tensor jaccl g h i",
        3,
    ),
    "twelve around a circle of rails": (
        situation([node(name) for name in TWELVE], lan(TWELVE), circle_of_rails(TWELVE)),
        model(900, **MANY_HEADS),
        Policy(backend=Backend.JACCL),
        "tensor jaccl",
        12,
    ),
    "twelve over NCCL": (
        situation([node(name, backends=CUDA) for name in TWELVE], lan(TWELVE)),
        model(900, **MANY_HEADS),
        Policy(backend=Backend.NCCL),
        "tensor nccl",
        12,
    ),
}


@pytest.mark.parametrize(("here", "of", "policy", "how", "ranks"), ROWS.values(), ids=ROWS.keys())
def test_it_takes(here: Situation, of: Model, policy: Policy | None, how: str, ranks: int) -> None:
    found = plan(here, of, policy)
    assert where(found).startswith(how) and len(placed(found).ranks) == ranks
    if placed(found).strategy is Strategy.PIPELINE:
        assert sum(counts(found).values()) == of.layer_count
    assert bool(placed(found).slow) == ("100.64" in str(placed(found).ranks))


def test_the_lan_of_six_is_found_in_a_vpn_of_twelve() -> None:
    found = placed(plan(*ROWS["six over a LAN, although a VPN joins all"][:2]))
    assert set(found.nodes) == set("abcdef")


def test_layers_that_are_not_alike_are_split_over_many() -> None:
    of = replace(model(60), layer_bytes=tuple((8 + 4 * (place % 3)) * GIB for place in range(60)))
    found = plan(situation(PLAIN, lan(TWELVE)), of)
    assert sum(counts(found).values()) == 60
    assert all(rank.left_bytes >= 0 for rank in placed(found).ranks)


# Why many nodes are refused.
REFUSED: dict[str, tuple[Situation, Policy | None, Verdict, Reason, str]] = {
    "no links at all": (
        situation(PLAIN),
        None,
        Verdict.WAITING,
        Reason.LINK,
        "no 3 nodes hang together by links that meet their minimums: no ring passes all of them: a → b: no address",
    ),
    "no rails where they are asked for": (
        situation([node(name) for name in TWELVE], lan(TWELVE)),
        Policy(backend=Backend.JACCL),
        Verdict.WAITING,
        Reason.RAIL,
        "no 3 nodes hang together by rails: no rail between a and b",
    ),
    "a VPN where it must be fast": (
        situation(PLAIN, vpn(TWELVE)),
        Policy(requires_fast=True),
        Verdict.WAITING,
        Reason.LINK,
        "no ring passes all of them: a → b: 100.64.0.2 (VPN",
    ),
    "RDMA is off on all": (
        situation([node(name, rdma=RdmaState.DISABLED) for name in TWELVE], lan(TWELVE), [rail("a", "b")]),
        Policy(backend=Backend.JACCL),
        Verdict.IMPOSSIBLE,
        Reason.BACKEND,
        "RDMA is off on a",
    ),
}


@pytest.mark.parametrize(("here", "policy", "verdict", "reason", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused(here: Situation, policy: Policy | None, verdict: Verdict, reason: Reason, says: str) -> None:
    found = plan(here, model(200), policy)
    assert found.verdict is verdict
    assert any(one.reason is reason and says in one.text for one in found.rejected)


def test_why_it_fell_back_is_said_of_the_chosen_ones_too() -> None:
    found = placed(plan(situation([node(name) for name in TWELVE], lan(TWELVE)), model(120)))
    assert "not tensor over jaccl: no rail between a and b" in found.reasons


def test_parts_are_those_in_which_each_reaches_each() -> None:
    costs = drawn.costs([(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 3), (5, 0)])
    assert parts(Joined(6, costs)) == [(0, 1, 2), (3, 4)]


LAWS = settings(max_examples=500 if os.environ.get("PROVE") else 50, deadline=None)


@LAWS
@given(st.integers(0, 2**48))
def test_what_is_added_takes_no_placement_from_many(seed: int) -> None:
    """Where all reach all, as on a LAN: of stranger networks with many nodes only some sets are looked at."""
    here, of, policy = drawn.scene(seed, count_max=11)
    names = [str(one.id) for one in here.nodes]
    added = lan(names, 0.7, Medium.ETHERNET)
    here = replace(here, graph=replace(here.graph, links=(*here.graph.links, *added)))
    before = plan(here, of, policy)
    if before.placement is not None:
        richer = drawn.richer(seed, here)
        # A newcomer is on that LAN too.
        ways = [
            link(str(one.id), str(other.id), f"192.168.9.{drawn.NAMES.index(str(other.id))}", Medium.ETHERNET)
            for one, other in permutations(richer.nodes, 2)
            if not {one.id, other.id} <= set(names)
        ]
        after = plan(replace(richer, graph=replace(richer.graph, links=(*richer.graph.links, *ways))), of, policy)
        assert after.verdict is Verdict.PLACED, (before.why, after.why)


@LAWS
@given(st.integers(0, 2**48))
def test_the_order_of_many_does_not_matter(seed: int) -> None:
    here, of, policy = drawn.scene(seed, count_max=11)
    assert plan(drawn.shuffled(seed, here), of, policy) == plan(here, of, policy)
