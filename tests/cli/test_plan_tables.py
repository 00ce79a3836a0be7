"""What `plan` makes of an answer, without anybody who gives one."""

import pytest

from cli.plans import (
    FACTS,
    JACCL,
    NAMES,
    OVER_RING,
    PLAN,
    REFUSED,
    TENSOR,
    WHOLE,
    A,
    B,
    candidate,
    rail,
    rank,
)
from thunderline.cli import plan_tables
from thunderline.v1 import cluster_pb2, planning_pb2, topology_pb2


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


def test_what_was_not_taken_is_a_table_what_is_of_all_sets_first() -> None:
    columns, rows = plan_tables.rejected_table(REFUSED, NAMES, None)
    assert columns == ("reason", "nodes", "way", "evidence")
    assert rows == [
        ("backend", "any", "tensor over jaccl", "backend of all [not bold]"),
        ("node", "mini", "", "node of b [not bold]"),
        ("memory", "studio", "whole", "memory of a [not bold]"),
        ("link", "studio, mini and 11 more like it", "pipeline over ring", "link of ab [not bold]"),
    ]
    assert plan_tables.rest_line(REFUSED, 20) == ""


def test_of_a_thousand_some_of_each_kind_are_shown_and_the_others_counted() -> None:
    many = planning_pb2.PlanPlacementResponse()
    sets = ["a", "b", "ab"]
    many.rejected.extend(candidate("memory", one, (WHOLE, 0)) for one in sets * 10)
    many.rejected.extend(candidate("link", one) for one in sets)
    many.rejected.append(candidate("engine", "", (TENSOR, JACCL)))
    _, rows = plan_tables.rejected_table(many, NAMES, 5)
    assert [(row[0], row[1]) for row in rows] == [
        ("engine", "any"),
        ("memory", "studio"),
        ("memory", "mini"),
        ("link", "studio"),
        ("link", "mini"),
    ]
    assert plan_tables.rest_line(many, 5) == "and 29 more (link 1, memory 28): `--all` shows them"
    assert plan_tables.rest_line(many, None) == ""
    assert len(plan_tables.rejected_table(many, NAMES, None).rows) == 34


def test_nobody_counts_the_sets_of_64_nodes() -> None:
    many = planning_pb2.PlanPlacementResponse(rejected=[candidate("memory", "a", count=2**31 - 1)])
    (row,) = plan_tables.rejected_table(many, NAMES, None).rows
    assert row[1] == "studio and more than 2 billion like it"


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


def test_what_the_verdict_says_is_not_said_twice() -> None:
    found = planning_pb2.PlanPlacementResponse(why=REFUSED.why)
    found.waits.add(what="links", node_ids=[A, B], sentence="studio → mini: no address is known")
    found.waits.add(what="nodes", node_ids=[B], sentence="mini is not ALIVE")
    assert plan_tables.waits_lines(found, NAMES) == ["waits for nodes: mini is not ALIVE"]
    found.why = "mini is not ALIVE"
    assert [line.split(":")[0] for line in plan_tables.waits_lines(found, NAMES)] == ["waits for links (studio → mini)"]


def test_the_verdict_is_said_as_of_a_deployment() -> None:
    hostfile = planning_pb2.PlanPlacementResponse(verdict=planning_pb2.PLAN_VERDICT_WAITING, why="it does not do")
    assert plan_tables.verdict_line("m", hostfile) == "m is WAITING: it does not do"
    large = planning_pb2.PlanPlacementResponse(verdict=planning_pb2.PLAN_VERDICT_IMPOSSIBLE, why="needs 3 GiB")
    assert plan_tables.verdict_line("m", large) == "m is IMPOSSIBLE: needs 3 GiB"
    assert plan_tables.verdict_line("m", REFUSED) == ("m is WAITING for links: studio → mini: no address is known")
