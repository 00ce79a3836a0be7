"""The gRPC shell of the scheduler: translate, decide, translate back."""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from thunderline.cluster import InstanceId, NodeId
from thunderline.cluster.errors import InvalidRequest, NameTaken, NotFound, NotOffered
from thunderline.process.changes import watch
from thunderline.scheduler import wire
from thunderline.scheduler.admission import Admission
from thunderline.scheduler.control import Control
from thunderline.scheduler.events import Event
from thunderline.scheduler.planning import Planning
from thunderline.scheduler.routing import default_name
from thunderline.scheduler.takeover import Takeover
from thunderline.scheduler.values import Wish
from thunderline.v1 import cluster_pb2, planning_pb2, scheduler_pb2, scheduler_pb2_grpc

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MODEL_LENGTH_MAX = 1024
DEPLOYMENT_COUNT_MAX = 100
WATCH_PACE_S = 0.1


class SchedulerService(scheduler_pb2_grpc.SchedulerServiceServicer):
    def __init__(self, node_id: NodeId, control: Control, admission: Admission) -> None:
        self._node_id = node_id
        self._control = control
        self._admission = admission
        self._planning = Planning(control)
        self._takeover = Takeover(node_id, control, DEPLOYMENT_COUNT_MAX)
        self._deploying = asyncio.Lock()

    async def Deploy(self, request: scheduler_pb2.DeployRequest, context: Any) -> scheduler_pb2.DeployResponse:
        # Two of one name at once would both find it free.
        async with self._deploying:
            return await self._deploy(request)

    async def _deploy(self, request: scheduler_pb2.DeployRequest) -> scheduler_pb2.DeployResponse:
        model = _model(request.spec)
        name = request.spec.name or default_name(model)
        if not NAME.fullmatch(name):
            raise InvalidRequest(f"name: {name!r} must match {NAME.pattern}", param="name")
        spec = replace(wire.spec(request.spec, name), model=model)
        known = self._control.named(name)
        if known is None:
            if len(self._control.wishes()) >= DEPLOYMENT_COUNT_MAX:
                raise InvalidRequest(f"there are {DEPLOYMENT_COUNT_MAX} deployments already; undeploy one")
            wish = Wish(spec, InstanceId(f"i{uuid.uuid4().hex[:12]}"), time.time())
        elif known.undeploying:
            raise NameTaken(f"{name} is being undeployed; deploy it again in a moment", name=name)
        elif known.spec != spec:
            raise NameTaken(
                f"{name} is deployed already, from {known.spec.model}: run `thunderline undeploy {name}` first, "
                "or give another --name",
                name=name,
            )
        else:
            # Once more by a human: what failed before does not count, nor does the start that is under way.
            wish = known.again(time.time())
            self._control.runners.forget(model)
        await self._control.put(wish)
        return scheduler_pb2.DeployResponse(deployment=self._deployment(wish))

    async def Undeploy(self, request: scheduler_pb2.UndeployRequest, context: Any) -> scheduler_pb2.UndeployResponse:
        wish = self._control.named(request.name)
        if wish is None:
            raise NotFound(f"{request.name!r} is not deployed", param="name")
        if not wish.undeploying:
            await self._control.put(replace(wish, undeploying=True))
        return scheduler_pb2.UndeployResponse()

    async def ListDeployments(
        self, request: scheduler_pb2.ListDeploymentsRequest, context: Any
    ) -> scheduler_pb2.ListDeploymentsResponse:
        return scheduler_pb2.ListDeploymentsResponse(deployments=self._deployments())

    async def GetCluster(
        self, request: scheduler_pb2.GetClusterRequest, context: Any
    ) -> scheduler_pb2.GetClusterResponse:
        return scheduler_pb2.GetClusterResponse(cluster=self._cluster())

    async def WatchCluster(
        self, request: scheduler_pb2.WatchClusterRequest, context: Any
    ) -> AsyncIterator[scheduler_pb2.WatchClusterResponse]:
        async for cluster in watch(self._control.changes, self._cluster, WATCH_PACE_S):
            yield scheduler_pb2.WatchClusterResponse(cluster=cluster)

    async def PlanPlacement(
        self, request: planning_pb2.PlanPlacementRequest, context: Any
    ) -> planning_pb2.PlanPlacementResponse:
        return await self._planning.plan(_model(request.spec), request)

    async def WatchEvents(
        self, request: scheduler_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[scheduler_pb2.WatchEventsResponse]:
        async for event in self._control.events.watch(request.after, request.kept_only):
            yield scheduler_pb2.WatchEventsResponse(event=_event(event))

    async def AdoptRunners(
        self, request: scheduler_pb2.AdoptRunnersRequest, context: Any
    ) -> scheduler_pb2.AdoptRunnersResponse:
        # What is found may have the name of what is being deployed.
        async with self._deploying:
            return await self._takeover.adopt(request.store_ids)

    async def DrainNode(self, request: scheduler_pb2.DrainNodeRequest, context: Any) -> scheduler_pb2.DrainNodeResponse:
        raise NotOffered("a cluster is one node so far: draining it would leave nothing")

    async def Generate(
        self, request: scheduler_pb2.SchedulerServiceGenerateRequest, context: Any
    ) -> AsyncIterator[scheduler_pb2.SchedulerServiceGenerateResponse]:
        raise AssertionError("relay.py is registered before this")
        yield scheduler_pb2.SchedulerServiceGenerateResponse()  # makes it a stream

    def _cluster(self) -> scheduler_pb2.Cluster:
        return scheduler_pb2.Cluster(
            store_id=self._control.store_id,
            scheduler_node_id=self._node_id,
            roster=self._control.runners.roster,
            deployments=self._deployments(),
            complete=self._control.runners.complete,
            problems=self._control.runners.refusals().values(),
        )

    def _deployments(self) -> list[cluster_pb2.Deployment]:
        return [self._deployment(wish) for wish in self._control.wishes()]

    def _deployment(self, wish: Wish) -> cluster_pb2.Deployment:
        standing, since_s = self._control.standing(wish)
        ranks = [
            report
            for runner in self._control.runners.nodes.values()
            for report in runner.reports
            if report.id.instance == wish.instance and report.state != cluster_pb2.RANK_STATE_ABSENT
        ]
        return wire.deployment(wish, standing, since_s, ranks, self._admission.depth(wish.spec.name))


def _model(spec: cluster_pb2.DeploymentSpec) -> str:
    """Of a wish that makes sense, as far as it goes without asking anybody. Raises InvalidRequest."""
    model = spec.model.strip()
    if not model or len(model) > MODEL_LENGTH_MAX:
        raise InvalidRequest("model: a folder or a Hugging Face id is needed", param="model")
    if spec.kv_budget_tokens < 0:
        raise InvalidRequest("kv_budget_tokens: must not be negative", param="kv_budget_tokens")
    return model


def _event(event: Event) -> scheduler_pb2.Event:
    found = scheduler_pb2.Event(
        number=event.number,
        kind=event.kind,
        subject=event.subject,
        text=event.text,
        request_count=event.request_count,
        done=event.done,
    )
    found.time.FromMilliseconds(int(event.time_s * 1000))
    return found
