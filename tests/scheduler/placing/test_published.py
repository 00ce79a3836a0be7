"""Placement situations that other planners publish, which hold here too."""

from collections.abc import Sequence

import pytest

from scheduler.placing.scenes import (
    CUDA,
    GIB,
    LINUX,
    cable,
    cable_way,
    circle_of_rails,
    counts,
    lan,
    mesh_of_rails,
    model,
    node,
    nodes,
    placed,
    rail,
    situation,
    told,
    where,
)
from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import RdmaState
from thunderline.scheduler.placing.memory import ACTIVATION_BYTES_MIN, Needs
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.splitting import shares, split
from thunderline.scheduler.placing.values import Backend, Files, Model, Policy, Strategy, Verdict

ABSENT = Files.ABSENT

SHARES: dict[str, tuple[int, Sequence[int], list[int]]] = {
    "12 layers over 500, 500 and 1000 MB": (12, (500, 500, 1000), [3, 3, 6]),
    "12 layers over 312, 468 and 1092 MB": (12, (312, 468, 1092), [2, 3, 7]),
    "20 layers over 900, 50 and 50 MB": (20, (900, 50, 50), [18, 1, 1]),
    "a node too small for its share has one": (10, (1000, 1, 1), [8, 1, 1]),
    "the largest remainder gets what is left": (10, (35, 33, 32), [4, 3, 3]),
    "of equal remainders the first": (3, (1, 1), [2, 1]),
}


@pytest.mark.parametrize(("layers", "memory", "expected"), SHARES.values(), ids=SHARES.keys())
def test_layers_go_by_memory(layers: int, memory: Sequence[int], expected: list[int]) -> None:
    assert shares(layers, memory) == expected
    # Of a model that leaves room nothing has to be mended; rank 0 has the last layers.
    small = Needs(Model((GIB,) * layers), 0)
    spans = split(small, [one * 4 * GIB for one in memory])
    if min(memory) > 1:
        assert spans is not None and [end - first for first, end in spans] == expected
        assert spans[0][1] == layers and spans[-1][0] == 0


# Four layers of 1 GiB and activations: what two ranks of two layers take exactly.
EXACT = Model((GIB,) * 4, pipeline=model().pipeline)
EXACT_BYTES = 2 * GIB + ACTIVATION_BYTES_MIN


def test_what_fits_exactly_is_placed() -> None:
    members = [node(name, EXACT_BYTES / GIB, backends=LINUX) for name in "ab"]
    found = plan(situation(members, lan("ab")), EXACT)
    assert counts(found) == {"a": 2, "b": 2}
    assert [rank.left_bytes for rank in placed(found).ranks] == [0, 0]


def test_one_byte_too_much_is_refused_with_the_figures() -> None:
    members = [node("a", EXACT_BYTES / GIB, backends=LINUX), node("b", (EXACT_BYTES - 1) / GIB, backends=LINUX)]
    found = plan(situation(members, lan("ab")), EXACT)
    assert found.verdict is Verdict.IMPOSSIBLE
    assert "needs 4.50 GiB" in found.why
    assert told(found, "a") == "needs 4.40 GiB, has 2.25 GiB free of 2.25 GiB"
    assert "room for 3 of 4 layers" in told(found, "ab")


def test_a_daisy_chain_prefers_its_end_pairs() -> None:
    chain = [*cable("a", "b"), *cable("b", "c"), *cable("c", "d")]
    found = plan(situation(nodes("abcd", backends=LINUX), chain), model(120))
    assert sorted(placed(found).nodes) in (["a", "b"], ["c", "d"])
    # The middle pair would do as well.
    assert told(found, "bc") == "a and b before it, by fewer neighbours taken from the rest"


def test_the_rdma_matrix_of_three_nodes() -> None:
    rails = [rail("a", "b", ("en3", "en3")), rail("a", "c", ("en4", "en3")), rail("b", "c", ("en4", "en4"))]
    found = plan(situation(nodes("abc"), lan("abc"), rails), model(180, head_count=48, kv_head_count=12))
    assert where(found) == "tensor jaccl a b c"
    assert placed(found).devices == (
        ((), ("rdma_en3",), ("rdma_en4",)),
        (("rdma_en3",), (), ("rdma_en4",)),
        (("rdma_en3",), ("rdma_en4",), ()),
    )


def test_a_node_with_rdma_off_is_in_no_group_over_rails_and_it_is_said() -> None:
    members = [node("a"), node("b", rdma=RdmaState.DISABLED)]
    found = plan(situation(members, lan("ab"), [rail("a", "b")]), model(120))
    assert where(found) == "pipeline ring a b"
    assert "RDMA is off on b" in "".join(placed(found).reasons)


def test_two_crossed_cables_are_named_at_the_same_place_from_both_sides() -> None:
    rails = [rail("a", "b", ("en3", "en4")), rail("a", "b", ("en4", "en3"))]
    for order in (rails, rails[::-1]):
        found = placed(plan(situation(nodes("ab"), lan("ab"), order), model(120)))
        pairs = set(zip(found.devices[0][1], found.devices[1][0], strict=True))
        assert pairs == {("rdma_en3", "rdma_en4"), ("rdma_en4", "rdma_en3")}


# What the nodes' probes offer, what is asked for: where it goes.
BACKENDS: dict[str, tuple[list[frozenset[Backend]], Policy, str]] = {
    "tensor over NCCL where both have it": ([CUDA, CUDA], Policy(), "tensor nccl a b"),
    "a pipeline over the ring where one has no NCCL": ([CUDA, LINUX], Policy(), "pipeline ring a b"),
    "no pipeline over NCCL, which cannot send": (
        [CUDA, CUDA],
        Policy(strategy=Strategy.PIPELINE),
        "pipeline ring a b",
    ),
    "NCCL is asked for where one lacks it": ([CUDA, LINUX], Policy(backend=Backend.NCCL), "IMPOSSIBLE"),
    "a pipeline over NCCL is asked for": (
        [CUDA, CUDA],
        Policy(backend=Backend.NCCL, strategy=Strategy.PIPELINE),
        "IMPOSSIBLE",
    ),
    "a tensor group over the ring is asked for": (
        [LINUX, LINUX],
        Policy(strategy=Strategy.TENSOR),
        "tensor ring a b",
    ),
    "JACCL is asked for where nobody has it": ([LINUX, LINUX], Policy(backend=Backend.JACCL), "IMPOSSIBLE"),
    "no backend at all": ([frozenset(), frozenset()], Policy(), "IMPOSSIBLE"),
}


@pytest.mark.parametrize(("offered", "policy", "expected"), BACKENDS.values(), ids=BACKENDS.keys())
def test_backends_are_those_that_the_nodes_own_probes_offer(
    offered: list[frozenset[Backend]], policy: Policy, expected: str
) -> None:
    members = [node(name, backends=one) for name, one in zip("ab", offered, strict=True)]
    assert where(plan(situation(members, lan("ab")), model(120), policy)) == expected


def test_the_one_that_most_others_can_dial_is_rank_0() -> None:
    """c is dialled by both, a and b by one each: the ring is a→b→c→a."""
    links = [*cable_way("a", "b"), *cable_way("b", "c"), *cable_way("c", "a"), *cable_way("a", "c")]
    found = plan(situation(nodes("abc", backends=LINUX), links), model(180))
    assert where(found) == "pipeline ring c a b"
    assert "rank 0 is c: 2 of 2 others can dial it" in placed(found).reasons


def test_several_addresses_of_one_node_count_once() -> None:
    """a dials b by two addresses; a itself is dialled by two nodes."""
    ways = [*cable_way("a", "b"), *lan("ab")[:1], *cable_way("b", "c"), *cable_way("c", "a"), *cable_way("b", "a")]
    found = plan(situation(nodes("abc", backends=LINUX), ways), model(180))
    assert where(found) == "pipeline ring a b c"


def test_eight_nodes_make_a_mesh_and_four_cables_a_ring() -> None:
    eight = plan(situation(nodes("abcdefgh"), lan("abcdefgh"), mesh_of_rails("abcdefgh")), model(600))
    assert placed(eight).strategy is Strategy.TENSOR and not placed(eight).is_rail_ring
    around = circle_of_rails("abcd")
    found = placed(plan(situation(nodes("abcd"), lan("abcd"), around), model(260)))
    assert (found.strategy, found.backend, found.is_rail_ring) == (Strategy.TENSOR, Backend.JACCL, True)
    assert [bool(cell) for cell in found.devices[0]] == [False, True, False, True]


def test_a_ring_of_rails_uses_as_many_cables_between_all_neighbours() -> None:
    around = circle_of_rails("abcd")
    second = circle_of_rails("abcd", 13)[:3]
    found = placed(plan(situation(nodes("abcd"), lan("abcd"), [*around, *second]), model(260)))
    assert {len(cell) for row in found.devices for cell in row} == {0, 1}
    last = rail("a", "d", ("en16", "en16"))
    found = placed(plan(situation(nodes("abcd"), lan("abcd"), [*around, *second, last]), model(260)))
    assert {len(cell) for row in found.devices for cell in row} == {0, 2}


def test_nodes_that_hold_the_files_are_preferred() -> None:
    members = [node("a", files=ABSENT, backends=LINUX), *nodes("bc", backends=LINUX)]
    found = plan(situation(members, lan("abc")), model(120))
    assert sorted(placed(found).nodes) == ["b", "c"]
    assert "more nodes that hold the files" in told(found, "ab")
    assert where(plan(situation(members, lan("abc")), model(20))) == "whole b"


def test_what_must_be_fetched_is_said() -> None:
    members = [node("a", files=ABSENT, backends=LINUX), node("b", backends=LINUX)]
    found = placed(plan(situation(members, lan("ab")), model(120)))
    assert [rank.must_fetch for rank in found.ranks] == [True, False]
    assert "the files must be fetched on a" in found.reasons


def test_a_tensor_group_has_heads_for_all() -> None:
    found = placed(plan(situation(nodes("ab"), lan("ab"), [rail("a", "b")]), model(120)))
    assert [(rank.head_count, rank.first_layer, rank.end_layer) for rank in found.ranks] == [(32, 0, 120)] * 2


def test_pins_are_kept() -> None:
    """--nodes, --min-nodes, and a pin that one node cannot satisfy."""
    here = situation(nodes("abc", backends=LINUX), lan("abc"))
    pair = frozenset({NodeId("b"), NodeId("c")})
    assert where(plan(here, model(20), Policy(nodes=pair))) == "pipeline ring b c"
    assert where(plan(here, model(20), Policy(nodes=frozenset({NodeId("c")})))) == "whole c"
    assert where(plan(here, model(20), Policy(node_count_min=3))) == "pipeline ring a b c"
    assert where(plan(here, model(20), Policy(strategy=Strategy.PIPELINE))) == "pipeline ring a b"
    assert where(plan(here, model(20), Policy(strategy=Strategy.WHOLE))) == "whole a"
