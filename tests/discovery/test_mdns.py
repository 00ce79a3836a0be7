"""Multicast DNS between roles on this machine, over real sockets."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import zeroconf.asyncio

from discovery.little_discovery import WAITS, free_port, little_card, until
from thunderline.cluster import NodeId
from thunderline.discovery import wire
from thunderline.discovery.mdns import Mdns
from thunderline.discovery.membership import Membership
from thunderline.v1 import cluster_pb2


@dataclass
class Announcing:
    members: Membership
    mdns: Mdns

    @property
    def node_id(self) -> NodeId:
        return self.members.own.node_id

    def knows(self, other: "Announcing") -> bool:
        return other.node_id in self.members.peers.leads


@contextlib.asynccontextmanager
async def announcing(card: cluster_pb2.NodeCard) -> AsyncIterator[Announcing]:
    members = Membership(wire.to_card(card), waits=WAITS)
    mdns = Mdns(members, card.endpoints[0].port, same_machine=True)
    running = asyncio.create_task(mdns.run())
    try:
        yield Announcing(members, mdns)
    finally:
        assert not running.done(), running
        running.cancel()
        await asyncio.wait({running})


async def test_they_find_each_other_and_show_who_is_of_another_cluster() -> None:
    async with (
        announcing(little_card(free_port())) as a,
        announcing(little_card(free_port())) as b,
        announcing(little_card(free_port(), cluster="theirs")) as c,
    ):
        # Other tests announce themselves too.
        await until("a and b have heard of each other", lambda: a.knows(b) and b.knows(a))
        assert a.members.peers.leads[b.node_id][0].addresses == b.members.own.addresses
        await until("c is shown", lambda: (c.node_id, "theirs") in a.members.roster.strangers)
        await until("they are shown to c", lambda: (a.node_id, "ours") in c.members.roster.strangers)
        assert not a.knows(c)
        assert not a.knows(a)


async def test_other_addresses_are_announced_within_seconds() -> None:
    card = little_card(free_port())
    async with announcing(little_card(free_port())) as a, announcing(card) as b:
        await until("a has heard of b", lambda: a.knows(b))
        card.addresses[:] = ["127.0.0.2"]
        card.revision = 1
        b.members.renew(wire.to_card(card))
        there = (f"127.0.0.2:{card.endpoints[0].port}",)
        await until("at its new address", lambda: a.members.peers.leads[b.node_id][0].addresses == there)


async def test_who_stops_says_so() -> None:
    def heard() -> bool:
        return any(one.node_id == b.node_id for one in a.mdns.sightings)

    async with announcing(little_card(free_port())) as a:
        async with announcing(little_card(free_port())) as b:
            await until("a has heard of b", heard)
        await until("b is gone", lambda: not heard())


async def test_without_multicast_the_role_goes_on_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "thunderline.discovery.mdns")
    # No address of this machine: nothing can be bound there.
    async with announcing(little_card(free_port(), addresses=("192.0.2.1",))):
        await until("it is told", lambda: any("multicast DNS does not work here" in one for one in caplog.messages))


async def test_garbage_on_the_network_is_no_sighting() -> None:
    async with announcing(little_card(free_port())) as a:
        service = zeroconf.asyncio.AsyncServiceInfo(
            "_thunderline._tcp.local.",
            "garbage._thunderline._tcp.local.",
            port=7401,
            properties={"node_id": "x" * 200, "cluster": b"\xff\xfe"},
            server="garbage.local.",
            parsed_addresses=["127.0.0.1"],
        )
        other = zeroconf.asyncio.AsyncZeroconf(interfaces=["127.0.0.1"])
        try:
            await other.async_register_service(service, cooperating_responders=True)
            async with announcing(little_card(free_port())) as b:
                await until("b is heard of", lambda: a.knows(b))
        finally:
            await other.async_close()
        assert all(wire.is_node_id(node) for node in a.members.peers.leads)
