"""Discoveries of a cluster with certificates: who may speak for whom."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from discovery.little_discovery import discovering, free_port, little_card, new_id, until
from rpc.little_cluster import LittleCluster
from thunderline.client import DiscoveryClient
from thunderline.cluster.callers import Caller
from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.members import MemberState
from thunderline.discovery import wire
from thunderline.discovery.peers import Greeting
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.v1 import discovery_pb2, discovery_pb2_grpc


@pytest.fixture
def cluster(tmp_path: Path) -> LittleCluster:
    return LittleCluster(tmp_path)


async def test_members_find_each_other_with_their_certificates(cluster: LittleCluster) -> None:
    ids = [new_id(), new_id()]
    cards = [little_card(free_port(), one) for one in ids]
    wallets = [cluster.wallet(name=one) for one in ids]
    async with discovering(cards[0], wallet=wallets[0]) as a, discovering(cards[1], [a], wallet=wallets[1]) as b:
        await until("they see each other", lambda: a.sees(b) and b.sees(a))


async def test_nobody_shows_another_nodes_card(cluster: LittleCluster) -> None:
    mine, other = new_id(), new_id()
    async with discovering(little_card(free_port(), mine), wallet=cluster.wallet(name=mine)) as a:
        request = discovery_pb2.ExchangeCardRequest()
        wire.fill_greeting(request, Greeting(wire.to_card(little_card(1, other))), time.time())
        async with dial(a.target, cluster.wallet(name=new_id())) as channel:
            stub: Any = discovery_pb2_grpc.DiscoveryServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ExchangeCard(request, timeout=10)
        assert isinstance(from_call(refused.value), Unauthenticated)
        assert a.sees()
        async with dial(a.target, cluster.wallet(name=other)) as channel:
            stub = discovery_pb2_grpc.DiscoveryServiceStub(channel)
            await stub.ExchangeCard(request, timeout=10)
        assert a.state(other) is MemberState.ALIVE


async def test_who_answers_a_seed_with_another_nodes_card_is_not_believed(cluster: LittleCluster) -> None:
    liar, other, mine = new_id(), new_id(), new_id()
    # It has a certificate of the cluster, and a card of another node.
    async with (
        discovering(little_card(free_port(), other), wallet=cluster.wallet(name=liar)) as lying,
        discovering(little_card(free_port(), mine), [lying], wallet=cluster.wallet(name=mine)) as a,
    ):
        await until("it was asked", lambda: lying.target in a.members.peers.tried_s)
        await until("it is complete", lambda: a.members.roster.complete)
        assert a.sees()


async def test_the_reason_is_told_when_a_member_is_of_another_authority_now(
    cluster: LittleCluster, tmp_path: Path
) -> None:
    # The smaller id begins.
    low, high = sorted((new_id(), new_id()))
    port = free_port()
    async with discovering(little_card(free_port(), low), wallet=cluster.wallet(name=low)) as a:
        async with discovering(little_card(port, high), [a], wallet=cluster.wallet(name=high)) as b:
            await until("they see each other", lambda: a.sees(b) and b.sees(a))
        elsewhere = LittleCluster(tmp_path).wallet(name=high)
        async with discovering(little_card(port, high, incarnation=2), wallet=elsewhere):
            await until("it is dead", lambda: a.state(high) is MemberState.DEAD)

            def told() -> str:
                return next(one.problem for one in a.members.proto().members if one.card.node_id == high)

            await until("the reason", lambda: "another authority signed its certificate" in told())


@pytest.mark.parametrize(
    ("caller", "whose", "may"),
    [
        pytest.param(Caller.MEMBER, "its own", True, id="a member for itself"),
        pytest.param(Caller.MEMBER, "another's", False, id="a member for another: refused"),
        pytest.param(Caller.SCHEDULER, "another's", True, id="the scheduler node for another"),
    ],
)
async def test_who_may_say_that_a_node_leaves(cluster: LittleCluster, caller: Caller, whose: str, may: bool) -> None:
    ids = [new_id(), new_id()]
    cards = [little_card(free_port(), one) for one in ids]
    wallets = [cluster.wallet(name=one) for one in ids]
    async with discovering(cards[0], wallet=wallets[0]) as a, discovering(cards[1], [a], wallet=wallets[1]) as b:
        await until("they see each other", lambda: a.sees(b) and b.sees(a))
        asking = cluster.wallet(caller, name=b.node_id if whose == "its own" else new_id())
        async with DiscoveryClient(a.target, asking) as client:
            if may:
                await client.leave(b.node_id)
                await until("both know", lambda: a.state(b) is b.state(b) is MemberState.LEFT)
            else:
                with pytest.raises(Unauthenticated):
                    await client.leave(b.node_id)
                assert a.sees(b)
