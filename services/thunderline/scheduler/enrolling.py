"""EnrollmentService: signs the keys of nodes that join, at a port of its own, and renews those of members."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import Bearer
from thunderline.cluster.errors import Full, InvalidRequest, StoreUnavailable, Unauthenticated
from thunderline.cluster.join_tokens import ANOTHER, REFUSALS, Verdict, is_open, read, redeem, seen
from thunderline.process import authority
from thunderline.process.authority import Authorities
from thunderline.process.certificates import Request, read_request, sign
from thunderline.process.departed import departed, readmit
from thunderline.process.entry import CannotStart
from thunderline.process.trust import Wallet, keep_offer, kept_offers
from thunderline.rpc.admission import Refusals, address_of, caller_of
from thunderline.rpc.rosters import copied, has_left, seeds
from thunderline.rpc.server import PortTaken, enrolling
from thunderline.v1 import discovery_pb2, enrollment_pb2, enrollment_pb2_grpc

SERVICE = "thunderline.v1.EnrollmentService"
# The command line makes a token; this long after it the port listens.
LOOK_S = 1.0
# What goes wrong each second is said once in this time.
SAY_EVERY_S = 60.0
STOP_S = 1.0
# Calls with a token at one time; each waits for a disk and for cryptography.
JOIN_COUNT_MAX = 8

log = logging.getLogger(__name__)


class Enrollment:
    """What both doors share: this node signs, for `wallet.cluster`. `roster` is the newest one."""

    def __init__(self, home: Path, node: NodeId, wallet: Wallet, roster: Callable[[], discovery_pb2.Roster]) -> None:
        self.home = home
        self.node = node
        self.wallet = wallet
        self._roster = roster
        # A token is looked at and marked as used by one call at a time.
        self._redeeming = asyncio.Lock()

    async def check_token(self, token: str) -> None:
        """Before anything else is read of a call. Raises Unauthenticated, InvalidRequest."""
        shown = read(token)
        offers = await asyncio.to_thread(kept_offers, self.home)
        if why := REFUSALS.get(seen(offers, shown.secret, self.wallet.now_s)):
            raise Unauthenticated(f"{why}: {ANOTHER}")

    def check_id(self, node: NodeId, peer: str) -> None:
        """The id is no living node's elsewhere. Raises InvalidRequest."""
        if node == self.node:
            why = "this is the scheduler node's own id: its disk was copied; remove node.json to be another node"
        else:
            why = copied(self._roster(), node, address_of(peer))
        if why:
            raise InvalidRequest(why, param="certificate_request_pem")

    async def admit(self, token: str, taker: str) -> None:
        """Marks the token as used by "KEY/NODE", on disk. Raises Unauthenticated, InvalidRequest, StoreUnavailable."""
        shown = read(token)
        async with self._redeeming:
            verdict = await asyncio.to_thread(self._redeem, shown.secret, taker)
        if why := REFUSALS.get(verdict):
            raise Unauthenticated(f"{why}: {ANOTHER}")

    def _redeem(self, secret: bytes, taker: str) -> Verdict:
        before = kept_offers(self.home)
        verdict, after = redeem(before, secret, taker, self.wallet.now_s)
        try:
            for changed in set(after) - set(before):
                keep_offer(self.home, changed)
        except OSError as error:
            raise StoreUnavailable(f"the token cannot be marked as used: {error}") from None
        return verdict

    async def readmit(self, node: NodeId) -> None:
        """A token let it in again. Raises StoreUnavailable, Unauthenticated."""
        try:
            await asyncio.to_thread(_readmit, self.home, node)
        except OSError as error:
            raise StoreUnavailable(f"it cannot be written down that node {node} is back: {error}") from None
        except CannotStart as error:
            raise Unauthenticated(str(error)) from None

    async def check_stays(self, node: NodeId) -> None:
        """Raises Unauthenticated for one that left, or was taken out."""
        try:
            out = node in await asyncio.to_thread(departed, self.home)
        except CannotStart as error:
            raise Unauthenticated(str(error)) from None
        if out or has_left(self._roster(), node):
            raise Unauthenticated(
                f"node {node} has left the cluster: to come back, run `thunderline cluster join TOKEN`"
            )

    async def signed(self, asked: Request) -> enrollment_pb2.SignCertificateResponse:
        """Raises Unauthenticated on a node that signs nothing."""
        ours = await asyncio.to_thread(_kept, self.home)
        if ours is None:
            raise Unauthenticated("this node has no authority of a cluster: it signs nothing")
        caller = Caller.SCHEDULER if asked.name == self.node else Caller.MEMBER
        to = Bearer(self.wallet.cluster, caller, asked.name)
        certificate = await asyncio.to_thread(sign, ours.signing, asked.public_key, to, self.wallet.now_s)
        return enrollment_pb2.SignCertificateResponse(
            certificate_pem=certificate,
            authority_pem=ours.bundle,
            cluster_name=self.wallet.cluster,
            scheduler_node_id=self.node,
            seeds=seeds(self._roster(), self.node),
        )


def _readmit(home: Path, node: NodeId) -> None:
    with authority.changing(home):
        readmit(home, node)


def _kept(home: Path) -> Authorities | None:
    try:
        return authority.kept(home)
    except CannotStart as error:
        raise Unauthenticated(str(error)) from None


class JoiningService(enrollment_pb2_grpc.EnrollmentServiceServicer):
    """At the enrolment port: for who has a token instead of a certificate."""

    def __init__(self, enrollment: Enrollment) -> None:
        self._enrollment = enrollment
        self._refusals = Refusals(enrollment.wallet)
        self._under_way = 0

    async def SignCertificate(
        self, request: enrollment_pb2.SignCertificateRequest, context: Any
    ) -> enrollment_pb2.SignCertificateResponse:
        # Asked for once: of a call that has ended gRPC would crash over it.
        peer = context.peer()
        if self._under_way >= JOIN_COUNT_MAX:
            raise Full(f"{self._under_way} nodes join at this moment", retry_after_s=1.0)
        self._under_way += 1
        try:
            return await self._join(request, peer)
        except (Unauthenticated, InvalidRequest) as error:
            self._refusals.note("did not let a node in", error, peer)
            raise
        finally:
            self._under_way -= 1

    async def _join(
        self, request: enrollment_pb2.SignCertificateRequest, peer: str
    ) -> enrollment_pb2.SignCertificateResponse:
        await self._enrollment.check_token(request.token)
        asked = await asyncio.to_thread(read_request, request.certificate_request_pem)
        node = NodeId(asked.name)
        self._enrollment.check_id(node, peer)
        await self._enrollment.admit(request.token, f"{asked.key}/{node}")
        await self._enrollment.readmit(node)
        response = await self._enrollment.signed(asked)
        log.info("a node joins", extra={"node": node, "peer": peer})
        return response


class RenewingService(enrollment_pb2_grpc.EnrollmentServiceServicer):
    """Beside SchedulerService: a node that has a certificate gets a new one, for itself only, as long as it stays."""

    def __init__(self, enrollment: Enrollment) -> None:
        self._enrollment = enrollment

    async def SignCertificate(
        self, request: enrollment_pb2.SignCertificateRequest, context: Any
    ) -> enrollment_pb2.SignCertificateResponse:
        # Asked for at once, as above.
        peer = caller_of(context, self._enrollment.wallet).bearer
        asked = await asyncio.to_thread(read_request, request.certificate_request_pem)
        if peer.name != asked.name:
            raise Unauthenticated(f"{peer} may renew its own certificate, not that of node {asked.name}")
        await self._enrollment.check_stays(NodeId(asked.name))
        response = await self._enrollment.signed(asked)
        log.info("a certificate was renewed", extra={"node": asked.name})
        return response


class EnrolmentPort:
    """Listens at `address` only while somebody could still use a join token."""

    def __init__(self, address: str, enrollment: Enrollment) -> None:
        self._address = address
        self._enrollment = enrollment
        self._service = JoiningService(enrollment)
        self._said_s = -SAY_EVERY_S

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            ours = await asyncio.to_thread(self._wanted)
            if ours is not None:
                try:
                    await self._listen(ours)
                except PortTaken as error:
                    self._say(f"nobody can join: {error}; choose another [scheduler] enrollment_port")
            await asyncio.sleep(LOOK_S)

    def _wanted(self) -> Authorities | None:
        """With whose certificate to listen now. A node whose own is no good, or is not ours, lets nobody in."""
        home, wallet = self._enrollment.home, self._enrollment.wallet
        offers = kept_offers(home)
        if not is_open(offers, wallet.now_s):
            return None
        try:
            ours = authority.kept(home)
            wallet.checked()
        except (CannotStart, Unauthenticated) as error:
            self._say(f"nobody can join: {error}")
            return None
        return ours

    async def _listen(self, ours: Authorities) -> None:
        """As long as a token is open and the authority stays the same. Raises PortTaken."""
        async with enrolling(self._address, [SERVICE], self._register, ours.signing) as server:
            await server.serving()
            while ours == await asyncio.to_thread(self._wanted):
                await asyncio.sleep(LOOK_S)
            await server.drain(STOP_S)

    def _register(self, server: grpc.aio.Server) -> None:
        enrollment_pb2_grpc.add_EnrollmentServiceServicer_to_server(self._service, server)

    def _say(self, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            log.warning(text)
