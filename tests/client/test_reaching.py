"""The scheduler from any node of a cluster: found, or said why not."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from rpc.little_cluster import LittleCluster
from rpc.little_roles import LittleDiscovery, LittleTopology, connected, run, until
from scheduler.little_scheduler import free_address
from thunderline.client import SchedulerClient
from thunderline.client.reaching import OwnNode, scheduler_of
from thunderline.cluster import NodeId
from thunderline.cluster.callers import Caller
from thunderline.cluster.errors import Unreachable
from thunderline.process.trust import Wallet
from thunderline.rpc.scheduler_way import SchedulerWay
from thunderline.rpc.server import serving
from thunderline.v1 import cluster_pb2, discovery_pb2, scheduler_pb2, scheduler_pb2_grpc

SERVICE = "thunderline.v1.SchedulerService"
OWN = NodeId("1a4c6c7e-8f5e-4f2c-9f0a-6a6a5b1c0001")
OTHER = NodeId("1a4c6c7e-8f5e-4f2c-9f0a-6a6a5b1c0002")
FIND_S = 0.6
DEADLINE_S = 20.0
TOKENS = [1, 2, 3, 4, 5, 6]


class LittleScheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Each token of its answer waits for a step."""

    def __init__(self) -> None:
        self.steps = asyncio.Semaphore(0)
        # By the tokens with which each call began.
        self.calls: list[list[int]] = []
        # By the number with which each watch began.
        self.watched_after: list[int] = []

    async def Generate(
        self, request: scheduler_pb2.SchedulerServiceGenerateRequest, context: Any
    ) -> AsyncIterator[scheduler_pb2.SchedulerServiceGenerateResponse]:
        had = list(request.generation.resume_token_ids)
        self.calls.append(had)
        for token in TOKENS[len(had) :]:
            await self.steps.acquire()
            finish: Any = int(token == TOKENS[-1])
            delta = cluster_pb2.GenerationDelta(prompt_token_ids=[9], token_ids=[token], finish_reason=finish)
            yield scheduler_pb2.SchedulerServiceGenerateResponse(delta=delta)

    async def WatchEvents(
        self, request: scheduler_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[scheduler_pb2.WatchEventsResponse]:
        self.watched_after.append(request.after)
        for number in itertools.count(request.after + 1):
            await self.steps.acquire()
            yield scheduler_pb2.WatchEventsResponse(event=scheduler_pb2.Event(number=number))

    async def GetCluster(self, request: Any, context: Any) -> scheduler_pb2.GetClusterResponse:
        return scheduler_pb2.GetClusterResponse(cluster=scheduler_pb2.Cluster(scheduler_node_id=OTHER))

    @contextlib.asynccontextmanager
    async def at(self, address: str, wallet: Wallet | None) -> AsyncIterator[None]:
        def register(server: grpc.aio.Server) -> None:
            scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(self, server)

        async with serving(address, [SERVICE], register, wallet):
            yield


def member(node: str, port: int, *addresses: str) -> discovery_pb2.Member:
    card = cluster_pb2.NodeCard(
        node_id=node,
        hostname="studio",
        addresses=addresses,
        endpoints=[cluster_pb2.RoleEndpoint(role="scheduler", host="10.9.9.9", port=port)],
    )
    return discovery_pb2.Member(card=card, state=discovery_pb2.MEMBER_STATE_ALIVE)


@dataclass
class House:
    """Our node, and the scheduler node, which is another one."""

    wallet: Wallet
    other_wallet: Wallet
    discovery: LittleDiscovery = field(default_factory=lambda: LittleDiscovery(discovery_pb2.Roster(node_id=OWN)))
    topology: LittleTopology = field(default_factory=LittleTopology)
    scheduler: LittleScheduler = field(default_factory=LittleScheduler)
    # Of its scheduler.
    port: int = field(default_factory=lambda: int(free_address().rpartition(":")[2]))
    own: OwnNode = field(init=False)

    def __post_init__(self) -> None:
        self.own = OwnNode(OWN, OTHER, self.wallet, free_address(), free_address(), free_address())

    @contextlib.asynccontextmanager
    async def roles(self) -> AsyncIterator[None]:
        async with (
            self.discovery.at(self.own.discovery_target, self.wallet),
            self.topology.at(self.own.topology_target, self.wallet),
        ):
            yield

    def other_at(self, address: str) -> Any:
        return self.scheduler.at(f"{address}:{self.port}", self.other_wallet)

    def tell(self, *addresses: str) -> None:
        self.discovery.tell(discovery_pb2.Roster(node_id=OWN, members=[member(OTHER, self.port, *addresses)]))


@pytest.fixture(params=["by TLS", "plain"])
def house(tmp_path: Path, request: pytest.FixtureRequest) -> House:
    if request.param == "plain":
        nobodys = Wallet(tmp_path, "home")
        return House(nobodys, nobodys)
    cluster = LittleCluster(tmp_path)
    return House(cluster.wallet(name=OWN), cluster.wallet(Caller.SCHEDULER, OTHER))


async def test_it_is_found_at_the_address_that_answers(house: House) -> None:
    house.tell("127.0.0.3", "127.0.0.2")
    async with house.roles(), house.other_at("127.0.0.2"), scheduler_of(house.own) as client:
        assert (await client.cluster()).scheduler_node_id == OTHER


async def test_it_is_found_when_it_comes_into_the_roster_later(house: House) -> None:
    async with house.roles(), house.other_at("127.0.0.2"):
        way = SchedulerWay(house.own)
        async with run(way.run()):
            await until("it waits for the other node", lambda: "has not been heard" in way.problem)
            house.tell("127.0.0.2")
            await until("it is there", lambda: not way.problem)


async def test_its_connection_moves_to_the_better_link(house: House) -> None:
    house.tell("127.0.0.2", "127.0.0.3")
    async with house.roles(), house.other_at("127.0.0.2"), house.other_at("127.0.0.3"):
        way = SchedulerWay(house.own)
        async with run(way.run()):
            await until("it is there", lambda: not way.problem)
            for best in ("127.0.0.3", "127.0.0.2"):
                house.topology.tell_best({OTHER: best})
                there = f"{best}:{house.port}"
                await until("it moves", lambda there=there: way.channel.target == there)  # type: ignore[misc]
            await until("one connection", lambda: not connected(f"127.0.0.3:{house.port}"))


async def test_a_watch_of_events_moves_along_and_misses_none(house: House) -> None:
    house.tell("127.0.0.2", "127.0.0.3")
    house.topology.tell_best({OTHER: "127.0.0.2"})
    heard: list[int] = []
    async with house.roles(), house.other_at("127.0.0.2"), house.other_at("127.0.0.3"):
        way = SchedulerWay(house.own)
        async with run(way.run()):
            await until("it is there", lambda: way.channel.target.startswith("127.0.0.2") and not way.problem)

            async def watch() -> None:
                async for event in SchedulerClient.over(way.channel).watch_events():
                    heard.append(event.number)  # noqa: PERF401

            async with run(watch()):
                for number in (1, 2):
                    house.scheduler.steps.release()
                    await until(f"{number} is heard", lambda number=number: heard[-1:] == [number])  # type: ignore[misc]
                house.topology.tell_best({OTHER: "127.0.0.3"})
                await until("nothing is left", lambda: not connected(f"127.0.0.2:{house.port}"))
                await until("it watches there", lambda: len(house.scheduler.watched_after) == 2)
                for number in (3, 4):
                    house.scheduler.steps.release()
                    await until(f"{number} is heard", lambda number=number: heard[-1:] == [number])  # type: ignore[misc]
    assert heard == [1, 2, 3, 4]
    assert house.scheduler.watched_after == [0, 2]


async def test_an_answer_goes_on_where_it_began_and_by_the_new_way_when_that_breaks(house: House) -> None:
    house.tell("127.0.0.2", "127.0.0.3")
    house.topology.tell_best({OTHER: "127.0.0.2"})
    wish = cluster_pb2.Generation(request_id=str(uuid.uuid4()), model="m", text="one two")
    heard: list[int] = []
    async with house.roles(), house.other_at("127.0.0.3"), contextlib.AsyncExitStack() as former:
        await former.enter_async_context(house.other_at("127.0.0.2"))
        way = SchedulerWay(house.own)
        async with run(way.run()):
            await until("it is there", lambda: way.channel.target.startswith("127.0.0.2") and not way.problem)
            deltas = SchedulerClient.over(way.channel).generate(wish, DEADLINE_S)
            for _ in TOKENS[:2]:
                house.scheduler.steps.release()
                heard += (await anext(deltas)).token_ids
            house.topology.tell_best({OTHER: "127.0.0.3"})
            await until("it moves", lambda: way.channel.target.startswith("127.0.0.3"))
            for _ in TOKENS[2:4]:
                house.scheduler.steps.release()
                heard += (await anext(deltas)).token_ids
            # Still the first call.
            assert house.scheduler.calls == [[]]
            await former.aclose()
            for _ in TOKENS[4:]:
                house.scheduler.steps.release()
            async for delta in deltas:
                heard += delta.token_ids
    assert heard == TOKENS
    assert house.scheduler.calls == [[], TOKENS[:4]]


async def test_on_the_scheduler_node_its_own_is_asked_whoever_else_is_away(house: House) -> None:
    target = f"127.0.0.1:{house.port}"
    own = OwnNode(OTHER, OTHER, house.other_wallet, free_address(), free_address(), target)
    async with house.other_at("127.0.0.1"):
        async with scheduler_of(own) as client:
            assert (await client.cluster()).scheduler_node_id == OTHER
        way = SchedulerWay(own)
        async with run(way.run()):
            await until("it is there", lambda: not way.problem)


async def refusal(own: OwnNode) -> str:
    with pytest.raises(Unreachable) as caught:
        async with scheduler_of(own, FIND_S):
            pass
    return caught.value.message


async def test_why_it_is_not_there_is_said(house: House) -> None:
    # Nobody runs here.
    assert f"this node's discovery does not answer at {house.own.discovery_target}" in await refusal(house.own)
    async with house.roles():
        # Here they do, and have not heard the other node.
        assert f"the scheduler node, node {OTHER}, has not been heard" in await refusal(house.own)
        house.tell("127.0.0.2", "127.0.0.3")
        found = await refusal(house.own)
        assert f"studio (node {OTHER}) answers at none of 127.0.0.2:{house.port}, 127.0.0.3:{house.port}" in found
        assert "thunderline doctor" in found
