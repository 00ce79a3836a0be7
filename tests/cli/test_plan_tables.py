"""What `plan` makes of an answer, without anybody who gives one."""

import pytest

from thunderline.cli import plan_tables
from thunderline.v1 import cluster_pb2, planning_pb2, topology_pb2

A, B = "aaaaaaaa-1111", "bbbbbbbb-2222"
NAMES = {A: "studio", B: "mini"}
GIB = 2**30
PIPELINE, TENSOR = planning_pb2.SPLIT_STRATEGY_PIPELINE, planning_pb2.SPLIT_STRATEGY_TENSOR
WHOLE = planning_pb2.SPLIT_STRATEGY_WHOLE
RING, JACCL = planning_pb2.DISTRIBUTED_BACKEND_RING, planning_pb2.DISTRIBUTED_BACKEND_JACCL
FACTS = cluster_pb2.ModelFacts(
    architecture="llama",
    layer_count=32,
    weight_bytes=16 * GIB,
    kv_bytes_per_token=131_072,
    head_count=64,
    quantization="4 bits, groups of 64",
)


def link(from_node: str, to_node: str, address: str) -> topology_pb2.Link:
    return topology_pb2.Link(
        from_node_id=from_node,
        to_node_id=to_node,
        peer_address=address,
        local_interface="en5",
        peer_interface="en4",
        medium=cluster_pb2.MEDIUM_THUNDERBOLT,
        state=topology_pb2.LINK_STATE_UP,
        rtt_us=402,
    )


def rank(number: int, node: str, span: tuple[int, int], *dials: planning_pb2.PlannedDial) -> planning_pb2.PlannedRank:
    return planning_pb2.PlannedRank(
        rank=number,
        node_id=node,
        hostname=NAMES[node],
        first_layer=span[0],
        end_layer=span[1],
        head_count=32,
        needed_bytes=9 * GIB,
        left_bytes=GIB // 2,
        dials=dials,
    )


def dial(to_rank: int, from_node: str, to_node: str, address: str) -> planning_pb2.PlannedDial:
    return planning_pb2.PlannedDial(to_rank=to_rank, link=link(from_node, to_node, address))


def rail(device: str, peer: str, gbps: int = 80) -> topology_pb2.Rail:
    ends = [topology_pb2.RailEnd(node_id=node, device=name) for node, name in ((A, device), (B, peer))]
    return topology_pb2.Rail(one=ends[0], other=ends[1], speed_gbps=gbps)


WHY = "studio and mini: pipeline over ring, with 8192 tokens of KV"
OVER_RING = planning_pb2.PlannedPlacement(
    strategy=PIPELINE,
    backend=RING,
    ranks=[rank(0, A, (20, 32), dial(1, A, B, "10.0.0.2")), rank(1, B, (0, 20), dial(0, B, A, "10.0.0.1"))],
    kv_budget_tokens=8192,
    reasons=[WHY, "not pipeline over jaccl: RDMA is off on mini", "rank 0 is studio: 1 of 1 others can dial it"],
    estimate=planning_pb2.DecodeEstimate(tokens_per_s=23.41, memory_s=0.0381, links_s=0.0046),
)
PLAN = planning_pb2.PlanPlacementResponse(
    verdict=planning_pb2.PLAN_VERDICT_PLACED, why=WHY, placement=OVER_RING, facts=FACTS
)


def placed(**changes: object) -> planning_pb2.PlanPlacementResponse:
    """The same with other values in its placement."""
    found = planning_pb2.PlanPlacementResponse()
    found.CopyFrom(PLAN)
    for name in changes:
        found.placement.ClearField(name)  # type: ignore[arg-type]
    found.placement.MergeFrom(planning_pb2.PlannedPlacement(**changes))  # type: ignore[arg-type]
    return found


def test_a_row_is_a_rank_with_what_it_dials() -> None:
    columns, rows = plan_tables.placement_table(OVER_RING, FACTS, NAMES)
    assert dict(zip(columns, rows[0], strict=True)) == {
        "rank": "0",
        "node": "studio",
        "layers": "12 (20-31)",
        "needed": "9.00 GiB",
        "left": "0.50 GiB",
        "dials": "rank 1 at 10.0.0.2 (THUNDERBOLT, en5 to en4, 0.402 ms)",
    }
    assert rows[1][2] == "20 (0-19)"


def test_ranks_of_a_tensor_group_have_heads_and_rails() -> None:
    rails = [rail("rdma_en3", "rdma_en5"), rail("rdma_en4", "rdma_en2", gbps=0)]
    dials = [planning_pb2.PlannedDial(to_rank=other, rails=rails) for other in (1, 0)]
    found = placed(strategy=TENSOR, backend=JACCL, ranks=[rank(0, A, (0, 32), dials[0]), rank(1, B, (0, 32), dials[1])])
    columns, rows = plan_tables.placement_table(found.placement, FACTS, NAMES)
    assert columns[2] == "heads" and rows[0][2] == "32 of 64"
    assert rows[0][-1] == "rank 1 over rdma_en3 to rdma_en5 (80 Gb/s) and rdma_en4 to rdma_en2"
    # As its own end sees it.
    assert rows[1][-1] == "rank 0 over rdma_en5 to rdma_en3 (80 Gb/s) and rdma_en2 to rdma_en4"


def test_one_rank_dials_nobody() -> None:
    found = placed(strategy=WHOLE, ranks=[rank(0, A, (0, 32))], backend=0)
    columns, rows = plan_tables.placement_table(found.placement, FACTS, NAMES)
    assert (columns, rows) == (
        ("rank", "node", "layers", "needed", "left"),
        [("0", "studio", "32 (0-31)", "9.00 GiB", "0.50 GiB")],
    )
    lines = plan_tables.placement_lines(found)
    assert lines[0] == "strategy: whole; 8192 tokens of KV for all requests"
    assert lines[-1] == "estimate: about 23 tokens/s for one request: memory 38.1 ms a token"


def test_a_link_below_its_minimum_says_so_and_what_nobody_knows_is_left_out() -> None:
    bare = topology_pb2.Link(peer_address="10.0.0.2", rtt_us=9000, state=topology_pb2.LINK_STATE_DEGRADED)
    told = planning_pb2.PlannedDial(to_rank=2, link=bare, below="RTT 9 ms, at most 5 ms for THUNDERBOLT")
    assert plan_tables.dial_text(told, A) == (
        "rank 2 at 10.0.0.2 (9.00 ms, DEGRADED), below its minimum: RTT 9 ms, at most 5 ms for THUNDERBOLT"
    )
    bare.cable.CopyFrom(topology_pb2.LinkCable(local_receptacle="3", peer_receptacle="2", speed_gbps=80))
    cabled = planning_pb2.PlannedDial(to_rank=2, link=bare)
    assert "cable 3→2, 80 Gb/s direct" in plan_tables.dial_text(cabled, A)


def test_what_stands_below_the_ranks() -> None:
    found = placed(
        coordinator="192.168.1.2",
        rail_ring=True,
        slow=["studio → mini over 10.0.0.2: RTT 9 ms"],
        degraded=["mini → studio over 10.0.0.1"],
    )
    found.facts.unknowns.append("its KV is not known")
    assert plan_tables.placement_lines(found) == [
        "strategy: pipeline over ring, from neighbour to neighbour; 8192 tokens of KV for all requests",
        "coordinator: rank 0 listens at 192.168.1.2",
        "why: not pipeline over jaccl: RDMA is off on mini",
        "why: rank 0 is studio: 1 of 1 others can dial it",
        "SLOW: studio → mini over 10.0.0.2: RTT 9 ms",
        "DEGRADED: mini → studio over 10.0.0.1",
        "estimate: about 23 tokens/s for one request: memory 38.1 ms + links 4.60 ms a token",
        "not known: its KV is not known",
    ]


# Tokens a second: as they are said.
SPEEDS = {0.04321: "0.043", 3.14: "3.1", 9.96: "10", 23.41: "23", 149.7: "150", 1234.5: "1200"}


@pytest.mark.parametrize(("speed", "said"), SPEEDS.items(), ids=[f"{speed:g} a second" for speed in SPEEDS])
def test_an_estimate_is_said_as_roughly_as_it_is_known(speed: float, said: str) -> None:
    found = planning_pb2.PlannedPlacement(estimate=planning_pb2.DecodeEstimate(tokens_per_s=speed))
    assert f"about {said} tokens/s" in plan_tables.estimate_line(found)


def test_without_the_bandwidth_of_memory_there_is_no_estimate() -> None:
    assert plan_tables.estimate_line(planning_pb2.PlannedPlacement()) == (
        "estimate: none, the memory bandwidth of a node is not known"
    )


def test_what_was_planned_for() -> None:
    assert plan_tables.model_line("m", FACTS) == (
        "m: llama, 32 layers, 16.00 GiB of weights, 4 bits, groups of 64, 131072 bytes of KV a token"
    )
    assert plan_tables.model_line("m", cluster_pb2.ModelFacts()) == "m"


def candidate(
    reason: str, nodes: str = "", how: tuple[int, int] = (PIPELINE, RING), count: int = 1
) -> planning_pb2.RejectedCandidate:
    ids = {"a": A, "b": B}
    return planning_pb2.RejectedCandidate(
        node_ids=[ids[one] for one in nodes],
        hostnames=[NAMES[ids[one]] for one in nodes],
        strategy=how[0],  # type: ignore[arg-type]
        backend=how[1],  # type: ignore[arg-type]
        reason=reason,
        sentence=f"{reason} of {nodes or 'all'} [not bold]",
        count=count,
    )


REFUSED = planning_pb2.PlanPlacementResponse(
    verdict=planning_pb2.PLAN_VERDICT_WAITING,
    why="waits for links: studio → mini: no address is known",
    rejected=[
        candidate("node", "b", (0, 0)),
        candidate("memory", "a", (WHOLE, 0)),
        candidate("link", "ab", count=12),
        candidate("backend", "", (TENSOR, JACCL)),
    ],
)


def test_what_was_not_taken_is_a_table_what_is_of_all_sets_first() -> None:
    columns, rows = plan_tables.rejected_table(REFUSED, NAMES, None)
    assert columns == ("reason", "nodes", "way", "evidence")
    assert rows == [
        ("backend", "any", "tensor over jaccl", "backend of all [not bold]"),
        ("node", "mini", "", "node of b [not bold]"),
        ("memory", "studio", "whole", "memory of a [not bold]"),
        ("link", "studio, mini and 11 more like it", "pipeline over ring", "link of ab [not bold]"),
    ]
    assert plan_tables.rejected_line(REFUSED, len(rows)) == ""


def test_of_a_thousand_some_are_shown_and_the_others_counted() -> None:
    _, rows = plan_tables.rejected_table(REFUSED, NAMES, 2)
    assert [row[0] for row in rows] == ["backend", "node"]
    assert plan_tables.rejected_line(REFUSED, 2) == "and 2 more (link 1, memory 1): `--all` shows them"


def test_who_is_named_is_called_by_name_or_by_the_begin_of_the_id() -> None:
    assert plan_tables.names(REFUSED) == NAMES
    waiting = planning_pb2.PlanPlacementResponse(waits=[planning_pb2.PlanWait(node_ids=[A])])
    assert plan_tables.names(waiting) == {A: "aaaaaaaa"}
    assert plan_tables.names(PLAN) == NAMES
    same = planning_pb2.PlanPlacementResponse()
    same.rejected.add(node_ids=[A, B], hostnames=["mac", "mac"])
    assert plan_tables.names(same) == {A: "mac aaaaaaaa", B: "mac bbbbbbbb"}


def test_pairs_that_wait_for_the_same_stand_in_one_line() -> None:
    found = planning_pb2.PlanPlacementResponse()
    found.waits.add(what="links", node_ids=[A, B], sentence="nobody has tried")
    found.waits.add(what="links", node_ids=[B, A], sentence="nobody has tried")
    found.waits.add(what="nodes", node_ids=[B], sentence="mini is not ALIVE")
    found.waits.add(what="facts", sentence="the audit has not said it")
    assert plan_tables.waits_lines(found, NAMES) == [
        "waits for links (studio → mini, mini → studio): nobody has tried",
        "waits for nodes: mini is not ALIVE",
        "waits for facts: the audit has not said it",
    ]


def test_the_verdict_is_said_as_of_a_deployment() -> None:
    assert plan_tables.verdict_line("m", REFUSED) == (
        "m is WAITING: waits for links: studio → mini: no address is known"
    )
