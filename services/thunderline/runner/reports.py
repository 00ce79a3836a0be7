"""A rank of this node as the wire has it."""

from thunderline.cluster import InstanceId, RankId
from thunderline.runner.exit_cause import ExitCause, recognised
from thunderline.runner.known_rank import KnownRank
from thunderline.v1 import cluster_pb2


def rank_id(wire: cluster_pb2.RankId) -> RankId:
    return RankId(InstanceId(wire.instance), wire.epoch, wire.rank)


def report(rank: KnownRank) -> cluster_pb2.RankReport:
    found = cluster_pb2.RankReport(
        id=cluster_pb2.RankId(instance=rank.id.instance, epoch=rank.id.epoch, rank=rank.id.rank),
        state=rank.state.value,  # type: ignore[arg-type]
        pid=rank.pid,
        step_count=rank.step.step,
        load=rank.load,
        placement=rank.placement if rank.placement.ByteSize() else None,
        engine=rank.engine,
        running_request_count=rank.step.running_count,
        waiting_request_count=rank.step.waiting_count,
        attached=rank.is_attached,
    )
    found.state_since.FromMilliseconds(int(rank.since_s * 1000))
    if rank.cause is not None:
        found.cause.CopyFrom(cause_to_proto(rank.cause))
    return found


def cause_to_proto(cause: ExitCause) -> cluster_pb2.ExitCause:
    # What a rank has said of itself, or its runner of one that lives, was not looked at before.
    cause = recognised(cause)
    return cluster_pb2.ExitCause(
        name=cause.name,
        detail=cause.detail,
        state=cause.state.value,  # type: ignore[arg-type]
        pid=cause.pid,
        uptime_s=cause.uptime_s,
        permanent=cause.permanent,
        signature=cause.signature,
        remedy=cause.remedy,
    )
