"""RunnerService, as far as a client may use it: only the scheduler commands ranks."""

from collections.abc import AsyncIterator

from thunderline.client.connection import Connection, called_again, streamed
from thunderline.client.generation import GENERATE_DEADLINE_S
from thunderline.v1 import cluster_pb2, runner_pb2, runner_pb2_grpc

# Every weight file's header is read.
LIST_DEADLINE_S = 30.0


class RunnerClient(Connection):
    stub = runner_pb2_grpc.RunnerServiceStub

    async def models(self) -> list[runner_pb2.Model]:
        """The models in this node's folders."""
        response: runner_pb2.ListModelsResponse = await called_again(
            self._stub.ListModels, runner_pb2.ListModelsRequest(), LIST_DEADLINE_S
        )
        return list(response.models)

    async def generate(
        self, target: cluster_pb2.RankId, wish: cluster_pb2.Generation, deadline_s: float = GENERATE_DEADLINE_S
    ) -> AsyncIterator[cluster_pb2.GenerationDelta]:
        """Straight at one rank, with no queue and no routing: for measurements. Raises ClusterError."""
        request = runner_pb2.RunnerServiceGenerateRequest(generation=wish, target=target)
        async for message in streamed(self._stub.Generate(request, timeout=deadline_s)):
            yield message.delta
