"""What the reconciler may ask for, as values. Pure."""

from dataclasses import dataclass

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.placing.values import Placement
from thunderline.scheduler.values import Cause


@dataclass(frozen=True, slots=True)
class AuditModel:
    """`splits`: also how the engine can divide it, which takes longer the first time."""

    node: NodeId
    model: str
    splits: bool = False


@dataclass(frozen=True, slots=True)
class FetchModel:
    node: NodeId
    model: str


@dataclass(frozen=True, slots=True)
class StartEpoch:
    """Takes the next epoch number, writes it down, and prepares its rank."""

    instance: InstanceId
    placement: Placement
    digest: str = ""

    @property
    def node(self) -> NodeId:
        """Of its one rank."""
        return self.placement.ranks[0].node

    @property
    def memory_bytes(self) -> int:
        return self.placement.ranks[0].needed_bytes


@dataclass(frozen=True, slots=True)
class MakePrepared:
    """The same command again: the runner may not have got it, and starts an epoch's rank once."""

    rank: RankId
    node: NodeId


@dataclass(frozen=True, slots=True)
class MakeReady:
    rank: RankId
    node: NodeId


@dataclass(frozen=True, slots=True)
class MakeAbsent:
    rank: RankId
    node: NodeId


@dataclass(frozen=True, slots=True)
class MarkReady:
    """The epoch has become READY; write it down."""

    instance: InstanceId
    epoch: int


@dataclass(frozen=True, slots=True)
class EndEpoch:
    """The epoch is over; write its cause down."""

    instance: InstanceId
    epoch: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of an undeployed deployment is left."""

    instance: InstanceId


UNDEPLOYED = Cause("STOPPED", "undeployed", RankState.STOPPING)

Action = AuditModel | FetchModel | StartEpoch | MakePrepared | MakeReady | MakeAbsent | MarkReady | EndEpoch | Forget


def targets(action: Action) -> frozenset[object]:
    """What an action is about: while it is under way, nothing else is done about any of it."""
    match action:
        case AuditModel(node, model):
            return frozenset({("audit", node, model)})
        case FetchModel(node, model):
            return frozenset({("fetch", node, model)})
        case MakePrepared(rank) | MakeReady(rank) | MakeAbsent(rank):
            return frozenset({("rank", rank), ("instance", rank.instance)})
        case StartEpoch(instance) | MarkReady(instance) | EndEpoch(instance) | Forget(instance):
            return frozenset({("instance", instance)})


def brings_on(action: Action) -> InstanceId | None:
    """The instance whose epoch an action brings on its way to READY."""
    match action:
        case StartEpoch(instance):
            return instance
        case MakePrepared(rank) | MakeReady(rank):
            return rank.instance
    return None
