"""`thunderline discovery`: who is in the cluster. One on every node."""

import asyncio
import logging
import sys
import uuid
from collections.abc import Callable, Sequence

import grpc
from prometheus_client import Gauge

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import target
from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.members import MemberState
from thunderline.cluster.transport import is_loopback
from thunderline.discovery import memory, wire
from thunderline.discovery import roster as rosters
from thunderline.discovery.card import Origin, card, next_incarnation
from thunderline.discovery.exchanging import Exchanging
from thunderline.discovery.member_life import Waits
from thunderline.discovery.membership import Membership
from thunderline.discovery.service import DiscoveryService
from thunderline.discovery.values import Life
from thunderline.process import metrics, stopping
from thunderline.process.authority import Announced, announced
from thunderline.process.entry import CannotStart, run_role
from thunderline.process.home import node_id
from thunderline.process.interfaces import interfaces
from thunderline.process.macos.scanning import Scanner
from thunderline.process.rereading import Rereading
from thunderline.process.settings import Settings
from thunderline.process.trust import Wallet
from thunderline.process.version import VERSION
from thunderline.rpc.renewing import Renewing
from thunderline.rpc.server import serving
from thunderline.rpc.ways import Ways
from thunderline.v1 import cluster_pb2, discovery_pb2_grpc

SERVICE = "thunderline.v1.DiscoveryService"
# A cable that is plugged in is on the card within this time.
LOOK_EVERY_S = 1.0
# Members are written at most this often.
WRITE_EVERY_S = 1.0

MEMBERS = Gauge("thunderline_members", "Members of the cluster by state.", ["state"])

log = logging.getLogger(__name__)


class OwnCard:
    """Reads the card of this start. Blocking."""

    def __init__(self, settings: Settings, wallet: Wallet, scanner: Scanner) -> None:
        """Raises CannotStart."""
        life = Life(next_incarnation(settings.home), uuid.uuid4().hex)
        self.origin = Origin(node_id(settings.home), life, settings)
        self._wallet = wallet
        self._scanner = scanner
        self._was_read = False

    def read(self) -> cluster_pb2.NodeCard:
        """With what the scanner knows by now. Raises OSError; CannotStart when this node is another one now."""
        settings = self.origin.settings
        if node_id(settings.home) != self.origin.node_id:
            raise CannotStart(f"{settings.home / 'node.json'} names another node now: start it again to be that one")
        machine = self._scanner.facts
        found = interfaces(overrides=settings.media, machine=machine, platform=settings.platform)
        # Without the media, which follow from what it finds.
        self._scanner.saw(tuple((one.name, one.is_up, one.addresses) for one in found))
        return card(self.origin, found, self._announced(), machine)

    def _announced(self) -> Announced:
        """A broken left.json is a reason not to start; later the card stays as it was meanwhile."""
        try:
            found = announced(self.origin.settings.home, self._wallet)
        except CannotStart as error:
            if not self._was_read:
                raise
            raise OSError(str(error)) from None
        self._was_read = True
        return found


async def keep_card(
    read: Callable[[], cluster_pb2.NodeCard], members: Membership, every_s: float = LOOK_EVERY_S
) -> None:
    """Renews it when an interface comes, goes or changes, or the authorities do, or the scanner finds something else.
    `read`: see OwnCard."""
    known, reading = wire.whole(members.own), Rereading("this node's card", read)
    while True:
        await asyncio.sleep(every_s)
        newest = await reading.look()
        if newest is None:
            continue
        newest.revision = known.revision
        if newest != known:
            newest.revision += 1
            known = newest
            members.renew(wire.to_card(newest))


async def keep_books(settings: Settings, members: Membership) -> None:
    """Counts members by state, and writes down who has to be looked for after a restart."""
    written = None
    while True:
        seen = members.changes.version
        states = [member.state for member in members.roster.members.values()]
        for state in MemberState:
            MEMBERS.labels(state.name).set(states.count(state))
        cards = rosters.to_remember(members.roster)
        if cards != written:
            try:
                await asyncio.to_thread(memory.remember, settings.home, cards)
                written = cards
            except OSError as error:
                # Tried again with the next change.
                log.warning("the members cannot be written down", extra={"why": str(error)})
        await asyncio.sleep(WRITE_EVERY_S)
        await members.changes.after(seen)


async def find_by_multicast(members: Membership, port: int) -> None:
    # Its import takes a moment, and one node alone has no use for it.
    from thunderline.discovery.mdns import Mdns

    await Mdns(members, port).run()


def begun(settings: Settings, own: OwnCard) -> Membership:
    """The roster as it is at the start. Blocking."""
    known = memory.remembered(settings.home)
    seeds = settings.discovery.seed_targets
    limits = settings.limits
    alone = is_loopback(settings.node.bind) and not seeds and not known
    waits = Waits(limits.heartbeat_s, limits.suspect_s, limits.dead_s)
    scheduler = NodeId(settings.cluster.scheduler) or own.origin.node_id
    return Membership(wire.to_card(own.read()), known, seeds, waits, alone=alone, scheduler=scheduler)


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    wallet = Wallet(settings.home, settings.cluster.name)
    try:
        secured = wallet if wallet.identity() is not None else None
    except Unauthenticated as error:
        raise CannotStart(error.message) from None
    scanner = Scanner(settings)
    own = OwnCard(settings, wallet, scanner)
    members = begun(settings, own)
    node, host = own.origin.node_id, settings.host
    ways = Ways(target(host, settings.topology.port), wallet, node)
    exchanging = Exchanging(members, secured, lambda: ways.best)

    def scheduler_card() -> cluster_pb2.NodeCard | None:
        member = members.roster.members.get(NodeId(settings.cluster.scheduler))
        return wire.whole(member.card) if member is not None else None

    renewing = Renewing(settings.home, wallet, scheduler_card, lambda one: ways.best.get(one))
    service = DiscoveryService(members, secured)

    def register(server: grpc.aio.Server) -> None:
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(service, server)

    async with serving(target(settings.node.bind, settings.discovery.port), [SERVICE], register, wallet) as server:
        with metrics.served("discovery", VERSION, settings.node.metrics_bind, settings.discovery.port):
            await server.serving()
            # A bug in a task ends the role with its reason.
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(exchanging.run(), name="exchanging"),
                    tasks.create_task(keep_card(own.read, members), name="card"),
                    tasks.create_task(scanner.run(), name="scanner"),
                    tasks.create_task(keep_books(settings, members), name="books"),
                    tasks.create_task(ways.run(), name="ways"),
                    tasks.create_task(renewing.run(), name="renewing"),
                ]
                if settings.discovery.mdns and not is_loopback(settings.node.bind):
                    finding = find_by_multicast(members, settings.discovery.port)
                    running.append(tasks.create_task(finding, name="multicast"))
                await stopping.stop_asked()
                for one in running:
                    one.cancel()
            members.changes.stop()
            await server.drain(settings.limits.drain_s)


def main(argv: Sequence[str]) -> int:
    return run_role("discovery", __doc__ or "", argv, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
