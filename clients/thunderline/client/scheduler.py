"""SchedulerService: deployments, the cluster, and generation."""

from collections.abc import AsyncIterator, Mapping

from thunderline.client import generation
from thunderline.client.connection import Connection, called, called_again
from thunderline.v1 import cluster_pb2, planning_pb2, scheduler_pb2, scheduler_pb2_grpc

# It asks runners, each with a deadline of its own.
ADOPT_S = 20.0
# It asks all runners about the model, 70 s at most, then one of them, 240 s at most, whether its architecture can be
# divided: mostly that is known, or takes half a minute.
PLAN_S = 330.0


class SchedulerClient(Connection):
    stub = scheduler_pb2_grpc.SchedulerServiceStub

    async def deploy(self, spec: cluster_pb2.DeploymentSpec) -> cluster_pb2.Deployment:
        """Writes the wish down; `watch_cluster` shows what becomes of it."""
        response: scheduler_pb2.DeployResponse = await called_again(
            self._stub.Deploy, scheduler_pb2.DeployRequest(spec=spec)
        )
        return response.deployment

    async def undeploy(self, name: str) -> None:
        await called(self._stub.Undeploy, scheduler_pb2.UndeployRequest(name=name))

    async def deployments(self) -> list[cluster_pb2.Deployment]:
        response: scheduler_pb2.ListDeploymentsResponse = await called_again(
            self._stub.ListDeployments, scheduler_pb2.ListDeploymentsRequest()
        )
        return list(response.deployments)

    async def cluster(self) -> scheduler_pb2.Cluster:
        response: scheduler_pb2.GetClusterResponse = await called_again(
            self._stub.GetCluster, scheduler_pb2.GetClusterRequest()
        )
        return response.cluster

    async def adopt_runners(self, store_ids: Mapping[str, str]) -> scheduler_pb2.AdoptRunnersResponse:
        """Runners that obey another store; those named, by node with the store that they obey, obey this one then."""
        request = scheduler_pb2.AdoptRunnersRequest(store_ids=store_ids)
        response: scheduler_pb2.AdoptRunnersResponse = await called_again(self._stub.AdoptRunners, request, ADOPT_S)
        return response

    async def plan_placement(
        self,
        spec: cluster_pb2.DeploymentSpec,
        policy: planning_pb2.PlacementPolicy | None = None,
        cluster: planning_pb2.ImaginedCluster | None = None,
    ) -> planning_pb2.PlanPlacementResponse:
        """Where a model would run, or in a cluster that is only written down. Nothing is started."""
        request = planning_pb2.PlanPlacementRequest(spec=spec, policy=policy, cluster=cluster)
        response: planning_pb2.PlanPlacementResponse = await called_again(self._stub.PlanPlacement, request, PLAN_S)
        return response

    async def watch_cluster(self) -> AsyncIterator[scheduler_pb2.Cluster]:
        """The whole cluster, then again at every change."""
        async for response in self._watched(lambda: self._stub.WatchCluster(scheduler_pb2.WatchClusterRequest())):
            yield response.cluster

    async def watch_events(self, after: int = 0, kept_only: bool = False) -> AsyncIterator[scheduler_pb2.Event]:
        """What happened after that number, oldest first, then what happens. Draining: the scheduler stops."""
        request = scheduler_pb2.WatchEventsRequest(after=after, kept_only=kept_only)
        async for response in self._watched(lambda: self._stub.WatchEvents(request)):
            # Where the connection moves to, the watch goes on behind this one.
            request.after = response.event.number
            yield response.event

    def generate(
        self,
        wish: cluster_pb2.Generation,
        deadline_s: float = generation.GENERATE_DEADLINE_S,
        observer: generation.Observer | None = None,
    ) -> AsyncIterator[cluster_pb2.GenerationDelta]:
        """Text as it comes, whatever dies meanwhile. See thunderline.client.generation."""
        return generation.generate(self._stub, wish, deadline_s, observer)
