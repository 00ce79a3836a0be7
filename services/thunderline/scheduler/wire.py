"""Protos to the scheduler's values and back. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from thunderline.cluster import InstanceId, NodeId, RankId, StoreId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.adoption import Found, Held, Ruling
from thunderline.scheduler.attempts import is_deliberate
from thunderline.scheduler.known_model import model
from thunderline.scheduler.placing.values import Placement
from thunderline.scheduler.values import Audit, Cause, RankView, Spec, Standing, Verdict, Wish
from thunderline.v1 import cluster_pb2, runner_pb2, scheduler_pb2


def rank_view(node: NodeId, report: cluster_pb2.RankReport) -> RankView:
    load = report.load
    cause = None
    if report.HasField("cause"):
        told = report.cause
        state = RankState(told.state or RankState.UNKNOWN.value)
        cause = Cause(told.name, told.detail, state, told.permanent, told.signature, told.remedy)
    return RankView(
        id=_rank_id(report.id),
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
    splits = response.splits if response.HasField("splits") else None
    return Audit(
        verdict=Verdict(response.verdict),
        problems=tuple(response.problems),
        model=model(response.facts, splits) if response.HasField("facts") else None,
        usable_memory_bytes=response.usable_memory_bytes,
        digest=response.facts.digest,
        at_s=at_s,
    )


def placement(wish: Wish, epoch: int, placed: Placement) -> cluster_pb2.Placement:
    return cluster_pb2.Placement(
        deployment=spec_to_proto(wish.spec),
        instance=wish.instance,
        epoch=epoch,
        ranks=[
            cluster_pb2.RankAssignment(
                rank=number,
                node_id=rank.node,
                first_layer=rank.first_layer,
                end_layer=rank.end_layer,
                memory_bytes=rank.needed_bytes,
            )
            for number, rank in enumerate(placed.ranks)
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
        if epoch.ready_s is not None or epoch.number <= wish.fresh_above or is_deliberate(epoch):
            break
        count += epoch.is_over
    return count


def found(node: NodeId, told: runner_pb2.AdoptStoreResponse) -> Found:
    """A runner's placements with what runs of them, and the ranks that run without one."""
    reports = {_rank_id(report.id): report for report in told.ranks}
    held = [_held(placement, reports) for placement in told.placements]
    kept = {one.id for one in held}
    held += [_process(Held(rank), report) for rank, report in reports.items() if rank not in kept]
    # What has ended and is kept nowhere is nothing.
    living = tuple(one for one in held if one.spec is not None or one.lives)
    return Found(node, StoreId(told.store_id), told.highest_epoch, living)


def _held(placement: cluster_pb2.Placement, reports: Mapping[RankId, cluster_pb2.RankReport]) -> Held:
    rank = RankId(InstanceId(placement.instance), placement.epoch, 0)
    held = Held(
        id=rank,
        spec=spec(placement.deployment, placement.deployment.name),
        placement=placement.SerializeToString(deterministic=True),
        kv_budget_tokens=placement.kv_budget_tokens,
        memory_bytes=sum(one.memory_bytes for one in placement.ranks),
    )
    return _process(held, reports[rank]) if rank in reports else held


def _process(held: Held, report: cluster_pb2.RankReport) -> Held:
    since_s = report.state_since.ToMilliseconds() / 1000
    return replace(held, state=RankState(report.state), since_s=since_s, pid=report.pid)


def _rank_id(wire: cluster_pb2.RankId) -> RankId:
    return RankId(InstanceId(wire.instance), wire.epoch, wire.rank)


def foreign_runner(runner: Found, rulings: Iterable[Ruling]) -> scheduler_pb2.ForeignRunner:
    held = [
        scheduler_pb2.HeldRank(
            id=rank_id_to_proto(ruling.held.id),
            deployment=spec_to_proto(ruling.held.spec) if ruling.held.spec else None,
            state=ruling.held.state.value,  # type: ignore[arg-type]
            pid=ruling.held.pid,
            fate=ruling.fate.value,  # type: ignore[arg-type]
            why=ruling.why,
        )
        for ruling in rulings
    ]
    return scheduler_pb2.ForeignRunner(node_id=runner.node, store_id=runner.store, held=held)


def store_contents(store: StoreId, owner: NodeId, wishes: Iterable[Wish]) -> scheduler_pb2.StoreContents:
    specs = [spec_to_proto(wish.spec) for wish in wishes]
    return scheduler_pb2.StoreContents(store_id=store, node_id=owner, deployments=specs)
