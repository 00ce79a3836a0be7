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
from thunderline.cluster.members import HAS_LEFT, MemberState
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


async def test_a_member_with_a_good_certificate_throws_nobody_out(cluster: LittleCluster) -> None:
    first, plain, liar = new_id(), new_id(), new_id()
    wallets = {one: cluster.wallet(Caller.SCHEDULER if one == first else Caller.MEMBER, one) for one in (first, plain)}
    async with (
        discovering(little_card(free_port(), first), wallet=wallets[first], scheduler=first) as a,
        discovering(little_card(free_port(), plain), [a], wallet=wallets[plain], scheduler=first) as b,
    ):
        await until("they see each other", lambda: a.sees(b) and b.sees(a))
        # Lives stand in cards: everybody knows them.
        left = tuple((one.node_id, one.members.own.life) for one in (a, b))
        lie = discovery_pb2.ExchangeCardRequest()
        wire.fill_greeting(lie, Greeting(wire.to_card(little_card(1, liar)), left=left), time.time())
        for node in (a, b):
            async with dial(node.target, cluster.wallet(name=liar)) as channel:
                stub: Any = discovery_pb2_grpc.DiscoveryServiceStub(channel)
                await stub.ExchangeCard(lie, timeout=10)
            assert node.state(liar) is MemberState.ALIVE
            assert {node.state(a), node.state(b)} == {MemberState.ALIVE}
        # It is dead by now, and its lie goes on nowhere.
        await until("it is gone", lambda: {a.state(liar), b.state(liar)} == {MemberState.DEAD})
        assert {one.state(other) for one in (a, b) for other in (a, b)} == {MemberState.ALIVE}


async def test_who_was_taken_out_is_refused_by_all_in_any_life_and_knows_why(
    cluster: LittleCluster, caplog: pytest.LogCaptureFixture
) -> None:
    first, plain, out = new_id(), new_id(), new_id()
    own = little_card(free_port(), first)
    wallets = {one: cluster.wallet(Caller.SCHEDULER if one == first else Caller.MEMBER, one) for one in (first, plain)}
    shown, port = cluster.wallet(name=out), free_port()
    async with (
        discovering(own, wallet=wallets[first], scheduler=first) as a,
        discovering(little_card(free_port(), plain), [a], wallet=wallets[plain], scheduler=first) as b,
    ):
        async with discovering(little_card(port, out), [a, b], wallet=shown, scheduler=first) as c:
            await until("all see all", lambda: a.sees(b, c) and b.sees(a, c) and c.sees(a, b))
            known = [a.members.own, b.members.own]

            def tell(*nodes: str) -> None:
                own.revision += 1
                own.departed_node_ids[:] = nodes
                a.members.renew(wire.to_card(own))

            tell(out)
            await until("all know", lambda: a.state(out) is b.state(out) is MemberState.LEFT)
            # The life that was there learns it from the scheduler node.
            await until("it stops", lambda: c.members.has_gone)
        again = little_card(port, out, incarnation=2)
        async with discovering(again, [a, b], remembered=known, wallet=shown, scheduler=first) as c:

            def problems() -> set[str]:
                return {member.problem for member in c.members.proto().members if member.card.node_id != out}

            why = f"node {out} {HAS_LEFT}"
            await until("both refuse it", lambda: all(why in one for one in problems()))
            assert {c.state(a), c.state(b)} <= {MemberState.SUSPECT, MemberState.DEAD}
            assert {a.state(out), b.state(out)} == {MemberState.LEFT}
            said = [record for record in caplog.records if why in str(record.__dict__.get("why"))]
            assert [record.getMessage() for record in said] == ["a peer cannot be called"]
            # A token lets it in again.
            tell()
            await until("all see all", lambda: a.sees(b, c) and b.sees(a, c) and c.sees(a, b))


@pytest.mark.parametrize(
    ("caller", "asked", "who", "may"),
    [
        pytest.param(Caller.MEMBER, "its own", "itself", True, id="a member that it leaves"),
        pytest.param(Caller.MEMBER, "its own", "another", False, id="a member that another leaves: refused"),
        pytest.param(Caller.MEMBER, "another's", "itself", False, id="a member, at another node: refused"),
        pytest.param(Caller.SCHEDULER, "its own", "another", True, id="the scheduler node that another leaves"),
        pytest.param(Caller.SCHEDULER, "another's", "another", False, id="the same at another node: refused"),
    ],
)
async def test_who_may_tell_a_discovery_that_a_node_leaves(
    cluster: LittleCluster, caller: Caller, asked: str, who: str, may: bool
) -> None:
    first, second = new_id(), new_id()
    scheduler = first if caller is Caller.SCHEDULER else new_id()
    wallets = cluster.wallet(caller, first), cluster.wallet(name=second)
    async with (
        discovering(little_card(free_port(), first), wallet=wallets[0], scheduler=scheduler) as a,
        discovering(little_card(free_port(), second), [a], wallet=wallets[1], scheduler=scheduler) as b,
    ):
        await until("they see each other", lambda: a.sees(b) and b.sees(a))
        leaver = a if who == "itself" else b
        async with DiscoveryClient(a.target if asked == "its own" else b.target, wallets[0]) as client:
            if may:
                await client.leave(leaver.node_id)
                await until("both know", lambda: a.state(leaver) is b.state(leaver) is MemberState.LEFT)
            else:
                with pytest.raises(Unauthenticated):
                    await client.leave(leaver.node_id)
                assert a.sees(b) and b.sees(a)
