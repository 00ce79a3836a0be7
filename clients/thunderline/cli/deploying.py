"""`deploy` and `undeploy`: writes the wish, then shows what becomes of it."""

import asyncio
from collections.abc import Callable

from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError, CrashLoop, PlacementImpossible, Unavailable, Unreachable
from thunderline.v1 import cluster_pb2

# A scheduler that restarts is waited for this long.
LOST_S = 20.0
LOOK_AGAIN_S = 0.3


def state_name(deployment: cluster_pb2.Deployment) -> str:
    return cluster_pb2.DeploymentState.Name(deployment.state).removeprefix("DEPLOYMENT_STATE_")


def sentence(deployment: cluster_pb2.Deployment) -> str:
    known = deployment.waits_for in deployment.reason
    waits = f" (waits for {deployment.waits_for})" if deployment.waits_for and not known else ""
    return f"{deployment.spec.name} is {state_name(deployment)}: {deployment.reason}{waits}"


async def until_ready(scheduler: SchedulerClient, name: str, say: Callable[[str], None]) -> cluster_pb2.Deployment:
    """The READY deployment. Raises CrashLoop, PlacementImpossible, Unavailable (attempts used up, scheduler lost)."""
    lost_since_s: float | None = None
    said = ""
    clock = asyncio.get_running_loop().time
    while True:
        try:
            async for cluster in scheduler.watch_cluster():
                lost_since_s = None
                found = next((one for one in cluster.deployments if one.spec.name == name), None)
                if found is None:
                    raise PlacementImpossible(f"{name} was undeployed")
                if sentence(found) != said:
                    said = sentence(found)
                    say(said)
                if found.state == cluster_pb2.DEPLOYMENT_STATE_READY:
                    return found
                _check(found)
        except (Unreachable, Unavailable) as error:
            if not isinstance(error, Unreachable) and error.reason != "DRAINING":
                raise
            lost_since_s = lost_since_s or clock()
            if clock() - lost_since_s > LOST_S:
                raise
            say("the scheduler is not there; waiting for it")
        await asyncio.sleep(LOOK_AGAIN_S)


def _check(found: cluster_pb2.Deployment) -> None:
    """Raises when watching longer would not help."""
    if found.state == cluster_pb2.DEPLOYMENT_STATE_CRASH_LOOP:
        raise CrashLoop(sentence(found))
    if found.state == cluster_pb2.DEPLOYMENT_STATE_IMPOSSIBLE:
        raise PlacementImpossible(sentence(found))
    if found.reason.startswith("attempts used up"):
        raise Unavailable(sentence(found))


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
