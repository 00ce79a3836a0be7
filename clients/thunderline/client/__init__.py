"""thunderline from Python: one class a service, async and typed, errors raised as thunderline.cluster.errors."""

from thunderline.client.discovery import DiscoveryClient
from thunderline.client.runner import RunnerClient
from thunderline.client.scheduler import SchedulerClient
from thunderline.client.topology import TopologyClient

__all__ = ["DiscoveryClient", "RunnerClient", "SchedulerClient", "TopologyClient"]
