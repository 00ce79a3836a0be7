"""What placement gets wrong elsewhere, one row each: what is asked, and where it goes here."""

from dataclasses import dataclass, fields, replace

import pytest

from scheduler.placing.scenes import (
    CANNOT,
    GIB,
    LINUX,
    MAC,
    cable,
    circle_of_rails,
    counts,
    dials,
    lan,
    link,
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
from thunderline.cluster.links import Mark
from thunderline.cluster.machine_facts import RdmaState
from thunderline.cluster.media import Medium
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import Model, Policy, Situation, Strategy, Verdict


@dataclass(frozen=True)
class Row:
    here: Situation
    wants: Model
    expected: str
    policy: Policy | None = None


GB = 10**9
RAILS_OF_THREE = [rail("a", "b", ("en3", "en3")), rail("a", "c", ("en4", "en3")), rail("b", "c", ("en4", "en4"))]
ROWS: dict[str, Row] = {
    "a larger set is tried when a later condition rules out the smallest": Row(
        # Any two have the memory; rails join only c, d, e.
        situation(
            nodes("abcde"),
            lan("abcde"),
            [rail("c", "d"), rail("d", "e", ("en4", "en4")), rail("c", "e", ("en6", "en6"))],
        ),
        model(80, head_count=9, kv_head_count=3),
        "tensor jaccl c d e",
        Policy(strategy=Strategy.TENSOR),
    ),
    "a set without the backend does not hide one of the same size that has it": Row(
        situation([node("a", backends=LINUX), node("b", backends=LINUX), *nodes("cd")], lan("abcd"), [rail("c", "d")]),
        model(120),
        "tensor jaccl c d",
    ),
    "a node that has not told its memory takes nobody else out": Row(
        situation([replace(node("a"), memory_bytes=None), *nodes("bc", backends=LINUX)], lan("abc")),
        model(120),
        "pipeline ring b c",
    ),
    "KV and activations count beside the weights": Row(
        # 90 GiB of weights would go into 96; with a tenth more for activations they do not.
        situation(nodes("ab", backends=LINUX), lan("ab")),
        model(90),
        "pipeline ring a b",
    ),
    "the KV that is asked for counts": Row(
        situation(nodes("ab", backends=LINUX), lan("ab")),
        model(60),
        "pipeline ring a b",
        # 240 KiB a token: 60 GiB and 6 of activations leave room for 130 thousand.
        Policy(kv_budget_tokens=200_000),
    ),
    "each node of a tensor group has the memory for its part": Row(
        # The sum would do; 60 GiB do not go into 48.
        situation([node("a", 512), node("b", 48)], lan("ab"), [rail("a", "b")]),
        model(120),
        "pipeline jaccl a b",
        Policy(nodes=frozenset({NodeId("a"), NodeId("b")})),
    ),
    "a pinned strategy is not silently another one on one node": Row(
        situation(nodes("a"), ()), model(20), "IMPOSSIBLE", Policy(strategy=Strategy.TENSOR)
    ),
    "what others hold is not promised again": Row(
        situation([node("a", reserved_bytes=60 * GIB), node("b")], lan("ab")), model(60), "whole b"
    ),
    "cables come before a LAN": Row(
        situation(nodes("abcd", backends=LINUX), [*lan("abcd"), *cable("c", "d")]), model(120), "pipeline ring c d"
    ),
    "a faster rail comes before a slower one": Row(
        situation(nodes("abcd"), lan("abcd"), [rail("a", "b", gbps=40), rail("c", "d", gbps=80)]),
        model(120),
        "tensor jaccl c d",
    ),
    "nodes that read memory faster come first": Row(
        situation(
            [
                *nodes("ab", backends=LINUX, memory_bytes_per_s=273e9),
                *nodes("cd", backends=LINUX, memory_bytes_per_s=819 * GB),
            ],
            lan("abcd"),
        ),
        model(120),
        "pipeline ring c d",
    ),
    "a mesh is no condition: rails around a ring do": Row(
        situation(
            nodes("abcd"),
            lan("abcd"),
            circle_of_rails("abcd"),
        ),
        model(300),
        "tensor jaccl a b c d",
    ),
    "without RDMA it is a ring, not a crash": Row(
        situation(nodes("ab", rdma=RdmaState.UNAVAILABLE), lan("ab"), [rail("a", "b")]), model(120), "pipeline ring a b"
    ),
    "an architecture that cannot be split so is split otherwise": Row(
        situation(nodes("ab"), lan("ab"), [rail("a", "b")]), model(120, tensor=CANNOT), "pipeline jaccl a b"
    ),
    "the listener is a node that the others can dial": Row(
        # Nobody can dial a; rails join all three.
        situation(
            nodes("abc", takes_side_channel=False),
            [one for one in lan("abc") if one.to_node != "a"],
            RAILS_OF_THREE,
        ),
        model(180, head_count=48, kv_head_count=12),
        "tensor jaccl b c a",
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_here(row: Row) -> None:
    found = plan(row.here, row.wants, row.policy)
    assert where(found) == row.expected, found.why
    # Whatever comes first in the lists.
    here = row.here
    graph = here.graph
    graph = replace(graph, links=graph.links[::-1], tried=graph.tried[::-1], rails=graph.rails[::-1])
    assert plan(replace(here, nodes=here.nodes[::-1], graph=graph), row.wants, row.policy) == found


def test_a_split_by_memory_that_does_not_fit_is_mended() -> None:
    """By share the large layers at the end would go to a node that cannot hold them."""
    sizes = (*(GIB,) * 20, *(4 * GIB,) * 5)
    uneven = replace(model(25), layer_bytes=sizes, layer_kv_bytes=())
    found = plan(situation([node("a", 16), node("b", 32)], lan("ab")), uneven, Policy(strategy=Strategy.PIPELINE))
    assert sum(counts(found).values()) == 25
    assert all(rank.left_bytes >= 0 for rank in placed(found).ranks)


def test_a_vpn_is_never_chosen_by_the_order_in_which_it_was_found() -> None:
    links = [*lan("ab"), *vpn("ab", 0.1)]
    for each in (links, links[::-1]):
        found = plan(situation(nodes("ab", backends=LINUX), each), model(120))
        assert dials(found) == ["a→b 192.168.1.2", "b→a 192.168.1.1"]


def test_no_ipv6_address_is_ever_dialled() -> None:
    six = [link(i, j, f"fd00::{k}", Medium.THUNDERBOLT, 0.1) for i, j, k in (("a", "b", 2), ("b", "a", 1))]
    found = plan(situation(nodes("ab", backends=LINUX), [*six, *lan("ab")]), model(120))
    assert dials(found) == ["a→b 192.168.1.2", "b→a 192.168.1.1"]
    alone = plan(situation(nodes("ab", backends=LINUX), six), model(120))
    assert alone.verdict is Verdict.WAITING
    assert "IPv6, which MLX does not know" in told(alone, "ab")


def test_an_address_that_the_card_does_not_tell_is_never_dialled() -> None:
    """Who says a node's name to an echo may be anybody."""
    marked = [replace(one, marks=frozenset({Mark.UNADVERTISED})) for one in cable("a", "b")]
    found = plan(situation(nodes("ab", backends=LINUX), [*marked, *lan("ab")]), model(120))
    assert dials(found) == ["a→b 192.168.1.2", "b→a 192.168.1.1"]
    alone = plan(situation(nodes("ab", backends=LINUX), marked), model(120))
    assert alone.verdict is Verdict.WAITING
    assert "is not on the card of its node" in told(alone, "ab")


def test_both_directions_of_a_pair_name_the_same_cable() -> None:
    rails = [rail("a", "b", (f"en{k}", f"en{9 - k}")) for k in (3, 4, 5)]
    found = placed(plan(situation(nodes("ab"), lan("ab"), rails), model(120)))
    cables = {(f"rdma_en{k}", f"rdma_en{9 - k}") for k in (3, 4, 5)}
    assert set(zip(found.devices[0][1], found.devices[1][0], strict=True)) == cables


def test_two_placements_one_after_the_other_share_what_there_is() -> None:
    members = nodes("abc", backends=LINUX)
    first = placed(plan(situation(members, lan("abc")), model(60)))
    held = {rank.node: rank.needed_bytes for rank in first.ranks}
    members = [replace(one, reserved_bytes=held.get(one.id, 0)) for one in members]
    second = placed(plan(situation(members, lan("abc")), model(60)))
    assert not set(first.nodes) & set(second.nodes)


def test_a_mesh_of_all_is_no_exponential_matter() -> None:
    """1,112,073 cycles of ten nodes are nobody's business."""
    names = "abcdefghij"
    found = plan(situation(nodes(names), lan(names), mesh_of_rails(names)), model(500))
    assert placed(found).strategy is Strategy.PIPELINE


def test_no_decision_depends_on_a_name() -> None:
    assert not {one.name for one in fields(Model)} & {"name", "id", "architecture", "repository"}


def test_a_hub_device_that_leads_to_two_places_is_used_for_one() -> None:
    """b and c are behind one port of a: a mesh of the three would need it twice."""
    rails = [rail("a", "b", ("en3", "en3")), rail("a", "c", ("en3", "en3")), rail("b", "c", ("en4", "en4"))]
    wants = model(180, head_count=48, kv_head_count=12)
    found = plan(situation(nodes("abc", backends=MAC), lan("abc"), rails), wants)
    assert where(found) == "pipeline ring a b c"
    assert "leads to rank" in told(found, "abc")
