"""grpc.health.v1, which every role serves."""

from typing import Any, ClassVar

from grpc_health.v1 import health_pb2, health_pb2_grpc

from thunderline.client.connection import Connection, called


class HealthClient(Connection):
    stub: ClassVar[Any] = health_pb2_grpc.HealthStub

    async def is_serving(self, deadline_s: float) -> bool:
        """Whether the role as a whole can do its work now. Asked once. Raises ClusterError."""
        response: health_pb2.HealthCheckResponse = await called(
            self._stub.Check, health_pb2.HealthCheckRequest(), deadline_s
        )
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)
