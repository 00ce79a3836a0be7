"""What holds of every placement, over drawn clusters."""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise, permutations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.placing import drawn
from scheduler.placing.scenes import CAN, CANNOT, GIB, LINUX, cable, node, vpn
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Graph
from thunderline.cluster.links import LinkState, in_order
from thunderline.cluster.machine_facts import RdmaState
from thunderline.cluster.media import Medium
from thunderline.scheduler.placing.dialling import below
from thunderline.scheduler.placing.hostfiles import (
    launch_hostfile,
    matrix_problems,
    read_launch_hostfile,
    ring_hosts,
    ring_problems,
)
from thunderline.scheduler.placing.memory import Needs, least_tokens
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import (
    MINIMUMS,
    Backend,
    Model,
    Node,
    Plan,
    Policy,
    Situation,
    Strategy,
    Verdict,
)

EXAMPLES = 2000 if os.environ.get("PROVE") else 200
LAWS = settings(max_examples=EXAMPLES, deadline=None)
# So many values drawn one by one would take longer than the plans.
seeds = st.integers(0, 2**48)


@LAWS
@given(seeds)
def test_every_layer_has_one_rank_and_every_rank_its_memory(seed: int) -> None:
    here, of, policy = drawn.scene(seed)
    found = plan(here, of, policy).placement
    if found is None:
        return
    by_id = {one.id: one for one in here.nodes}
    needs = Needs(of, least_tokens(of, policy))
    assert len(set(found.nodes)) == len(found.nodes) >= policy.node_count_min
    for rank in found.ranks:
        whole = needs.tensor(len(found.ranks)) if found.strategy is Strategy.TENSOR else None
        need = whole or needs.part(rank.first_layer, rank.end_layer)
        assert rank.needed_bytes == need.of(found.kv_budget_tokens) <= by_id[rank.node].free_bytes
        assert rank.left_bytes == by_id[rank.node].free_bytes - rank.needed_bytes
        assert rank.end_layer > rank.first_layer
    if found.strategy is Strategy.TENSOR:
        assert {(rank.first_layer, rank.end_layer) for rank in found.ranks} == {(0, of.layer_count)}
        assert of.head_count % len(found.ranks) == of.kv_head_count % len(found.ranks) == 0
    else:
        # The first layers on the last rank.
        borders = [rank.end_layer for rank in found.ranks] + [found.ranks[-1].first_layer]
        assert borders[0] == of.layer_count and borders[-1] == 0
        assert all(rank.first_layer == end for rank, end in zip(found.ranks, borders[1:], strict=True))
    assert found.kv_budget_tokens >= least_tokens(of, policy)


@LAWS
@given(seeds)
def test_the_order_of_what_comes_in_does_not_matter(seed: int) -> None:
    here, of, policy = drawn.scene(seed)
    assert plan(drawn.shuffled(seed, here), of, policy) == plan(here, of, policy)


@LAWS
@given(seeds)
def test_what_is_dialled_is_the_first_link_that_meets_its_minimums(seed: int) -> None:
    here, of, policy = drawn.scene(seed)
    found = plan(here, of, policy).placement
    if found is None or found.backend is None:
        return
    for number, rank in enumerate(found.ranks):
        for dial in rank.dials:
            one = dial.link
            if one is None:
                assert dial.rails
                continue
            to_node = found.ranks[dial.to_rank].node
            assert (one.from_node, one.to_node) == (rank.node, to_node)
            assert one.state is not LinkState.DOWN
            if one.state is LinkState.DEGRADED:
                assert any(one.address in text for text in found.degraded)
            if found.backend is not Backend.RING:
                assert one.address == found.coordinator and dial.to_rank == 0
                continue
            assert dial.to_rank == (number + 1) % len(found.ranks)
            ways = in_order(here.graph.between(rank.node, to_node))
            fine = [each for each in ways if not below(each, MINIMUMS, None)]
            assert one == (fine or ways)[0]
            assert bool(dial.below) == (not fine)
            assert not dial.below or (any(one.address in text for text in found.slow) and not policy.requires_fast)
            assert not policy.requires_fast or one.medium in (Medium.THUNDERBOLT, Medium.ETHERNET)


@LAWS
@given(seeds)
def test_a_hostfile_that_was_written_comes_back(seed: int) -> None:
    here, of, policy = drawn.scene(seed)
    found = plan(here, of, policy).placement
    if found is None:
        return
    written = launch_hostfile(found, {})
    again = plan(here, of, replace(policy, strategy=found.strategy, hostfile=read_launch_hostfile(written))).placement
    assert again is not None
    assert (again.nodes, again.strategy, again.backend) == (found.nodes, found.strategy, found.backend)
    assert launch_hostfile(again, {}) == written


@LAWS
@given(seeds)
def test_what_mlx_gets_is_what_mlx_takes(seed: int) -> None:
    here, of, policy = drawn.scene(seed)
    found = plan(here, of, policy).placement
    if found is None or found.backend is None:
        return
    by_id = {one.id: one for one in here.nodes}
    assert all(found.backend in (by_id[node].backends or ()) for node in found.nodes)
    if found.backend is Backend.RING:
        assert ring_problems(ring_hosts(found, [[5000 + rank] for rank in range(len(found.ranks))])) == []
    if found.backend is Backend.JACCL:
        assert matrix_problems(found.devices, found.is_rail_ring) == []
        assert all(by_id[node].rdma is RdmaState.ENABLED for node in found.nodes)
    if found.backend is Backend.NCCL:
        assert found.strategy is Strategy.TENSOR and found.coordinator


@LAWS
@given(seeds)
def test_more_memory_another_link_or_node_takes_no_placement_away(seed: int) -> None:
    here, of, policy = drawn.scene(seed)
    before = plan(here, of, policy)
    if before.placement is not None:
        after = plan(drawn.richer(seed, here), of, policy)
        assert after.verdict is Verdict.PLACED, (before.why, after.why)


@LAWS
@given(seeds)
def test_nothing_that_is_added_makes_impossible_what_was_not(seed: int) -> None:
    here, of, policy = drawn.scene(seed)
    if plan(here, of, policy).verdict is not Verdict.IMPOSSIBLE:
        assert plan(drawn.richer(seed, here), of, policy).verdict is not Verdict.IMPOSSIBLE


@LAWS
@given(seeds)
def test_memory_is_never_promised_twice(seed: int) -> None:
    here, _, policy = drawn.scene(seed)
    held = {one.id: one.reserved_bytes for one in here.nodes}
    for number in range(4):
        _, of, _ = drawn.scene(seed + number)
        now = replace(here, nodes=tuple(replace(one, reserved_bytes=held[one.id]) for one in here.nodes))
        if found := plan(now, of, policy).placement:
            for rank in found.ranks:
                held[rank.node] += rank.needed_bytes
    assert all(held[one.id] <= (one.memory_bytes or 0) for one in here.nodes)


@LAWS
@given(st.integers(2, 4), st.integers(3, 5), st.sampled_from([0.1, 5.0, 60.0]))
def test_few_over_a_vpn_never_come_before_more_over_cables(few: int, more: int, rtt_ms: float) -> None:
    assume(few < more)
    far = [f"n{number}" for number in range(20, 20 + few)]
    near = [f"n{number}" for number in range(1, 1 + more)]
    large = [node(name, 100 / few, backends=LINUX) for name in far]
    small = [node(name, 100 / more, backends=LINUX) for name in near]
    cables = [one for pair in pairwise([*near, near[0]]) for one in cable(*pair)]
    here = Situation((*large, *small), Graph(links=(*cables, *vpn([*far, *near], rtt_ms))))
    of = Model((GIB,) * 60, pipeline=CAN, tensor=CANNOT)
    found = plan(here, of, Policy(node_count_min=2)).placement
    assert found is not None and not found.slow
    assert set(found.nodes) <= set(near)


def named(found: Plan) -> set[tuple[NodeId, ...]]:
    return {one.nodes for one in found.rejected}


@LAWS
@given(seeds)
def test_a_refusal_names_every_set_or_what_rules_out_all_of_them(seed: int) -> None:
    here, of, policy = drawn.scene(seed)
    found = plan(here, of, policy)
    if found.placement is not None:
        return
    assert found.why and all(one.text for one in found.rejected)
    assert bool(found.waits) == (found.verdict is Verdict.WAITING)
    ids = sorted(one.id for one in here.nodes)
    least = max(1, policy.node_count_min)
    takes_one = policy.strategy is None and policy.backend is None and least == 1
    is_ruled_out = any(not one.nodes for one in found.rejected)
    for size in range(least if takes_one else max(2, least), len(ids) + 1):
        for members in combinations(ids, size):
            assert members in named(found) or (size > 1 and is_ruled_out)


@LAWS
@given(seeds, st.sampled_from([0, 50_000]))
def test_a_pipeline_over_the_ring_is_found_whenever_there_is_one(seed: int, tokens: int) -> None:
    """Against every order and every split of up to three nodes."""
    here, of, _ = drawn.scene(seed, count_max=3)
    policy = Policy(kv_budget_tokens=tokens, strategy=Strategy.PIPELINE, backend=Backend.RING)
    needs = Needs(of, least_tokens(of, policy))
    able = [one for one in here.nodes if Backend.RING in (one.backends or ())]
    joined = {(one.from_node, one.to_node) for one in here.graph.links if one.state is not LinkState.DOWN}

    def fits(order: Sequence[Node]) -> bool:
        if not all((one.id, other.id) in joined for one, other in pairwise([*order, order[0]])):
            return False
        borders = combinations(range(1, of.layer_count), len(order) - 1)
        spans = [list(pairwise((0, *one, of.layer_count)))[::-1] for one in borders]
        return any(
            all(needs.bytes(*span) <= one.free_bytes for span, one in zip(each, order, strict=True)) for each in spans
        )

    orders = [order for size in range(2, len(able) + 1) for order in permutations(able, size)]
    exists = of.pipeline.can is True and any(fits(order) for order in orders)
    assert (plan(here, of, policy).verdict is Verdict.PLACED) == exists
