"""Whether a request may go to an instance now, must wait, or is refused. Pure."""

from enum import Enum, auto

from thunderline.cluster.errors import ClusterError, CrashLoop, NoReadyInstance, NotFound, PlacementImpossible
from thunderline.scheduler.values import DeploymentState, Standing

# When to come back after a refusal for the queue wait.
RETRY_AFTER_S = 2.0


class Way(Enum):
    GO = auto()
    WAIT_FOR_ROOM = auto()  # READY, and full: until the request's own deadline.
    WAIT_FOR_READY = auto()  # Until the queue wait is over; a resume until its deadline.


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


def waited_in_vain(name: str, standing: Standing | None) -> ClusterError:
    """What the queue wait ends with."""
    text = sentence(name, standing) if standing else f"{name} is not deployed"
    return NoReadyInstance(text, retry_after_s=RETRY_AFTER_S)


def sentence(name: str, standing: Standing) -> str:
    """The deployment's one sentence."""
    return f"{name} is {standing.state.name}: {standing.reason}"
