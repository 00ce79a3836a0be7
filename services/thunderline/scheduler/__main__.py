"""`thunderline scheduler`: what should run where; deployments, routing, admission. One per cluster."""

import asyncio
import sys
from collections.abc import Sequence

import grpc

from thunderline.cluster.addresses import target
from thunderline.process import metrics, stopping
from thunderline.process.entry import run_role
from thunderline.process.home import node_id
from thunderline.process.settings import Settings
from thunderline.process.trust import Wallet
from thunderline.process.version import VERSION
from thunderline.rpc.moving import Moving
from thunderline.rpc.server import serving
from thunderline.rpc.ways import Ways
from thunderline.scheduler.admission import Admission
from thunderline.scheduler.control import Control
from thunderline.scheduler.relay import SERVICE, Relay
from thunderline.scheduler.runners import Runners
from thunderline.scheduler.service import SchedulerService
from thunderline.scheduler.store import Store
from thunderline.scheduler.trust import SERVICE as ENROLMENT
from thunderline.scheduler.trust import Trust, check_own

SERVICES = [SERVICE, ENROLMENT]
# Nobody can ask while we stop, so it is short: for short calls, and for streams whose callers do not read.
STOP_S = 1.0


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT: streams break at once and go on at the next one; ranks and their epochs stay."""
    node, limits = node_id(settings.home), settings.limits
    wallet = Wallet(settings.home, settings.cluster.name)
    check_own(wallet)
    store = Store(settings.home, node)
    discovery = Moving.at(target(settings.host, settings.discovery.port), wallet, node)
    ways = Ways(target(settings.host, settings.topology.port), wallet, node, hears_all=True)
    control = Control(store, Runners(discovery, store.store_id, wallet, ways, limits), limits)
    admission = Admission(control.doors, limits.queue_size_max, limits.rank_request_count_max, limits.queue_wait_s)
    control.listen(admission.pump)
    service = SchedulerService(node, control, admission)
    relay = Relay(control, admission, limits.request_deadline_s)
    control.listen(relay.tidy)
    trust = Trust(settings, node, wallet, lambda: control.runners.roster)

    def register(server: grpc.aio.Server) -> None:
        relay.register(service, server)
        trust.register(server)

    try:
        await control.load()
        async with serving(target(settings.node.bind, settings.scheduler.port), SERVICES, register, wallet) as server:
            with metrics.served("scheduler", VERSION, settings.node.metrics_bind, settings.scheduler.port):
                control_task = asyncio.create_task(control.run())
                await server.serving()
                trust_task = asyncio.create_task(trust.run())
                stop = asyncio.create_task(stopping.stop_asked())
                await asyncio.wait({stop, control_task, trust_task}, return_when=asyncio.FIRST_COMPLETED)
                for task in (control_task, trust_task):
                    if task.done():
                        task.result()
                trust_task.cancel()
                control.changes.stop()
                relay.stop()
                await server.drain(min(limits.drain_s, STOP_S))
                control_task.cancel()
                await asyncio.wait({control_task, trust_task}, timeout=5)
    finally:
        control.close()


def main(argv: Sequence[str]) -> int:
    return run_role("scheduler", __doc__ or "", argv, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
