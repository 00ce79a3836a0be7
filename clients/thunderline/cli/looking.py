"""One look of `doctor` at this node, its roles, and what discovery and topology know of the others.

What follows from what it sees is decided in findings/. Everything has a time-out, and nothing is changed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import psutil

from thunderline.cli import dialling, examining, saying, scanning, up
from thunderline.cli.findings import elsewhere, finding, hardware, links, machine, privacy, roles, roster, trust
from thunderline.cli.findings.cables import cables
from thunderline.cli.findings.finding import Finding
from thunderline.cli.findings.macs import Mac
from thunderline.cli.findings.roles import Answer, Place, RoleLook
from thunderline.cli.findings.trust import Own, Try
from thunderline.client import DiscoveryClient, TopologyClient
from thunderline.cluster.errors import ClusterError
from thunderline.process.home import remembered_ports
from thunderline.process.metrics import PORT_OFFSET
from thunderline.process.settings import DARWIN, Settings
from thunderline.process.trust import Wallet
from thunderline.v1 import discovery_pb2, topology_pb2

GRPC_ROLES = ("discovery", "topology", "scheduler", "runner")
# A look at a file system or a list of sockets; a dead network disk would hold it for ever.
LOOK_S = 5.0
# Addresses of members that are away, and seeds; so many at a time.
TRY_COUNT_MAX, TRIES_AT_ONCE = 64, 16
# Who waits longer is told for what.
PATIENCE_S = 1.0
SHOWN_COUNT_MAX = 3
THIS_NODE = "this node"

T = TypeVar("T")


class Look:
    """At one node; `everybody`: at the cards of the others too. `findings` in the order in which they are found."""

    def __init__(self, settings: Settings, everybody: bool = False) -> None:
        self.findings: list[Finding] = []
        self.node_id = ""
        self._everybody = everybody
        self._settings = settings
        self._wallet = Wallet(settings.home, settings.cluster.name)
        self._place = Place(str(settings.home), examining.up_pid(settings.home))
        self._ports: Mapping[str, int] = {}
        # What is waited for now.
        self._looking_at: list[str] = []

    @contextlib.asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Who waits is told for what, after a second."""
        telling = asyncio.create_task(self._tell())
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self) -> None:
        await asyncio.sleep(PATIENCE_S)
        with saying.Progress() as progress:
            while True:
                if self._looking_at:
                    shown, more = self._looking_at[:SHOWN_COUNT_MAX], len(self._looking_at) - SHOWN_COUNT_MAX
                    progress.say(f"looking at {finding.joined([*shown, f'{more} more'] if more > 0 else shown)}")
                await asyncio.sleep(PATIENCE_S / 2)

    async def run(self) -> None:
        settings = self._settings
        own = await self._within("this node's certificate", LOOK_S, lambda: examining.own(settings, self._wallet))
        # As the `up` that runs here has said, else as the settings say.
        remembered = remembered_ports(settings.home)
        ports = up.ports(settings, own is None or own.is_scheduler_node)
        self._ports = {name: remembered.get(name, port) for name, port in ports.items()}
        if own is not None:
            self.node_id = own.node_id
            self.findings += trust.of_own(own)
        _, (known, graph) = await asyncio.gather(self._machine(), self._services(own))
        macs = await self._macs(known)
        found = cables(macs)
        for one in macs:
            if one.node == self.node_id:
                self.findings += hardware.of_mac(one, found, settings.runner.memory_bytes, self._place.config)
        if known is not None and graph is not None and settings.platform == DARWIN:
            await self._privacy(graph, known)
        if not self._everybody:
            self.findings += hardware.between(macs, found, self.node_id)
            return
        self.findings = [replace(one, node=self._name(known)) for one in self.findings]
        self.findings += hardware.of_others([one for one in macs if one.node != self.node_id], found)
        self.findings += hardware.between(macs, found)
        if known is not None and own is not None:
            self.findings += elsewhere.of_others(known, graph, own.now_s, self._place.log("topology"))

    async def _machine(self) -> None:
        settings, config, is_mac = self._settings, self._place.config, self._settings.platform == DARWIN
        doors = trust.Doors(settings.gateway.bind, bool(settings.gateway.api_keys), settings.node.metrics_bind)
        self.findings += trust.of_doors(doors, config)
        metrics = {f"{role} metrics": self._ports[role] + PORT_OFFSET for role in GRPC_ROLES if role in self._ports}
        self.findings += machine.of_ports({**self._ports, **metrics}, config)
        self.findings += machine.of_file_limit(*examining.file_limit(), is_mac)
        wanted_bytes = settings.runner.memory_bytes
        kept, disks, memory, engine = await asyncio.gather(
            self._within("the home's permissions", LOOK_S, lambda: examining.kept(settings.home)),
            self._within("disks", LOOK_S, lambda: examining.disks(settings)),
            self._within("memory", LOOK_S, examining.memory),
            self._within("BLAS", examining.ENGINE_S + LOOK_S, lambda: (examining.engine(),)),
        )
        if kept is not None:
            self.findings += trust.of_kept(*kept, str(settings.home))
        self.findings += machine.of_disks(disks or [], config)
        if memory is not None:
            self.findings += machine.of_memory(memory, wanted_bytes, config)
        if engine is not None:
            self.findings += machine.of_engine(*engine)

    async def _services(self, own: Own | None) -> tuple[discovery_pb2.Roster | None, topology_pb2.Topology | None]:
        """What discovery and topology know, when they are this node's."""
        looks = await self._looks(own)
        serving = {one.role: one.address for one in looks if one.answer is Answer.SERVING}
        known, graph = await asyncio.gather(
            self._asked("discovery", serving, self._roster), self._asked("topology", serving, self._topology)
        )
        if known is not None and own is not None:
            strange = roles.of_another_node(own.node_id, known.node_id, looks, self._place)
            if strange:
                self.findings += strange
                return None, None
            looks += await self._echo(known, serving)
        self.findings += roles.of_roles(looks, self._place)
        if known is None or own is None:
            return known, graph
        tries, seeds = await self._tries(known, own)
        self.findings += roster.of_roster(known, own, tries)
        self.findings += trust.of_seeds(own, seeds)
        if graph is not None:
            alive_s = roster.alive_s(known, own.now_s)
            peers = links.Peers(roster.peers(known), alive_s, roster.ports(known, "echo"))
            self.findings += links.of_links(graph, peers, self._place.log("topology"))
        return known, graph

    async def _macs(self, known: discovery_pb2.Roster | None) -> list[Mac]:
        """Those that are ALIVE, by their cards; this one, the first, by a scan where its card does not tell."""
        found = [] if known is None else scanning.macs(known)
        own = [replace(one, name=self._name(known)) for one in found if one.node == self.node_id]
        if self._settings.platform == DARWIN and not own:
            with self._waiting_for("the hardware"):
                own = await self._scanned(self._name(known))
        return own + [one for one in found if one.node != self.node_id]

    async def _scanned(self, name: str) -> list[Mac]:
        try:
            return [await scanning.scanned(self._settings, self.node_id, name)]
        except (OSError, TimeoutError, psutil.Error) as error:
            remedy = "run `thunderline doctor` once more, as the user whose node it is"
            why = str(error) or "that did not end in time"
            self.findings.append(finding.warning("the hardware could not be looked at", why, remedy))
            return []

    async def _privacy(self, graph: topology_pb2.Topology, known: discovery_pb2.Roster) -> None:
        suspected = privacy.suspects(graph, roster.peers(known))
        if not suspected:
            return
        with self._waiting_for("the local network"):
            tries = scanning.dials(suspected, roster.ports(known, "echo"))
            dials, router = await asyncio.gather(tries, scanning.router())
        self.findings += privacy.of_privacy(graph, dials, router)

    def _name(self, known: discovery_pb2.Roster | None) -> str:
        """Of this node, as it is called where several are looked at."""
        if not self._everybody or known is None:
            return THIS_NODE
        return roster.names(known).get(known.node_id, THIS_NODE)

    async def _roster(self, target: str) -> discovery_pb2.Roster:
        async with DiscoveryClient(target, self._wallet) as discovery:
            return await discovery.roster()

    async def _topology(self, target: str) -> topology_pb2.Topology:
        async with TopologyClient(target, self._wallet) as topology:
            return await topology.topology()

    async def _looks(self, own: Own | None) -> list[RoleLook]:
        """At every role that this node should run."""
        expected = [one for one in (*GRPC_ROLES, "gateway") if one in self._ports]
        found = await asyncio.gather(*(self._look_at(role, own) for role in expected))
        if all(one.answer is Answer.SERVING for one in found):
            return list(found)
        owners = await self._within("who listens", LOOK_S, examining.listeners) or {}
        await self._blocked([one.role for one in found if one.answer is Answer.NOBODY], owners)
        needed = set(expected) if self._place.up_pid else {"discovery", "topology", "scheduler"}
        return [
            replace(
                one,
                owner=owners.get(self._ports[one.role]),
                last_words=examining.last_words(Path(self._place.log(one.role)), one.role),
                is_needed=one.role in needed,
            )
            for one in found
        ]

    async def _look_at(self, role: str, own: Own | None) -> RoleLook:
        bind = self._settings.gateway.bind if role == "gateway" else self._settings.host
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(bind, bind)
        with self._waiting_for(role):
            return await dialling.look_at(role, host, self._ports[role], self._wallet, own)

    async def _blocked(self, away: list[str], owners: Mapping[int, machine.Owner]) -> None:
        """Ports that keep roles that do not run from starting."""
        node, gateway, wanted = self._settings.node, self._settings.gateway, []
        for role in away:
            own = [role, *(name for name, (section, _, _) in up.PORTS.items() if section == role and name != role)]
            binds = {"gateway": gateway.bind}
            wanted += [(name, binds.get(name, node.bind), self._ports[name]) for name in own]
            if role in GRPC_ROLES:
                wanted.append((f"{role} metrics", node.metrics_bind, self._ports[role] + PORT_OFFSET))
        found = await self._within("free ports", LOOK_S, lambda: examining.blocked(wanted)) or []
        blocked = [replace(one, owner=owners.get(one.port)) for one in found]
        self.findings += [machine.of_blocked(one, self._place.config) for one in blocked]

    async def _echo(self, known: discovery_pb2.Roster, serving: Mapping[str, str]) -> list[RoleLook]:
        """At the port that this node's card tells its peers."""
        port = roster.ports(known, "echo").get(known.node_id)
        if port is None or "topology" not in serving:
            return []
        host = self._settings.host
        answer, detail = await dialling.connected(host, port)
        return [RoleLook("echo", dialling.joined(host, port), answer, detail)]

    async def _tries(self, known: discovery_pb2.Roster, own: Own) -> tuple[dict[str, list[Try]], list[Try]]:
        """Every address of members that cannot be called, by node_id; and the seeds that are nobody's whom we know."""
        if own.is_unheard:
            return {}, []
        lost = roster.addresses_of_lost(known)
        seeds = self._settings.discovery.seed_targets
        strange = [one for one in seeds if one not in roster.addresses(known)]
        wanted = list(dict.fromkeys([address for some in lost.values() for address in some] + strange))
        gate = asyncio.Semaphore(TRIES_AT_ONCE)

        async def one_try(address: str) -> Try:
            async with gate:
                with self._waiting_for(address):
                    return await dialling.tried(address, self._wallet)

        tries = await asyncio.gather(*map(one_try, wanted[:TRY_COUNT_MAX]))
        found = {one.address: one for one in tries}
        by_node = {node: [found[one] for one in some if one in found] for node, some in lost.items()}
        return by_node, [found[one] for one in strange if one in found]

    async def _asked(self, role: str, serving: Mapping[str, str], ask: Callable[[str], Awaitable[T]]) -> T | None:
        if role not in serving:
            return None
        with self._waiting_for(f"what {role} knows"):
            try:
                async with asyncio.timeout(dialling.ANSWER_S):
                    return await ask(serving[role])
            except (ClusterError, TimeoutError) as error:
                why = f"{serving[role]}: {str(error) or 'no answer in time'}"
                remedy = f"`tail {self._place.log(role)}` says what it does; run `thunderline doctor` once more then"
                self.findings.append(finding.wrong(f"{role} serves, and answers no question", why, remedy))
                return None

    async def _within(self, what: str, limit_s: float, look: Callable[[], T]) -> T | None:
        """The result of a blocking look; None, and a finding, when it does not end in time."""
        with self._waiting_for(what):
            try:
                return await dialling.in_thread(look, limit_s)
            except TimeoutError:
                remedy = "run `thunderline doctor` once more; a network disk that hangs stops `df` too"
                why = f"that did not end within {limit_s:.0f} s"
            except (OSError, psutil.Error) as error:
                remedy = "run `thunderline doctor` as the user whose node it is"
                why = str(error)
        self.findings.append(finding.warning(f"{what} could not be looked at", why, remedy))
        return None

    @contextlib.contextmanager
    def _waiting_for(self, what: str) -> Iterator[None]:
        self._looking_at.append(what)
        try:
            yield
        finally:
            self._looking_at.remove(what)
