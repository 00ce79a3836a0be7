"""The values that the scheduler decides on. Times are seconds of the wall clock (they outlive the process)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.graph import Graph
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.placing.values import Model, Node


@dataclass(frozen=True, slots=True)
class Spec:
    """What the operator wants; see DeploymentSpec in cluster.proto."""

    name: str
    model: str
    kv_budget_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an epoch ended; see ExitCause in cluster.proto."""

    name: str
    detail: str
    state: RankState
    permanent: bool = False
    signature: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One start of an instance, as the store knows it."""

    number: int
    started_s: float
    node: NodeId
    kv_budget_tokens: int
    memory_bytes: int
    ready_s: float | None = None
    ended_s: float | None = None
    cause: Cause | None = None
    # Whether a request was answered to its end; canaries do not count.
    answered: bool = False
    # What the audit said of the files when it was started.
    digest: str = ""

    @property
    def is_over(self) -> bool:
        return self.ended_s is not None


@dataclass(frozen=True, slots=True)
class Wish:
    """A deployment as the store knows it."""

    spec: Spec
    instance: InstanceId
    # When a human has deployed it (again).
    fresh_since_s: float
    undeploying: bool = False
    # Newest last; bounded.
    epochs: tuple[Epoch, ...] = ()
    # Attempts and crashes up to this epoch do not count: they were before that. A clock may be set, a number may not.
    fresh_above: int = 0

    def again(self, now_s: float) -> "Wish":
        """Deployed once more."""
        return replace(self, fresh_since_s=now_s, fresh_above=self.epochs[-1].number if self.epochs else 0)

    @property
    def current(self) -> Epoch | None:
        """The epoch that is meant to live."""
        return self.epochs[-1] if self.epochs and not self.epochs[-1].is_over else None


@dataclass(frozen=True, slots=True)
class RankView:
    """One rank as its runner reports it."""

    id: RankId
    node: NodeId
    state: RankState
    cause: Cause | None = None
    loaded_share: float | None = None
    memory_bytes: int = 0
    kv_budget_tokens: int = 0
    context_length_tokens: int = 0
    # What the architecture audit allows, and why no more; "" and "batch" are the plain way.
    batching: str = ""
    batching_reason: str = ""
    # Whether it is dialled in to its runner: a READY rank that is not takes nothing.
    attached: bool = True


@dataclass(frozen=True, slots=True)
class RunnerView:
    """A runner as the scheduler sees it. Unreachable: what it had is UNKNOWN, and nothing is concluded from it."""

    node: NodeId
    reachable: bool
    complete: bool
    ranks: tuple[RankView, ...] = ()
    # Why it takes no commands of ours, though it was heard: then it counts as one that cannot be reached.
    refusal: str = ""


class Verdict(Enum):
    """Numbers are those of ModelVerdict in runner.proto."""

    USABLE = 1
    FETCHABLE = 2
    UNUSABLE = 3


@dataclass(frozen=True, slots=True)
class Audit:
    """What a node said of a model."""

    verdict: Verdict
    problems: tuple[str, ...] = ()
    # What its files say; None of files that are not there.
    model: Model | None = None
    # For ranks, all of them together; 0 where it was not told.
    usable_memory_bytes: int = 0
    # Over config and weight headers: another one means other files.
    digest: str = ""
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fetch:
    """A download on a node: under way, or failed since `at_s`."""

    fetched_bytes: int = 0
    total_bytes: int = 0
    error: str = ""
    permanent: bool = False
    failure_count: int = 0
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Member:
    """Of the roster, unless it has LEFT. `card`: what a node tells of itself; of memory, files and promises nothing."""

    card: Node
    # What Metal recommends to keep at once; 0: there is no Metal, or it was not told.
    working_set_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The nodes, and how they are joined, whatever runs there."""

    members: tuple[Member, ...] = ()
    graph: Graph = field(default_factory=Graph)
    # Whether discovery knows all members.
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a reconcile pass looks at."""

    wishes: tuple[Wish, ...] = ()
    # By node; a node that discovery lists as ALIVE and that has no view yet is not reachable.
    runners: Mapping[NodeId, RunnerView] = field(default_factory=dict)
    audits: Mapping[tuple[NodeId, str], Audit] = field(default_factory=dict)
    fetches: Mapping[tuple[NodeId, str], Fetch] = field(default_factory=dict)
    # Targets of actions that have not been answered yet: no second one is issued.
    in_flight: frozenset[object] = frozenset()
    # Starts that are being written down: node and bytes, which nobody else may be promised meanwhile.
    starting: Mapping[InstanceId, tuple[NodeId, int]] = field(default_factory=dict)
    # Instances that were READY in this life of the scheduler: a start after that is a repair.
    served: frozenset[InstanceId] = frozenset()
    # How long each instance's living epoch was seen while we were awake: ages.py.
    ages_s: Mapping[InstanceId, float] = field(default_factory=dict)
    around: Surroundings = field(default_factory=Surroundings)

    def age_s(self, wish: Wish) -> float:
        """Of the epoch that lives."""
        return self.ages_s.get(wish.instance, 0.0)


class DeploymentState(Enum):
    """Numbers are those of DeploymentState in cluster.proto."""

    WAITING = 1  # For a runner, files, memory or the next attempt: `waits_for` says which.
    STARTING = 2  # An epoch is on its way to READY.
    READY = 3  # All its ranks are READY: requests are routed.
    REPAIRING = 4  # Was READY in this life of the scheduler, and lost it unasked; the next epoch is under way.
    CRASH_LOOP = 5  # Too many crashes in a row: a Deploy or other files start it again.
    IMPOSSIBLE = 6  # A permanent cause.
    UNDEPLOYING = 7  # Its ranks are being ended.


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a deployment stands: one sentence for `status`, /readyz and the 503 body.

    `reason` is never empty; `waits_for` only where it is READY.
    """

    state: DeploymentState
    reason: str
    waits_for: str = ""
