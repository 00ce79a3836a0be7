"""A scheduler on loopback, wired as its __main__ does it, with the real discovery, a real store and a little runner."""

import asyncio
import contextlib
import socket
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
from prometheus_client import REGISTRY

from scheduler.little_runner import LittleRunner
from thunderline.client import SchedulerClient
from thunderline.cluster import NodeId
from thunderline.cluster.limits import Limits
from thunderline.discovery import wire
from thunderline.discovery.membership import Membership
from thunderline.discovery.service import DiscoveryService
from thunderline.rpc.moving import Moving
from thunderline.rpc.server import Server, serving
from thunderline.rpc.ways import Ways
from thunderline.scheduler.admission import Admission
from thunderline.scheduler.control import Control
from thunderline.scheduler.relay import SERVICE, Relay
from thunderline.scheduler.runners import Runners
from thunderline.scheduler.service import SchedulerService
from thunderline.scheduler.store import Store
from thunderline.scheduler.values import Wish
from thunderline.v1 import cluster_pb2, discovery_pb2_grpc

NODE = NodeId("node")
WAIT_S = 0.3
LIMITS = Limits(epoch_wait_min_s=WAIT_S, epoch_wait_max_s=WAIT_S, queue_wait_s=5.0, rank_request_count_max=1)
ROOM = replace(LIMITS, rank_request_count_max=8)
SOON_S = 15.0
NAMES = {value: name.removeprefix("DEPLOYMENT_STATE_") for name, value in cluster_pb2.DeploymentState.items()}


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@dataclass
class Life:
    """One life of the scheduler."""

    control: Control
    admission: Admission
    relay: Relay
    client: SchedulerClient
    address: str
    # The loop around the reconciler: done means that the role would have ended.
    task: "asyncio.Task[None]"
    # Every (state, reason) of the deployment "m", in order.
    seen: list[tuple[str, str]] = field(default_factory=list)

    def look(self) -> None:
        wish = self.control.named("m")
        if wish is not None:
            standing, _ = self.control.standing(wish)
            now = (standing.state.name, standing.reason)
            if not self.seen or self.seen[-1] != now:
                self.seen.append(now)

    @property
    def states(self) -> list[str]:
        """Without repetition."""
        names = [state for state, _ in self.seen]
        return [state for before, state in zip([None, *names], names, strict=False) if state != before]

    @property
    def wish(self) -> Wish:
        wish = self.control.named("m")
        assert wish is not None
        return wish

    async def deploy(self) -> None:
        await self.client.deploy(cluster_pb2.DeploymentSpec(name="m", model="org/m"))

    async def until(self, what: str, look: Callable[[], bool], timeout_s: float = SOON_S) -> None:
        """Looks after every pass of the control loop."""
        try:
            async with asyncio.timeout(timeout_s):
                while not look():
                    assert not self.task.done(), "the role has ended"
                    seen = self.control.changes.version
                    await self.control.changes.after(seen)
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s} s: {what}; {self.seen}") from None

    async def until_state(self, state: str) -> None:
        await self.until(state, lambda: bool(self.seen) and self.seen[-1][0] == state)

    def generation(self, **wish: str) -> cluster_pb2.Generation:
        return cluster_pb2.Generation(**{"request_id": str(uuid.uuid4()), "model": "m", "text": "one two", **wish})  # type: ignore[arg-type]


@dataclass
class House:
    """What outlives the scheduler."""

    folder: Path
    runner: LittleRunner
    discovery: str
    # Where its topology is, if it has one.
    topology: str = ""
    _server: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start_runner(self) -> Server:
        return await self._server.enter_async_context(self.runner.running())

    async def stop_runner(self) -> None:
        """Its connections break, as at its death."""
        await self._server.aclose()

    @contextlib.asynccontextmanager
    async def scheduler(self, limits: Limits = LIMITS) -> AsyncIterator[Life]:
        store = Store(self.folder, NODE)
        ways = Ways(self.topology, hears_all=True) if self.topology else None
        control = Control(store, Runners(Moving.at(self.discovery), store.store_id, ways=ways), limits)
        admission = Admission(control.doors, limits.queue_size_max, limits.rank_request_count_max, limits.queue_wait_s)
        control.listen(admission.pump)
        relay = Relay(control, admission, limits.request_deadline_s)
        control.listen(relay.tidy)
        service = SchedulerService(NODE, control, admission)
        address = free_address()
        try:
            await control.load()
            async with (
                serving(address, [SERVICE], lambda server: relay.register(service, server)) as server,
                SchedulerClient(address) as client,
            ):
                task = asyncio.create_task(control.run())
                life = Life(control, admission, relay, client, address, task)
                control.listen(life.look)
                try:
                    yield life
                finally:
                    control.changes.stop()
                    relay.stop()
                    await server.drain(1)
                    task.cancel()
                    await asyncio.wait({task}, timeout=5)
        finally:
            control.close()

    def disk(self) -> sqlite3.Connection:
        """The store's file, for a test to look into and to break."""
        return sqlite3.connect(self.folder / "scheduler.db", isolation_level=None)

    @contextlib.contextmanager
    def without_writing_epochs(self) -> Iterator[None]:
        """A disk that takes no change of an epoch."""
        with contextlib.closing(self.disk()) as disk:
            disk.execute("CREATE TRIGGER full BEFORE UPDATE ON epochs BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
            yield
            disk.execute("DROP TRIGGER full")

    def epochs(self) -> list[tuple[int, bool, bool, str | None, bool]]:
        """(number, was READY, is over, cause, answered), from the disk."""
        with contextlib.closing(self.disk()) as disk:
            rows = disk.execute(
                "SELECT number, ready_s, ended_s, cause, answered FROM epochs ORDER BY number"
            ).fetchall()
        return [
            (number, ready is not None, over is not None, cause and cause.split('"')[1], bool(answered))
            for number, ready, over, cause, answered in rows
        ]


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """Discovery and a runner; the test starts the scheduler, as often as it likes."""
    runner = LittleRunner(NODE, free_address())
    host, _, port = runner.address.rpartition(":")
    card = cluster_pb2.NodeCard(
        node_id=NODE, endpoints=[cluster_pb2.RoleEndpoint(role="runner", host=host, port=int(port))]
    )
    members = Membership(wire.to_card(card), alone=True)
    service = DiscoveryService(members)

    def register(server: grpc.aio.Server) -> None:
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(service, server)

    found = House(folder, runner, free_address())
    async with serving(found.discovery, ["thunderline.v1.DiscoveryService"], register):
        await found.start_runner()
        try:
            yield found
        finally:
            members.changes.stop()
            await found.stop_runner()


@contextlib.asynccontextmanager
async def served(folder: Path, limits: Limits = LIMITS) -> AsyncIterator[tuple[House, Life]]:
    """A deployment "m" that is READY."""
    async with house(folder) as home, home.scheduler(limits) as life:
        await life.deploy()
        await life.until_state("READY")
        yield home, life


def series() -> set[tuple[str, str]]:
    """(name, value of a label) of every series of "m" that is exposed."""
    return {
        (sample.name, sample.labels["deployment"])
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.labels.get("deployment") == "m"
    }
