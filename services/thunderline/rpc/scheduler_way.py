"""The way to the cluster's scheduler from another node: our own discovery knows where it is, our topology how to go."""

import asyncio
import contextlib
import logging

import grpc

from thunderline.cluster import NodeId
from thunderline.process.trust import Wallet
from thunderline.rpc import moves
from thunderline.rpc.moving import Moving, follow
from thunderline.rpc.ways import REDIAL_S, Ways
from thunderline.v1 import discovery_pb2, discovery_pb2_grpc

IS_UP_RUNNING = "is `thunderline up` running"

log = logging.getLogger(__name__)


class SchedulerWay:
    """`channel` is the connection; `run` keeps it where the scheduler node is."""

    def __init__(self, scheduler: NodeId, own: NodeId, discovery: str, topology: str, wallet: Wallet) -> None:
        """`discovery` and `topology` are "host:port" of our own node's."""
        self._scheduler = scheduler
        self._ways = Ways(topology, wallet, own)
        self._discovery = Moving.at(discovery, wallet, own)
        self.channel = Moving(scheduler, self._ways, wallet)
        # Whether our own discovery has ever answered, and what it said of the scheduler node.
        self._is_told = False
        self._hostname = ""

    async def run(self) -> None:
        """Until cancelled. While discovery or topology is away, what they said last stays."""
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
        there = moves.reach(card, "scheduler") if card else None
        if card and there:
            self._hostname = card.hostname
            self.channel.aim(there)

    @property
    def problem(self) -> str:
        """Why it cannot be reached, and what to do about it; "" while it can."""
        if self.channel.works:
            return ""
        own, node = self._discovery.target, f"node {self._scheduler}"
        if not self._is_told:
            fault = self._discovery.problem
            return fault or f"this node's discovery does not answer at {own}: {IS_UP_RUNNING}, with this home and ports?"
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
