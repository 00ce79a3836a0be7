"""Connections that move, between real servers on several addresses of loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from rpc.little_cluster import LittleCluster
from rpc.little_roles import LittleTopology, Told, connected, run, until
from rpc.little_service import ASK, DEADLINE_S, WATCH
from thunderline.cluster import NodeId
from thunderline.cluster.errors import Unauthenticated
from thunderline.process.trust import Wallet, keep
from thunderline.rpc.errors import from_call
from thunderline.rpc.following import follow
from thunderline.rpc.moves import Reach
from thunderline.rpc.moving import Moving
from thunderline.v1 import topology_pb2_grpc

PEER = NodeId("peer")
ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
PATIENCE_S = 0.1


class House:
    """A peer, a connection to it, and what is known of the way."""

    def __init__(self, address: str) -> None:
        self.port = int(address.rpartition(":")[2])
        self.ways = Told()
        self.peer = LittleTopology()
        self.moving = Moving(PEER, self.ways, patience_s=PATIENCE_S)
        self.stub: Any = topology_pb2_grpc.TopologyServiceStub(self.moving)
        # What a watch has told.
        self.numbers: list[int] = []

    def aim(self, *addresses: str) -> None:
        self.moving.aim(Reach(addresses, self.port))

    def target(self, address: str) -> str:
        return f"{address}:{self.port}"

    def at(self, address: str) -> Any:
        return self.peer.at(self.target(address))

    def at_with(self, address: str, wallet: Wallet) -> Any:
        return self.peer.at(self.target(address), wallet)

    async def until_at(self, address: str) -> None:
        there = self.target(address)
        await until(f"calls go to {there}", lambda: self.moving.works and self.moving.target == there)

    async def ask(self) -> str:
        return str((await self.stub.GetTopology(ASK, timeout=DEADLINE_S)).topology.node_id)

    async def count(self) -> None:
        """As a role does: again and again."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with contextlib.aclosing(follow(self.moving, lambda: self.stub.WatchTopology(WATCH))) as told:
                    async for response in told:
                        self.numbers.append(response.topology.version.number)
            await asyncio.sleep(0.01)

    async def tell(self, number: int) -> None:
        self.peer.count(number)
        await until(f"{number} is heard", lambda: number in self.numbers)


@pytest.fixture
def house(address: str) -> House:
    return House(address)


async def test_without_an_address_calls_fail_as_to_a_peer_that_is_gone(house: House) -> None:
    async with run(house.moving.run()):
        for call in (house.stub.GetTopology(ASK), house.stub.WatchTopology(WATCH).read()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "no address of node peer is known yet" in str(caught.value.details())
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in house.stub.WatchTopology(WATCH):
                raise AssertionError("nobody could have said that")


async def test_before_a_link_is_known_the_first_address_that_answers_is_taken(house: House) -> None:
    house.aim(ONE, TWO, THREE)
    async with house.at(THREE), run(house.moving.run()):
        await house.until_at(THREE)
        assert await house.ask() == "own"
        # What does not answer is not tried any more.
        await until("one connection", lambda: connected(house.target(THREE)) == 1)


async def test_a_peer_that_comes_later_is_found(house: House) -> None:
    house.aim(ONE, TWO)
    async with run(house.moving.run()):
        await asyncio.sleep(5 * PATIENCE_S)
        async with house.at(TWO):
            await house.until_at(TWO)


async def test_a_better_way_takes_new_calls_and_watches_and_the_old_connection_closes(house: House) -> None:
    house.aim(ONE, TWO)
    async with house.at(ONE), house.at(TWO), run(house.moving.run(), house.count()):
        await house.until_at(ONE)
        await until("the watch", lambda: house.numbers)
        await house.tell(1)
        house.ways.tell({PEER: TWO})
        await house.until_at(TWO)
        await until("the old one closes", lambda: not connected(house.target(ONE)))
        await house.tell(2)
        assert await house.ask() == "own"
        assert connected(house.target(TWO)) == 1
        assert len(house.peer.seen) == 1
        # In order, and nothing is left out; what moved tells its last word once more.
        assert [number for n, number in enumerate(house.numbers) if number not in house.numbers[:n]] == [0, 1, 2]
        assert house.numbers == sorted(house.numbers)


async def test_a_watch_moves_only_when_the_new_one_has_told_everything(house: House) -> None:
    house.aim(ONE, TWO)
    async with house.at(ONE), house.at(TWO), run(house.moving.run(), house.count()):
        await house.until_at(ONE)
        await house.tell(1)
        house.peer.speaks.clear()
        house.ways.tell({PEER: TWO})
        await house.until_at(TWO)
        await until("both watches", lambda: len(house.peer.seen) == 2)
        # Meanwhile the old one goes on.
        await house.tell(2)
        assert connected(house.target(ONE)) == 1
        house.peer.speaks.set()
        await until("one watch", lambda: len(house.peer.seen) == 1)
        await until("the old one closes", lambda: not connected(house.target(ONE)))
        await house.tell(3)


async def test_a_stream_under_way_ends_where_it_is_without_a_gap(house: House) -> None:
    house.aim(ONE, TWO)
    async with house.at(ONE), house.at(TWO), run(house.moving.run()):
        await house.until_at(ONE)
        stream = house.stub.WatchTopology(WATCH, timeout=DEADLINE_S)
        heard = [(await stream.read()).topology.version.number]
        house.ways.tell({PEER: TWO})
        await house.until_at(TWO)
        for number in range(1, 6):
            house.peer.count(number)
            heard.append((await stream.read()).topology.version.number)
        assert heard == [0, 1, 2, 3, 4, 5]
        assert connected(house.target(ONE)) == 1
        stream.cancel()
        # Who holds a call holds its connection.
        del stream
        await until("the old one closes", lambda: not connected(house.target(ONE)))


async def test_when_the_best_way_does_not_answer_nothing_moves(house: House) -> None:
    house.aim(ONE, TWO)
    async with house.at(ONE), run(house.moving.run(), house.count()):
        await house.until_at(ONE)
        house.ways.tell({PEER: TWO})
        await asyncio.sleep(5 * PATIENCE_S)
        assert house.moving.target == house.target(ONE)
        await house.tell(1)
        async with house.at(TWO):
            await house.until_at(TWO)


async def test_when_a_way_breaks_the_next_one_is_taken_and_the_best_again_when_it_is_back(house: House) -> None:
    house.aim(ONE, TWO)
    house.ways.tell({PEER: ONE})
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(house.at(TWO))
        await stack.enter_async_context(run(house.moving.run(), house.count()))
        async with house.at(ONE):
            await house.until_at(ONE)
            await house.tell(1)
        await house.until_at(TWO)
        await house.tell(2)
        async with house.at(ONE):
            await house.until_at(ONE)
            await house.tell(3)
            await until("the old one closes", lambda: not connected(house.target(TWO)))


async def test_a_role_that_restarts_is_reached_where_it_was(house: House) -> None:
    house.aim(ONE)
    clock = asyncio.get_running_loop().time
    async with run(house.moving.run()):
        async with house.at(ONE):
            await house.until_at(ONE)
        await until("it is gone", lambda: not house.moving.works)
        async with house.at(ONE):
            begun_s = clock()
            await house.until_at(ONE)
            # gRPC's own back-off would be a second and more.
            assert clock() - begun_s < 0.8
            assert await house.ask() == "own"


async def test_another_port_is_dialled_at_once_and_what_runs_at_the_old_one_is_left(house: House) -> None:
    house.aim(ONE)
    async with house.at(ONE), run(house.moving.run()):
        await house.until_at(ONE)
        other = House(f"{ONE}:{house.port + 1}")
        async with house.peer.at(other.target(ONE)):
            house.moving.aim(Reach((ONE,), other.port))
            await until("it has moved", lambda: house.moving.target == other.target(ONE) and house.moving.works)
            await until("the old one closes", lambda: not connected(house.target(ONE)))


async def test_flapping_ways_leave_one_connection_and_one_watch(house: House) -> None:
    house.aim(ONE, TWO, THREE)
    async with house.at(ONE), house.at(TWO), house.at(THREE), run(house.moving.run(), house.count()):
        await house.until_at(ONE)
        for turn in range(40):
            house.ways.tell({PEER: (ONE, TWO, THREE)[turn % 3]})
            house.peer.count(turn)
            await asyncio.sleep(0.01 * (turn % 4))
        await house.until_at(ONE)
        await house.tell(99)
        for away in (TWO, THREE):
            await until("it closes", lambda away=away: not connected(house.target(away)))  # type: ignore[misc]
        await until("one watch", lambda: len(house.peer.seen) == 1)
        assert connected(house.target(ONE)) == 1
        assert house.numbers == sorted(house.numbers)


async def test_nothing_is_left_when_it_ends(house: House) -> None:
    house.aim(ONE, TWO)
    async with house.at(ONE), house.at(TWO):
        async with run(house.moving.run(), house.count()):
            await house.until_at(ONE)
            await house.tell(1)
            house.ways.tell({PEER: TWO})
            await house.until_at(TWO)
        assert not house.moving.works
        await until("no connection", lambda: not connected(house.target(ONE)) and not connected(house.target(TWO)))


@contextlib.asynccontextmanager
async def never(call: Any) -> AsyncIterator[None]:
    """What must not happen during the block."""
    task = asyncio.ensure_future(call)
    yield
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_without_a_certificate_says_so_and_goes_on(house: House, tmp_path: Path) -> None:
    moving = Moving(PEER, house.ways, Wallet(tmp_path, "home"), PATIENCE_S)
    moving.aim(Reach(("192.0.2.1",), house.port))
    async with house.at(ONE), run(moving.run()), never(moving.changes.after(0)):
        await until("it says why", lambda: "cluster join TOKEN" in moving.problem)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await topology_pb2_grpc.TopologyServiceStub(moving).GetTopology(ASK, timeout=DEADLINE_S)
        assert isinstance(from_call(caught.value), Unauthenticated)
    moving.aim(Reach((ONE,), house.port))
    async with house.at(ONE), run(moving.run()):
        await until("it works", lambda: moving.works)
        assert moving.problem == ""


@pytest.mark.parametrize("is_joining", [True, False], ids=["into a cluster", "out of it"])
async def test_a_role_that_restarts_as_its_node_joins_or_leaves_is_spoken_to_as_it_speaks(
    house: House, tmp_path: Path, is_joining: bool
) -> None:
    """The other one did not restart: it is spoken to as before. One that has left takes no calls until it restarts."""
    cluster, name = LittleCluster(tmp_path), "6b1f6a1e-6f1c-4b4b-9a55-0f0c6a0d0c11"
    wallet, other = Wallet(tmp_path / "own", "home"), LittleTopology()
    identity = cluster.identity(name=name)
    if not is_joining:
        keep(tmp_path / "own", identity)
    here, there = (Moving.at(house.target(host), wallet, NodeId(name)) for host in (ONE, TWO))
    stub, other_stub = (topology_pb2_grpc.TopologyServiceStub(one) for one in (here, there))
    async with run(here.run()), run(there.run()), other.at(house.target(TWO), wallet):
        async with house.at_with(ONE, wallet):
            await until("both work", lambda: here.works and there.works)
            if is_joining:
                keep(tmp_path / "own", identity)
            else:
                wallet.path.unlink()
            if is_joining:
                await stub.GetTopology(ASK, timeout=DEADLINE_S)
        await until("it is gone", lambda: not here.works)
        async with house.at_with(ONE, wallet):
            await until("it works again", lambda: here.works)
            await stub.GetTopology(ASK, timeout=DEADLINE_S)
            if is_joining:
                await other_stub.GetTopology(ASK, timeout=DEADLINE_S)
            assert there.works


async def test_only_the_node_that_is_meant_is_taken(house: House, tmp_path: Path) -> None:
    """Two nodes may have one address, as every docker bridge does: the certificate tells them apart."""
    cluster = LittleCluster(tmp_path)
    meant = NodeId("6b1f6a1e-6f1c-4b4b-9a55-0f0c6a0d0c11")
    moving = Moving(meant, house.ways, cluster.wallet(), PATIENCE_S)
    moving.aim(Reach((ONE, TWO), house.port))
    other, wallet = LittleTopology(), cluster.wallet(name=meant)
    async with (
        other.at(house.target(ONE), cluster.wallet()),
        house.peer.at(house.target(TWO), wallet),
        run(moving.run()),
    ):
        await until("the right one", lambda: moving.works and moving.target == house.target(TWO))
        house.ways.tell({meant: ONE})
        await asyncio.sleep(3 * PATIENCE_S)
        assert moving.target == house.target(TWO)
