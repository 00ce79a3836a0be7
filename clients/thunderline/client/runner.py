"""RunnerService, as far as a client may use it: only the scheduler commands ranks."""

from typing import Any

from thunderline.client.connection import Connection, called_again
from thunderline.v1 import runner_pb2, runner_pb2_grpc

# Every weight file's header is read.
LIST_DEADLINE_S = 30.0


class RunnerClient(Connection):
    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._stub: Any = runner_pb2_grpc.RunnerServiceStub(self._channel)

    async def models(self) -> list[runner_pb2.Model]:
        """The models in this node's folders."""
        response: runner_pb2.ListModelsResponse = await called_again(
            self._stub.ListModels, runner_pb2.ListModelsRequest(), LIST_DEADLINE_S
        )
        return list(response.models)
