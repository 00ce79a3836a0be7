"""Protos to the scheduler's values and back. Pure."""

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.placement import Placed
from thunderline.scheduler.values import Audit, Cause, RankView, Spec, Standing, Verdict, Wish
from thunderline.v1 import cluster_pb2, runner_pb2


def rank_view(node: NodeId, report: cluster_pb2.RankReport) -> RankView:
    load = report.load
    cause = None
    if report.HasField("cause"):
        told = report.cause
        cause = Cause(told.name, told.detail, RankState(told.state or RankState.UNKNOWN.value), told.permanent)
    return RankView(
        id=RankId(InstanceId(report.id.instance), report.id.epoch, report.id.rank),
        node=node,
        state=RankState(report.state),
        cause=cause,
        loaded_share=load.loaded_bytes / load.total_bytes if load.total_bytes else None,
        memory_bytes=sum(rank.memory_bytes for rank in report.placement.ranks),
        kv_budget_tokens=report.engine.kv_budget_tokens,
        context_length_tokens=report.engine.context_length_tokens,
        batching=report.engine.batching,
        batching_reason=report.engine.batching_reason,
        attached=report.attached,
    )


def audit(response: runner_pb2.AuditModelResponse, at_s: float) -> Audit:
    facts = response.facts
    return Audit(
        verdict=Verdict(response.verdict),
        problems=tuple(response.problems),
        weight_bytes=facts.weight_bytes,
        kv_bytes_per_token=facts.kv_bytes_per_token,
        context_length_tokens=facts.context_length_tokens,
        layer_count=facts.layer_count,
        usable_memory_bytes=response.usable_memory_bytes,
        digest=facts.digest,
        at_s=at_s,
    )


def placement(wish: Wish, epoch: int, placed: Placed, layer_count: int) -> cluster_pb2.Placement:
    return cluster_pb2.Placement(
        deployment=spec_to_proto(wish.spec),
        instance=wish.instance,
        epoch=epoch,
        ranks=[
            cluster_pb2.RankAssignment(
                rank=0, node_id=placed.node, end_layer=layer_count, memory_bytes=placed.memory_bytes
            )
        ],
        kv_budget_tokens=placed.kv_budget_tokens,
        reasons=placed.reasons,
    )


def spec(wire: cluster_pb2.DeploymentSpec, name: str) -> Spec:
    return Spec(name, wire.model, wire.kv_budget_tokens)


def spec_to_proto(value: Spec) -> cluster_pb2.DeploymentSpec:
    return cluster_pb2.DeploymentSpec(name=value.name, model=value.model, kv_budget_tokens=value.kv_budget_tokens)


def rank_id_to_proto(rank: RankId) -> cluster_pb2.RankId:
    return cluster_pb2.RankId(instance=rank.instance, epoch=rank.epoch, rank=rank.rank)


def deployment(
    wish: Wish, standing: Standing, since_s: float, ranks: list[cluster_pb2.RankReport], queued: int
) -> cluster_pb2.Deployment:
    found = cluster_pb2.Deployment(
        spec=spec_to_proto(wish.spec),
        state=standing.state.value,  # type: ignore[arg-type]
        reason=standing.reason,
        waits_for=standing.waits_for,
        ranks=ranks,
        failed_epoch_count=failed_in_a_row(wish),
        queued_request_count=queued,
    )
    found.state_since.FromMilliseconds(int(since_s * 1000))
    return found


def failed_in_a_row(wish: Wish) -> int:
    """Epochs that ended since the last one that is or was READY."""
    count = 0
    for epoch in reversed(wish.epochs):
        if epoch.ready_s is not None or epoch.started_s < wish.fresh_since_s:
            break
        count += epoch.is_over
    return count
