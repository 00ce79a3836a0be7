"""Whether a request may go to an instance now, must wait, or is refused. Pure."""

from enum import Enum, IntEnum, auto

from thunderline.cluster.errors import (
    ClusterError,
    CrashLoop,
    NoReadyInstance,
    NotFound,
    PlacementImpossible,
    RequestPoisoned,
)
from thunderline.scheduler.values import DeploymentState, Standing

# When to come back after a refusal for the queue wait.
RETRY_AFTER_S = 2.0
# Ranks lost under a request since its last new token: from the first on it runs alone, from the second on not at all.
ALONE_FROM_COUNT, POISONED_FROM_COUNT = 2, 3
# One that runs alone waits this long for those who run already, then goes beside them.
ALONE_WAIT_S = 10.0
# It holds the others back until its first new token, but no longer than this; only those like it wait on.
ALONE_HOLD_S = 60.0


class Kind(IntEnum):
    """Whose turn it is first."""

    ALONE = 0  # A resume that ranks were lost under. First, so that on a fresh instance it harms nobody else.
    RESUMED = 1
    NEW = 2


class Way(Enum):
    GO = auto()
    WAIT_FOR_ROOM = auto()  # READY, and full: until the request's own deadline.
    WAIT_FOR_READY = auto()  # Until the queue wait is over; a resume until its deadline.


class Turn(Enum):
    """What the first of a line gets."""

    GOES = auto()
    WAITS = auto()  # And so do all lines after its own.
    LETS_PASS = auto()  # It waits; the lines after its own are asked.


def way(name: str, standing: Standing | None, outstanding: int, outstanding_max: int) -> Way:
    """What a request to a deployment gets. Raises NotFound, CrashLoop, PlacementImpossible: those at once."""
    if standing is None or standing.state is DeploymentState.UNDEPLOYING:
        raise NotFound(f"the model {name!r} is not deployed; `thunderline deployments` lists what is", param="model")
    if standing.state is DeploymentState.CRASH_LOOP:
        raise CrashLoop(sentence(name, standing))
    if standing.state is DeploymentState.IMPOSSIBLE:
        raise PlacementImpossible(sentence(name, standing))
    if standing.state is not DeploymentState.READY:
        return Way.WAIT_FOR_READY
    return Way.GO if outstanding < outstanding_max else Way.WAIT_FOR_ROOM


def kind(resume: bool, lost_rank_count: int) -> Kind:
    """Raises RequestPoisoned: its client should have ended it."""
    if lost_rank_count >= POISONED_FROM_COUNT:
        raise RequestPoisoned(f"{lost_rank_count} ranks ended under this request without a new token between")
    if lost_rank_count >= ALONE_FROM_COUNT:
        return Kind.ALONE
    return Kind.RESUMED if resume else Kind.NEW


def may_go_alone(other_count: int, waited_s: float, wait_s: float = ALONE_WAIT_S) -> bool:
    """Whether a request that runs alone goes now. Who went alone before and spoke is harmless, and no other."""
    return other_count == 0 or waited_s >= wait_s


def turn_beside_a_silent_one(kind: Kind, ran_s: float, hold_s: float = ALONE_HOLD_S) -> Turn:
    """What the first of a line gets while one that went alone has not spoken: of two suspects one may be innocent."""
    if ran_s < hold_s:
        return Turn.WAITS
    return Turn.LETS_PASS if kind is Kind.ALONE else Turn.GOES


def gives_up_s(arrived_s: float, away_since_s: float, queue_wait_s: float) -> float:
    """When a new request has waited long enough for READY: its wait for room is not counted."""
    return max(arrived_s, away_since_s) + queue_wait_s


def waited_in_vain(name: str, standing: Standing | None) -> ClusterError:
    """What the queue wait ends with."""
    text = sentence(name, standing) if standing else f"{name} is not deployed"
    return NoReadyInstance(text, retry_after_s=RETRY_AFTER_S)


def sentence(name: str, standing: Standing) -> str:
    """The deployment's one sentence."""
    return f"{name} is {standing.state.name}: {standing.reason}"
