"""What is asked of a plan, and what it says, between values and protos. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.planning import HOSTFILE_BYTES_MAX, NODE_COUNT_MAX
from thunderline.rpc import rails
from thunderline.rpc.graph import link_to_proto
from thunderline.scheduler.imagined import BACKENDS
from thunderline.scheduler.placing.hostfiles import BadHostfile, launch_hostfile, read_launch_hostfile
from thunderline.scheduler.placing.values import (
    Dial,
    Hostfile,
    Node,
    Placement,
    Plan,
    Policy,
    Rank,
    Rejected,
    Strategy,
)
from thunderline.v1 import cluster_pb2, planning_pb2

INT32_MAX = 2**31 - 1
# Of a word for a node that is quoted.
WORD_LENGTH_MAX = 64
# Fewer letters of an id are nobody's name.
ID_LETTERS_MIN = 4
STRATEGIES = {
    planning_pb2.SPLIT_STRATEGY_WHOLE: Strategy.WHOLE,
    planning_pb2.SPLIT_STRATEGY_TENSOR: Strategy.TENSOR,
    planning_pb2.SPLIT_STRATEGY_PIPELINE: Strategy.PIPELINE,
}
_STRATEGY_NUMBERS = {strategy: number for number, strategy in STRATEGIES.items()}
_BACKEND_NUMBERS = {backend: number for number, backend in BACKENDS.items()}


def policy(told: planning_pb2.PlacementPolicy, kv_budget_tokens: int) -> Policy:
    """Its nodes are words still: `named` says whose. Raises InvalidRequest."""
    if told.strategy and told.strategy not in STRATEGIES:
        raise InvalidRequest(f"unknown strategy {told.strategy}", param="strategy")
    if told.backend and told.backend not in BACKENDS:
        raise InvalidRequest(f"unknown backend {told.backend}", param="backend")
    if len(told.nodes) > NODE_COUNT_MAX:
        raise InvalidRequest(f"{len(told.nodes)} nodes; at most {NODE_COUNT_MAX}", param="nodes")
    if not 0 <= told.node_count_min <= NODE_COUNT_MAX:
        raise InvalidRequest(f"node_count_min must be 0 to {NODE_COUNT_MAX}", param="node_count_min")
    return Policy(
        kv_budget_tokens=kv_budget_tokens,
        requires_fast=told.requires_fast,
        strategy=STRATEGIES.get(told.strategy),
        backend=BACKENDS.get(told.backend),
        node_count_min=max(1, told.node_count_min),
        hostfile=_hostfile(told.hostfile) if told.hostfile else None,
    )


def _hostfile(text: str) -> Hostfile:
    if (size := len(text.encode())) > HOSTFILE_BYTES_MAX:
        raise InvalidRequest(f"a hostfile of {size} bytes; at most {HOSTFILE_BYTES_MAX}", param="hostfile")
    try:
        return read_launch_hostfile(text)
    except BadHostfile as error:
        raise InvalidRequest(f"the hostfile {error}", param="hostfile") from None


def named(words: Iterable[str], nodes: Sequence[Node]) -> frozenset[NodeId]:
    """By id, hostname, or the first letters of an id. Raises InvalidRequest for a word that is none's, or several's."""
    return frozenset(_named(word, nodes) for word in words)


def _named(word: str, nodes: Sequence[Node]) -> NodeId:
    for found in (
        [one for one in nodes if one.id == word],
        [one for one in nodes if word and one.name == word],
        [one for one in nodes if len(word) >= ID_LETTERS_MIN and one.id.startswith(word)],
    ):
        if len(found) == 1:
            return found[0].id
        if found:
            ids = ", ".join(sorted(one.id for one in found))
            raise InvalidRequest(f"{word[:WORD_LENGTH_MAX]!r} is several nodes: {ids}", param="nodes")
    known = ", ".join(sorted(one.word for one in nodes)) or "none"
    raise InvalidRequest(f"no node is named {word[:WORD_LENGTH_MAX]!r}; there are: {known}", param="nodes")


def plan_to_proto(
    found: Plan, nodes: Sequence[Node], facts: cluster_pb2.ModelFacts, splits: cluster_pb2.SplitFacts | None
) -> planning_pb2.PlanPlacementResponse:
    names = {one.id: one.name for one in nodes}
    # A name that several nodes have would lead mlx.launch to one of them.
    ssh = {one.id: one.name for one in nodes if one.name and not one.is_name_shared}
    return planning_pb2.PlanPlacementResponse(
        verdict=found.verdict.value,  # type: ignore[arg-type]
        why=found.why,
        placement=_placement(found.placement, names, ssh) if found.placement else None,
        rejected=[_rejected(one, names) for one in found.rejected],
        waits=[
            planning_pb2.PlanWait(what=one.what.value, node_ids=one.nodes, sentence=one.text) for one in found.waits
        ],
        facts=facts,
        splits=splits,
    )


def _placement(
    placed: Placement, names: Mapping[NodeId, str], ssh: Mapping[NodeId, str]
) -> planning_pb2.PlannedPlacement:
    estimate = placed.estimate
    return planning_pb2.PlannedPlacement(
        strategy=_STRATEGY_NUMBERS[placed.strategy],
        backend=_BACKEND_NUMBERS[placed.backend] if placed.backend else planning_pb2.DISTRIBUTED_BACKEND_UNSPECIFIED,
        ranks=[_rank(number, rank, names) for number, rank in enumerate(placed.ranks)],
        kv_budget_tokens=placed.kv_budget_tokens,
        coordinator=placed.coordinator,
        rail_ring=placed.is_rail_ring,
        reasons=placed.reasons,
        slow=placed.slow,
        degraded=placed.degraded,
        estimate=planning_pb2.DecodeEstimate(
            tokens_per_s=estimate.tokens_per_s, memory_s=estimate.memory_s, links_s=estimate.links_s
        )
        if estimate
        else None,
        launch_hostfile=launch_hostfile(placed, ssh),
    )


def _rank(number: int, rank: Rank, names: Mapping[NodeId, str]) -> planning_pb2.PlannedRank:
    return planning_pb2.PlannedRank(
        rank=number,
        node_id=rank.node,
        hostname=names[rank.node],
        first_layer=rank.first_layer,
        end_layer=rank.end_layer,
        head_count=rank.head_count,
        needed_bytes=rank.needed_bytes,
        left_bytes=rank.left_bytes,
        dials=[_dial(one) for one in rank.dials],
        must_fetch=rank.must_fetch,
    )


def _dial(dial: Dial) -> planning_pb2.PlannedDial:
    return planning_pb2.PlannedDial(
        to_rank=dial.to_rank,
        link=link_to_proto(dial.link) if dial.link else None,
        rails=[rails.to_proto(one) for one in dial.rails],
        below=dial.below,
    )


def _rejected(one: Rejected, names: Mapping[NodeId, str]) -> planning_pb2.RejectedCandidate:
    return planning_pb2.RejectedCandidate(
        node_ids=one.nodes,
        hostnames=[names.get(node, "") for node in one.nodes],
        strategy=_STRATEGY_NUMBERS[one.strategy] if one.strategy else planning_pb2.SPLIT_STRATEGY_UNSPECIFIED,
        backend=_BACKEND_NUMBERS[one.backend] if one.backend else planning_pb2.DISTRIBUTED_BACKEND_UNSPECIFIED,
        reason=one.reason.value,
        sentence=one.text,
        count=min(one.count, INT32_MAX),
    )
