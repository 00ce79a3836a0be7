"""The formula of the estimate, by hand."""

import pytest

from scheduler.placing.scenes import GIB, LINUX, cable, lan, model, node, nodes, placed, rail, situation
from thunderline.cluster import NodeId
from thunderline.scheduler.placing.estimate import RAIL_HOP_S
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import Placement, Policy, Strategy

# 1 GiB in a hundredth of a second.
FAST = 100 * GIB


def estimated(found: Placement) -> tuple[float, float]:
    assert found.estimate is not None
    return found.estimate.memory_s, found.estimate.links_s


def test_one_node_reads_all_of_it() -> None:
    found = placed(plan(situation([node("a", memory_bytes_per_s=FAST)]), model(20, head_bytes=GIB)))
    assert estimated(found) == pytest.approx((0.21, 0.0))
    assert found.estimate is not None and found.estimate.tokens_per_s == pytest.approx(1 / 0.21)


def test_of_many_experts_the_chosen_ones_are_read() -> None:
    wants = model(20, layer_read_bytes=(GIB // 4,) * 20)
    assert estimated(placed(plan(situation([node("a", memory_bytes_per_s=FAST)]), wants))) == pytest.approx((0.05, 0.0))


def test_a_pipeline_reads_one_after_the_other_and_hands_on() -> None:
    members = [
        node("a", backends=LINUX, memory_bytes_per_s=FAST),
        node("b", backends=LINUX, memory_bytes_per_s=2 * FAST),
    ]
    found = placed(plan(situation(members, lan("ab", 1.0)), model(120)))
    layers = {rank.node: rank.end_layer - rank.first_layer for rank in found.ranks}
    memory_s = layers[NodeId("a")] / 100 + layers[NodeId("b")] / 200
    # One hop of 16 KiB at 0.8 Gb/s, and two of nothing around the ring of two.
    hop_s = 0.0005 + 16_384 / 1e8
    assert estimated(found) == pytest.approx((memory_s, hop_s + 2 * 0.0005))


def test_a_tensor_group_over_rails_reads_at_once_and_adds_up_twice_a_layer() -> None:
    found = placed(
        plan(situation(nodes("ab", memory_bytes_per_s=FAST), cable("a", "b"), [rail("a", "b", gbps=80)]), model(120))
    )
    assert found.strategy is Strategy.TENSOR
    assert estimated(found) == pytest.approx((0.6, 240 * (RAIL_HOP_S + 16_384 / 1e10) + RAIL_HOP_S))


def test_a_tensor_group_around_a_ring_takes_more_hops() -> None:
    here = situation(nodes("ab", backends=LINUX, memory_bytes_per_s=FAST), lan("ab", 1.0))
    found = placed(plan(here, model(120), Policy(strategy=Strategy.TENSOR)))
    assert estimated(found) == pytest.approx((0.6, 240 * 2 * (0.0005 + 8_192 / 1e8) + 2 * 0.0005))


def test_nothing_is_guessed_of_a_node_whose_bandwidth_is_not_known() -> None:
    members = [node("a", memory_bytes_per_s=FAST), node("b")]
    assert placed(plan(situation(members, lan("ab")), model(120))).estimate is None


def test_over_rails_it_is_faster_than_over_a_lan() -> None:
    links = [*cable("a", "b"), *lan("ab")]
    here = situation(nodes("ab", memory_bytes_per_s=FAST), links, [rail("a", "b")])
    speeds = []
    for policy in (Policy(), Policy(strategy=Strategy.PIPELINE), Policy(strategy=Strategy.TENSOR)):
        found = placed(plan(here, model(120), policy)).estimate
        assert found is not None
        speeds.append(found.tokens_per_s)
    assert speeds[0] == speeds[2] > speeds[1]
