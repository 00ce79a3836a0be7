"""`deploy` and `undeploy`: writes the wish, then shows what becomes of it."""

import asyncio
import re
from collections.abc import Callable, Collection, Iterable

from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError, CrashLoop, PlacementImpossible, Unavailable, Unreachable
from thunderline.v1 import cluster_pb2

# A scheduler that restarts is waited for this long.
LOST_S = 20.0
LOOK_AGAIN_S = 0.3
# The word alone: not a part of a model's name.
EPOCH = re.compile(r"(?<![\w.-])epoch(?![\w.-])")


def state_name(deployment: cluster_pb2.Deployment) -> str:
    return cluster_pb2.DeploymentState.Name(deployment.state).removeprefix("DEPLOYMENT_STATE_")


def sentence(deployment: cluster_pb2.Deployment) -> str:
    """Where it stands and why, in an operator's words."""
    known = deployment.waits_for in deployment.reason
    waits = f" (waits for {deployment.waits_for})" if deployment.waits_for and not known else ""
    # What the scheduler counts as epochs are starts to everybody else.
    why = EPOCH.sub("start", f"{deployment.reason}{waits}")
    return f"{deployment.spec.name} is {state_name(deployment)}: {why}"


def progress(deployment: cluster_pb2.Deployment) -> str:
    """What happens to it at this moment, for somebody who has never heard of a rank."""
    name, state = deployment.spec.name, deployment.state
    if state == cluster_pb2.DEPLOYMENT_STATE_READY:
        return f"{name} is ready"
    if state == cluster_pb2.DEPLOYMENT_STATE_WAITING:
        return f"{name} waits: {EPOCH.sub('start', deployment.reason)}"
    if state not in (cluster_pb2.DEPLOYMENT_STATE_STARTING, cluster_pb2.DEPLOYMENT_STATE_REPAIRING):
        return sentence(deployment)
    begins = "starts" if state == cluster_pb2.DEPLOYMENT_STATE_STARTING else "is started again"
    newest = max(deployment.ranks, key=lambda rank: rank.id.epoch, default=cluster_pb2.RankReport())
    match newest.state:
        case cluster_pb2.RANK_STATE_LOADING:
            share = newest.load.loaded_bytes / newest.load.total_bytes if newest.load.total_bytes else 0.0
            return f"{name} {begins}: its weights are read, {share:.0%}"
        case cluster_pb2.RANK_STATE_WARMING:
            return f"{name} {begins}: a trial run"
        case cluster_pb2.RANK_STATE_FAILED | cluster_pb2.RANK_STATE_STOPPING | cluster_pb2.RANK_STATE_ABSENT:
            return sentence(deployment)
    return f"{name} {begins}"


async def until_ready(scheduler: SchedulerClient, name: str, say: Callable[[str], None]) -> cluster_pb2.Deployment:
    """The READY deployment. Raises CrashLoop, PlacementImpossible, Unavailable (attempts used up, scheduler lost)."""
    return await until_one_ready(scheduler, [name], say)


async def until_one_ready(
    scheduler: SchedulerClient, names: Collection[str], say: Callable[[str], None]
) -> cluster_pb2.Deployment:
    """The first of them that is READY. When none can become it: raises as `until_ready`, for the last that could."""
    lost_since_s: float | None = None
    said: dict[str, str] = {}
    clock = asyncio.get_running_loop().time
    while True:
        try:
            async for cluster in scheduler.watch_cluster():
                lost_since_s = None
                if (ready := _look(cluster.deployments, names, said, say)) is not None:
                    return ready
        except (Unreachable, Unavailable) as error:
            if not isinstance(error, Unreachable) and error.reason != "DRAINING":
                raise
            lost_since_s = lost_since_s or clock()
            if clock() - lost_since_s > LOST_S:
                raise
            say("the scheduler is not there; waiting for it")
        await asyncio.sleep(LOOK_AGAIN_S)


def _look(
    deployments: Iterable[cluster_pb2.Deployment],
    names: Collection[str],
    said: dict[str, str],
    say: Callable[[str], None],
) -> cluster_pb2.Deployment | None:
    """Says what has changed; the first that is READY. Raises when watching any of them longer would not help."""
    found = [one for one in deployments if one.spec.name in names]
    for one in found:
        if said.get(one.spec.name) != (now := progress(one)):
            said[one.spec.name] = now
            say(now)
        if one.state == cluster_pb2.DEPLOYMENT_STATE_READY:
            return one
    errors = [_hopeless(one) for one in found]
    if not found:
        raise PlacementImpossible(f"{', '.join(names)} was undeployed")
    if all(errors) and (last := errors[-1]) is not None:
        raise last
    return None


def _hopeless(found: cluster_pb2.Deployment) -> ClusterError | None:
    """Why watching it longer would not help; None when it might."""
    if found.state == cluster_pb2.DEPLOYMENT_STATE_CRASH_LOOP:
        return CrashLoop(sentence(found))
    if found.state == cluster_pb2.DEPLOYMENT_STATE_IMPOSSIBLE:
        return PlacementImpossible(sentence(found))
    if found.reason.startswith("attempts used up"):
        return Unavailable(sentence(found))
    return None


async def until_gone(scheduler: SchedulerClient, name: str, say: Callable[[str], None]) -> None:
    """Raises ClusterError."""
    async for cluster in scheduler.watch_cluster():
        found = next((one for one in cluster.deployments if one.spec.name == name), None)
        if found is None:
            return
        if found.state == cluster_pb2.DEPLOYMENT_STATE_UNDEPLOYING:
            say(sentence(found))


async def deploy(
    scheduler: SchedulerClient, spec: cluster_pb2.DeploymentSpec, wait: bool, say: Callable[[str], None]
) -> cluster_pb2.Deployment:
    """Raises ClusterError."""
    deployment = await _deployed(scheduler, spec)
    return await until_ready(scheduler, deployment.spec.name, say) if wait else deployment


async def _deployed(scheduler: SchedulerClient, spec: cluster_pb2.DeploymentSpec) -> cluster_pb2.Deployment:
    """A name that is being undeployed is free in a moment."""
    for _ in range(30):
        try:
            return await scheduler.deploy(spec)
        except ClusterError as error:
            if "being undeployed" not in error.message:
                raise
        await asyncio.sleep(LOOK_AGAIN_S)
    return await scheduler.deploy(spec)
