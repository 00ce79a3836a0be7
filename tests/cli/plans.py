"""Answers of a scheduler that was asked for a plan."""

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
