"""The way to the cluster's scheduler from any node: our own discovery knows where it is, our own topology how to go."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import target
from thunderline.process.settings import Settings
from thunderline.process.trust import Wallet
from thunderline.rpc.following import follow
from thunderline.rpc.moves import reach
from thunderline.rpc.moving import Moving
from thunderline.rpc.ways import REDIAL_S, Ways
from thunderline.v1 import discovery_pb2, discovery_pb2_grpc

IS_UP_RUNNING = "is `thunderline up` running"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OwnNode:
    """Where the roles of a node are for its own processes. `scheduler` is the scheduler node: itself, or another."""

    node: NodeId
    scheduler: NodeId
    wallet: Wallet
    # "host:port" of its own discovery, topology and scheduler.
    discovery_target: str
    topology_target: str
    scheduler_target: str

    @classmethod
    def of(cls, settings: Settings, node: NodeId, wallet: Wallet) -> "OwnNode":
        return cls(
            node=node,
            scheduler=NodeId(settings.cluster.scheduler) or node,
            wallet=wallet,
            discovery_target=target(settings.host, settings.discovery.port),
            topology_target=target(settings.host, settings.topology.port),
            scheduler_target=target(settings.host, settings.scheduler.port),
        )

    @property
    def is_scheduler_node(self) -> bool:
        return self.node == self.scheduler


class SchedulerWay:
    """`channel` is the connection; `run` keeps it where the scheduler node is."""

    def __init__(self, own: OwnNode) -> None:
        self._own = own
        self._scheduler = own.scheduler
        self._ways = Ways(own.topology_target, own.wallet, own.node or None)
        self._discovery = Moving.at(own.discovery_target, own.wallet, own.node or None)
        if own.is_scheduler_node:
            self.channel = Moving.at(own.scheduler_target, own.wallet, own.node or None)
        else:
            self.channel = Moving(own.scheduler, self._ways, own.wallet)
        # Whether our own discovery has ever answered, and what it said of the scheduler node.
        self._is_told = False
        self._hostname = ""

    async def run(self) -> None:
        """Until cancelled. While discovery or topology is away, what they said last stays."""
        if self._own.is_scheduler_node:
            await self.channel.run()
        async with asyncio.TaskGroup() as tasks:
            for work in (self._ways.run(), self._discovery.run(), self.channel.run()):
                tasks.create_task(work)
            stub = discovery_pb2_grpc.DiscoveryServiceStub(self._discovery)
            while True:
                try:
                    told = follow(self._discovery, lambda: stub.WatchRoster(discovery_pb2.WatchRosterRequest()))
                    async with contextlib.aclosing(told):
                        async for response in told:
                            self._hear(response.roster)
                except grpc.aio.AioRpcError as error:
                    log.debug("discovery cannot be heard", extra={"why": error.details()})
                await asyncio.sleep(REDIAL_S)

    def _hear(self, roster: discovery_pb2.Roster) -> None:
        self._is_told = True
        card = next((one.card for one in roster.members if one.card.node_id == self._scheduler), None)
        there = reach(card, "scheduler") if card else None
        if card and there:
            self._hostname = card.hostname
            self.channel.aim(there)

    @property
    def problem(self) -> str:
        """Why it cannot be reached, and what to do about it; "" while it can."""
        if self.channel.works:
            return ""
        own, node = self._own.discovery_target, f"node {self._scheduler}"
        if not self._is_told:
            fault = self._discovery.problem
            return fault or f"this node's discovery does not answer at {own}: {IS_UP_RUNNING}, with this home?"
        if not self.channel.targets:
            return (
                f"the scheduler node, {node}, has not been heard: {IS_UP_RUNNING} there? `thunderline nodes` shows who "
                "is heard, `thunderline doctor` why others are not"
            )
        where = f"{self._hostname} ({node})" if self._hostname else node
        return self.channel.problem or (
            f"the scheduler on {where} answers at none of {', '.join(self.channel.targets)}: {IS_UP_RUNNING} there? "
            "`thunderline doctor` says more"
        )
