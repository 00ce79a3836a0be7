"""`thunderline topology`: how nodes are joined. One on every node."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence

import grpc

from thunderline.cluster.addresses import target
from thunderline.process import metrics, stopping
from thunderline.process.changes import Changes
from thunderline.process.entry import run_role
from thunderline.process.home import node_id
from thunderline.process.settings import Settings
from thunderline.process.trust import Wallet
from thunderline.process.version import VERSION
from thunderline.rpc.server import serving
from thunderline.topology import memory
from thunderline.topology.echo import Echo
from thunderline.topology.echo_messages import speaker
from thunderline.topology.ends import Ends
from thunderline.topology.exchange import Exchange
from thunderline.topology.keeping import Keeper, follow_roster
from thunderline.topology.knowledge import Knowledge
from thunderline.topology.measuring import Measuring
from thunderline.topology.members import begun_again, members
from thunderline.topology.permits import Permits
from thunderline.topology.prober import Prober
from thunderline.topology.service import TopologyService
from thunderline.topology.telling import Teller, chosen
from thunderline.v1 import discovery_pb2, topology_pb2, topology_pb2_grpc

SERVICE = "thunderline.v1.TopologyService"
# A thread that computes lets go of the interpreter after this; by default 5 ms, and a probe would show them.
SWITCH_S = 0.0005


class Role:
    """What `serve` starts, wired."""

    def __init__(self, settings: Settings, wallet: Wallet, ends: Ends) -> None:
        node, limits = node_id(settings.home), settings.limits
        start, cables = memory.next_start(settings.home), memory.kept_cables(settings.home)
        own, permits, timeout_s = speaker(node, settings.cluster.name), Permits(), limits.probe_timeout_s

        def touched() -> None:
            self.keeper.touched()

        self.changes = Changes()
        self.ends = ends
        self.knowledge = Knowledge(node, start, cables, limits.probe_period_s)
        self.prober = Prober(own, ends, limits, touched)
        self.echo = Echo(own, ends, permits, timeout_s, self.prober.heard)
        self.exchange = Exchange(self.knowledge, limits, wallet, touched)
        self.keeper = Keeper(self.knowledge, self.prober, self.exchange, self.changes, settings.home, limits)
        self._teller = Teller()
        self.measuring = Measuring(self.knowledge, own, ends, timeout_s, wallet)
        self.service = TopologyService(
            self.changes,
            self.topology,
            lambda: chosen(self.knowledge, self.keeper.complete),
            lambda: self.knowledge.version,
            self.exchange,
            self.measuring,
            permits,
        )

    def topology(self) -> topology_pb2.Topology:
        tried_at_s = self.prober.tried_at_s
        return self._teller.topology(self.knowledge, self.ends.interfaces, tried_at_s, self.keeper.complete)

    def follow(self, roster: discovery_pb2.Roster) -> None:
        """The roster is another one."""
        before, after = self.knowledge.members, members(roster, self.knowledge.node)
        if after == before:
            return
        if not after.awaits_machine:
            # A discovery that has begun again knows nothing of them for some seconds.
            self.ends.learn(after.media)
        self.echo.members = frozenset(after.peers)
        self.knowledge.follow(after)
        self.prober.follow(after)
        for node in begun_again(before, after):
            self.exchange.begun_again(node)
        self.exchange.changes.notify()
        self.keeper.touched()

    def register(self, server: grpc.aio.Server) -> None:
        topology_pb2_grpc.add_TopologyServiceServicer_to_server(self.service, server)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Role]:
    """Serves for the time of the block; then watches end, and calls under way get their time."""
    wallet = Wallet(settings.home, settings.cluster.name)
    ends = await asyncio.to_thread(Ends, settings.media, platform=settings.platform)
    role = Role(settings, wallet, ends)
    address = target(settings.node.bind, settings.topology.port)
    with contextlib.ExitStack() as stack:
        stack.callback(role.ends.close)
        stack.callback(role.echo.stop)
        role.echo.listen(settings.node.bind, settings.topology.echo_port)
        async with serving(address, [SERVICE], role.register, wallet) as server:
            port = settings.topology.port
            stack.enter_context(metrics.served("topology", VERSION, settings.node.metrics_bind, port))
            await server.serving()
            # A bug in one of the tasks ends the role with its reason.
            async with asyncio.TaskGroup() as tasks:
                discovery = target(settings.host, settings.discovery.port)
                works = [
                    role.echo.run(),
                    role.prober.run(),
                    role.exchange.run(),
                    role.keeper.run(),
                    role.keeper.keep_interfaces(role.ends),
                    follow_roster(discovery, wallet, role.knowledge.node, role.follow),
                ]
                started = [tasks.create_task(work) for work in works]
                yield role
                role.echo.stop()
                for one in started:
                    one.cancel()
            role.changes.stop()
            role.exchange.changes.stop()
            role.measuring.stop()
            await server.drain(settings.limits.drain_s)


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    async with running(settings):
        await stopping.stop_asked()


def main(argv: Sequence[str]) -> int:
    sys.setswitchinterval(SWITCH_S)
    return run_role("topology", __doc__ or "", argv, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
