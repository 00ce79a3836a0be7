"""What the scheduler's process does for the cluster's trust: it lets nodes in, renews, and turns a rotation."""

import asyncio
from collections.abc import Callable

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import target
from thunderline.cluster.callers import Caller
from thunderline.cluster.errors import Unauthenticated
from thunderline.process.entry import CannotStart
from thunderline.process.settings import Settings
from thunderline.process.trust import Wallet
from thunderline.scheduler.enrolling import SERVICE, Enrollment, EnrolmentPort, RenewingService
from thunderline.scheduler.rotating import Rotating
from thunderline.v1 import discovery_pb2, enrollment_pb2_grpc

__all__ = ["SERVICE", "Trust"]


def check_own(wallet: Wallet) -> None:
    """A scheduler starts on a node without a cluster, or on the scheduler node. Raises CannotStart."""
    try:
        own = wallet.identity()
    except Unauthenticated as error:
        raise CannotStart(error.message) from None
    if own is not None and own.facts.bearer.caller is not Caller.SCHEDULER:
        raise CannotStart(
            f"this node is a member of cluster {own.facts.bearer.cluster!r}: "
            "take [cluster] scheduler out of config.toml"
        )


class Trust:
    """On a node without a cluster it waits for `cluster init`."""

    def __init__(
        self, settings: Settings, node: NodeId, wallet: Wallet, roster: Callable[[], discovery_pb2.Roster]
    ) -> None:
        enrollment = Enrollment(settings.home, node, wallet, roster)
        self._renewing = RenewingService(enrollment)
        self._port = EnrolmentPort(target(settings.node.bind, settings.scheduler.enrollment_port), enrollment)
        self._rotating = Rotating(settings.home, wallet, roster, settings.limits.dead_s)

    def register(self, server: grpc.aio.Server) -> None:
        """Beside SchedulerService."""
        enrollment_pb2_grpc.add_EnrollmentServiceServicer_to_server(self._renewing, server)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._port.run(), name="enrolment")
            tasks.create_task(self._rotating.run(), name="rotation")
