"""A cluster changes its authority: the scheduler node's own code, members' own code, and calls between all of them."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from rpc.little_service import ASK, LittleService
from rpc.little_service import SERVICE as TOPOLOGY
from scheduler.little_cluster_node import Doors, Node, doors, founded, listens, token, until
from scheduler.little_scheduler import free_address
from thunderline.cli import rotating
from thunderline.cluster.authorities import Ring
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import CERTIFICATE_S
from thunderline.cluster.errors import InvalidRequest, Unauthenticated, Unreachable
from thunderline.process import authority
from thunderline.process.trust import keep, kept_offers, trusted
from thunderline.rpc.channel import dial
from thunderline.rpc.renewing import Renewing
from thunderline.rpc.server import serving
from thunderline.v1 import cluster_pb2, topology_pb2_grpc

PACE_S = 0.05


async def joined(opened: Doors, tmp_path: Path, count: int, yes: bool = False) -> list[Node]:
    members = [Node(tmp_path / f"member-{number}") for number in range(count)]
    for one in members:
        made = token(opened.node)
        while True:
            with contextlib.suppress(Exception):
                await one.join(made.text, yes)
                break
            await asyncio.sleep(PACE_S)
    opened.members = members
    return members


@contextlib.asynccontextmanager
async def renewing(opened: Doors, node: Node, look: Callable[[], cluster_pb2.NodeCard | None]) -> AsyncIterator[None]:
    """As its discovery does, only faster."""
    one = Renewing(node.home, node.wallet, look)

    async def run() -> None:
        while True:
            await one.look()
            await asyncio.sleep(PACE_S)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


def stage(node: Node) -> tuple[int, str]:
    ours = authority.kept(node.home)
    assert ours is not None
    return len(ours.ring.trusted), ours.ring.signing


async def test_a_rotation_ends_and_at_no_moment_do_two_nodes_refuse_each_other(tmp_path: Path) -> None:
    founder = founded(tmp_path / "scheduler")
    async with doors(founder) as opened:
        members = await joined(opened, tmp_path, 3)
        nodes = [founder, *members]
        first = stage(founder)[1]
        calls = 0
        async with contextlib.AsyncExitStack() as stack:
            stubs = []
            for server in nodes:
                address = free_address()
                await stack.enter_async_context(serving(address, [TOPOLOGY], LittleService().register, server.wallet))
                for caller in nodes:
                    # One that was dialled before it all, and lasts.
                    channel = await stack.enter_async_context(dial(address, caller.wallet, server.id))
                    stubs.append((address, caller, server, topology_pb2_grpc.TopologyServiceStub(channel)))

            async def all_call_all() -> None:
                nonlocal calls
                for address, caller, server, lasting in stubs:
                    async with dial(address, caller.wallet, server.id) as fresh:
                        stub = topology_pb2_grpc.TopologyServiceStub(fresh)
                        for one in (stub, lasting):
                            assert (await one.GetTopology(ASK, timeout=10)).topology.node_id == "node"
                            calls += 1

            for one in members:
                await stack.enter_async_context(renewing(opened, one, founder.card))
            began, _ = rotating.change(founder.read(), False, time.time())
            assert began
            end = time.monotonic() + 60
            while stage(founder)[0] > 1 or any(one.wallet.checked().facts.authority == first for one in nodes):
                assert time.monotonic() < end, rotating.standing(*_state(founder), opened.roster()).lines()
                await all_call_all()
            await all_call_all()
        # Else nobody has looked while it happened.
        assert calls >= 3 * 2 * len(nodes) ** 2
        for one in nodes:
            own = one.wallet.checked()
            assert trusted(own) == {own.facts.authority} == {stage(founder)[1]}
        assert stage(founder)[1] != first
        assert founder.wallet.checked().facts.bearer.caller is Caller.SCHEDULER


def _state(node: Node) -> tuple[Ring, bool]:
    ours = authority.kept(node.home)
    assert ours is not None
    return ours.ring, False


async def test_it_waits_for_a_node_that_is_off_and_says_for_which(tmp_path: Path) -> None:
    founder = founded(tmp_path / "scheduler")
    async with doors(founder, dead_s=0.1) as opened:
        there, off = await joined(opened, tmp_path, 2)
        rotating.change(founder.read(), False, time.time())
        async with renewing(opened, there, founder.card):
            await until("the other trusts both", lambda: len(trusted(there.wallet.checked())) == 2)
            await asyncio.sleep(1.5)
            standing = rotating.standing(*_state(founder), opened.roster())
            assert standing.late == (f"member-1 ({off.id})",)
            assert standing.turn is not None and standing.turn.name == "WAIT"
            assert "member-1" in "\n".join(standing.lines())
            # Once more it only shows.
            assert rotating.change(founder.read(), False, time.time())[0] is False
            assert stage(founder)[0] == 2
            async with renewing(opened, off, founder.card):
                await until("it ends", lambda: stage(founder)[0] == 1, timeout_s=30)


async def test_on_an_incomplete_roster_nothing_turns(tmp_path: Path) -> None:
    founder = founded(tmp_path / "scheduler")
    async with doors(founder, dead_s=0.1) as opened:
        opened.complete = False
        _, first = stage(founder)
        rotating.change(founder.read(), False, time.time())
        await asyncio.sleep(2.5)
        assert stage(founder) == (2, first)
        made = token(founder)
        opened.complete = True
        await until("it ends", lambda: stage(founder)[0] == 1 and stage(founder)[1] != first, timeout_s=30)
        # A token names who signed when it was made.
        assert not kept_offers(founder.home)
        with pytest.raises(Unreachable, match="ask for a new token there"):
            await Node(tmp_path / "late").join(made.text)
        newer = token(founder)
        await until("it listens for that", lambda: listens(opened.enrolment))
        with pytest.raises(Unauthenticated, match="ask for a new token there"):
            await Node(tmp_path / "late").join(made.text)
        await Node(tmp_path / "late").join(newer.text)


async def test_in_haste_the_old_certificates_end_at_once(tmp_path: Path) -> None:
    founder = founded(tmp_path / "scheduler")
    async with doors(founder) as opened:
        (member,) = await joined(opened, tmp_path, 1)
        _, first = stage(founder)
        began, ring = rotating.change(founder.read(), True, time.time())
        assert began and ring.trusted == (ring.signing,) and ring.signing != first
        standing = rotating.standing(ring, began, opened.roster())
        assert "join again" in "\n".join(standing.lines())
        # The scheduler node goes on with a new one; the member is a stranger until it has joined again.
        assert founder.wallet.checked().facts.authority == ring.signing
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async with dial(opened.target, member.wallet) as channel:
                await topology_pb2_grpc.TopologyServiceStub(channel).GetTopology(ASK, timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        (member.home / "runner.json").write_text('{"store_id": "s-1", "instances": {}}')
        (again,) = await joined(opened, tmp_path, 1, yes=True)
        assert "the same cluster, under a new authority" in again.said
        # Its runner obeys this cluster's store already.
        assert "former scheduler" not in "\n".join(again.said)
        assert again.wallet.checked().facts.authority == ring.signing


def test_only_the_scheduler_node_rotates(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="keeps no authority"):
        rotating.change(Node(tmp_path / "member").read(), False, time.time())


async def test_a_certificate_is_renewed_before_it_ends(tmp_path: Path) -> None:
    founder = founded(tmp_path / "scheduler")
    async with doors(founder) as opened:
        (member,) = await joined(opened, tmp_path, 1)
        one = Renewing(member.home, member.wallet, founder.card)
        assert await one.look() is False
        before = member.wallet.checked()
        member.ahead_s = 0.7 * CERTIFICATE_S
        assert await one.look() is True
        assert member.wallet.identity() != before


async def test_why_a_renewal_fails_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    founder = founded(tmp_path / "scheduler")
    async with doors(founder) as opened:
        (member,) = await joined(opened, tmp_path, 1)
    member.ahead_s = 0.7 * CERTIFICATE_S
    caplog.set_level(logging.WARNING, "thunderline.rpc.renewing")
    for look in (founder.card, lambda: None):
        caplog.clear()
        one = Renewing(member.home, member.wallet, look)
        task = asyncio.create_task(one.run())
        await until("it is said", lambda: caplog.records)
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait({task})
        assert len(caplog.records) == 1
        assert "cannot be renewed" in caplog.records[0].getMessage()


async def test_a_join_in_between_is_not_undone_by_a_renewal(tmp_path: Path) -> None:
    founder = founded(tmp_path / "scheduler")
    async with doors(founder) as opened:
        (member,) = await joined(opened, tmp_path, 1)
        before = member.wallet.checked()
        ours = authority.kept(founder.home)
        assert ours is not None
        newer = authority.for_client(ours, "work", "laptop", time.time())
        keep(member.home, newer)
        Renewing(member.home, member.wallet, founder.card)._keep(before, before)
        assert member.wallet.identity() == newer
