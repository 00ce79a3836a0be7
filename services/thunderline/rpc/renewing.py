"""Renews a member's certificate before it ends, and when the cluster's authorities change; in discovery's process."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import target
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import renewal
from thunderline.cluster.errors import ClusterError, Unauthenticated, Unreachable
from thunderline.process.authority import changing
from thunderline.process.certificates import new_key, request_pem
from thunderline.process.trust import Identity, Wallet, identity, keep, trusted
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.rpc.moves import in_order, reach
from thunderline.v1 import cluster_pb2, enrollment_pb2, enrollment_pb2_grpc

LOOK_S = 1.0
# After an attempt, whatever it came to.
AGAIN_S = 5.0
CALL_DEADLINE_S = 5.0
SAY_EVERY_S = 60.0

log = logging.getLogger(__name__)

# The scheduler node's card, once it has been heard.
Look = Callable[[], cluster_pb2.NodeCard | None]
# The best address of a node, where one is known.
Best = Callable[[NodeId], str | None]


class Renewing:
    def __init__(self, home: Path, wallet: Wallet, scheduler: Look, best: Best = lambda _: None) -> None:
        self._home = home
        self._wallet = wallet
        self._scheduler = scheduler
        self._best = best
        self._said_s = -SAY_EVERY_S

    async def run(self) -> None:
        """Until cancelled. A failure is logged once a minute, with its reason."""
        while True:
            try:
                tried = await self.look()
            except (ClusterError, OSError) as error:
                tried = True
                self._say(f"this node's certificate cannot be renewed: {error}")
            await asyncio.sleep(AGAIN_S if tried else LOOK_S)

    async def look(self) -> bool:
        """Renews it if it is time; whether it was. Raises ClusterError, OSError."""
        own = self._wallet.identity()
        # The scheduler node's own process looks after its certificate.
        if own is None or own.facts.bearer.caller is not Caller.MEMBER:
            return False
        card = self._scheduler() or cluster_pb2.NodeCard()
        announced = set(card.trusted_authorities)
        why = renewal(own.facts, trusted(own), announced, card.signing_authority, self._wallet.now_s)
        if not why:
            return False
        if not card.node_id:
            raise Unreachable(f"{why}, and the scheduler node has not been heard")
        newest = await self._ask(NodeId(card.node_id), card, NodeId(own.facts.bearer.name))
        await asyncio.to_thread(self._keep, own, newest)
        log.info("this node's certificate was renewed: %s", why)
        return True

    async def _ask(self, node: NodeId, card: cluster_pb2.NodeCard, name: NodeId) -> Identity:
        """Of the scheduler node, by its best address, then by each other. Raises ClusterError."""
        there = reach(card, "scheduler")
        best = self._best(node)
        hosts = in_order(there.targets, target(best, there.port) if best else "") if there else ()
        problem: ClusterError = Unreachable("the scheduler node's card names no address")
        key_pem = new_key()
        request = enrollment_pb2.SignCertificateRequest(certificate_request_pem=request_pem(key_pem, name))
        for host in hosts:
            try:
                async with dial(host, self._wallet, node) as channel:
                    stub = enrollment_pb2_grpc.EnrollmentServiceStub(channel)
                    answer = await stub.SignCertificate(request, timeout=CALL_DEADLINE_S)
                return identity(key_pem, answer.certificate_pem, answer.authority_pem)
            except grpc.aio.AioRpcError as error:
                failed = from_call(error)
                problem = type(failed)(f"{host}: {failed.message}")
        raise problem

    def _keep(self, before: Identity, newest: Identity) -> None:
        """Raises Unauthenticated, OSError."""
        if newest.facts.bearer != before.facts.bearer or not newest.facts.authority:
            raise Unauthenticated(f"what the scheduler node signed is of {newest.facts.bearer}, not of this node")
        with changing(self._home):
            # `cluster join` may have been run meanwhile.
            if self._wallet.identity() == before:
                keep(self._home, newest)

    def _say(self, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            log.warning(text)
