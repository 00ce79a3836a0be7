"""What `doctor` finds out of Macs: from their cards, or of this one by its own commands. Nothing is changed."""

import asyncio
from collections.abc import Iterable, Mapping

import psutil

from thunderline.cli import dialling
from thunderline.cli.findings.macs import Mac
from thunderline.cli.findings.privacy import Dial, Router
from thunderline.cli.findings.roster import names
from thunderline.client import machine
from thunderline.cluster.members import MemberState
from thunderline.process.interfaces import interfaces
from thunderline.process.macos import networks, running
from thunderline.process.macos.scanning import scan_once
from thunderline.process.settings import DARWIN, Settings
from thunderline.v1 import cluster_pb2, discovery_pb2

# A scan ends by itself after half a minute, whatever hangs.
SCAN_S = 40.0
ROUTE, ROUTE_S = ("route", "-n", "get", "default"), 5.0
# DNS and the pages of its settings: a router takes or refuses one of them.
ROUTER_PORTS = (53, 80, 443)


def macs(roster: discovery_pb2.Roster) -> list[Mac]:
    """The members that are ALIVE and whose cards tell of a Mac, this node among them, in the order of their names."""
    named = names(roster)
    alive = [one.card for one in roster.members if one.state == MemberState.ALIVE.value]
    found = [_of_card(card, named[card.node_id]) for card in alive if card.operating_system.startswith(DARWIN)]
    return sorted(filter(None, found), key=lambda one: (one.name, one.node))


def _of_card(card: cluster_pb2.NodeCard, name: str) -> Mac | None:
    """None: it tells nothing of its hardware."""
    facts = machine.facts(card)
    if facts is None:
        return None
    addresses = {one.name: tuple(one.addresses) for one in card.interfaces if one.is_up}
    return Mac(card.node_id, name, facts, addresses, card.memory_bytes)


async def scanned(settings: Settings, node: str, name: str) -> Mac:
    """This one, by its commands, each with its time-out. Raises TimeoutError, OSError."""
    async with asyncio.timeout(SCAN_S):
        facts = await scan_once(settings)
    found = await dialling.in_thread(lambda: interfaces(machine=facts, platform=settings.platform), ROUTE_S)
    addresses = {one.name: one.addresses for one in found if one.is_up}
    return Mac(node, name, facts, addresses, psutil.virtual_memory().total)


async def dials(suspected: Iterable[tuple[str, str]], echo_ports: Mapping[str, int]) -> dict[str, Dial]:
    """How the echo of each (node_id, address) is reached from here, by address."""
    known = [(echo_ports[node], host) for node, host in suspected if node in echo_ports]
    found = await asyncio.gather(*(dialling.dialled(host, port) for port, host in known))
    return {host: one for (_, host), one in zip(known, found, strict=True)}


async def router(environ: Mapping[str, str] | None = None) -> Router:
    """The default one, and whether it answers at all."""
    told = await running.ran(ROUTE, ROUTE_S, environ)
    address = networks.route(told.output.text).gateway
    if not address:
        return Router()
    tries = await asyncio.gather(*(dialling.dialled(address, port) for port in ROUTER_PORTS))
    return Router(address, any(one.is_answered for one in tries))
