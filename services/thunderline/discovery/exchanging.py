"""The heartbeat: looks at the roster each tick, and exchanges cards with whom it names."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from prometheus_client import Counter

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import target
from thunderline.cluster.errors import ClusterError, DeadlinePassed, InvalidRequest, Unauthenticated, Unreachable
from thunderline.discovery import wire
from thunderline.discovery.channels import Channels
from thunderline.discovery.membership import Membership
from thunderline.discovery.peers import Call, Greeting
from thunderline.discovery.reasons import Reasons
from thunderline.discovery.roster import HERE
from thunderline.process.trust import Wallet
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.v1 import discovery_pb2, discovery_pb2_grpc

# Dials under way to those who may not be there: whoever can send multicast can announce hundreds. What is above waits
# for a place, within its deadline. The heartbeats of members who are there do not.
DIAL_COUNT_MAX = 64
# Heartbeats: below the two probe periods after which nothing goes over a worse link any more.
IDLE = 3.0
# For so many heartbeats after it failed, the best link is not tried: its peer is called everywhere.
BEST_AGAIN = 4.0
PROBLEM_MAX = 300
# A peer that refuses this node does so again each second.
SAY_EVERY_S = 60.0

log = logging.getLogger(__name__)

EXCHANGES = Counter("thunderline_card_exchanges_total", "Cards exchanged: answered, failed, or served.", ["result"])


@dataclass(frozen=True, slots=True)
class Answer:
    address: str
    greeting: Greeting
    clock_ahead_s: float


class Exchanging:
    """`best` gives the IP address of the best link to each node, where one is known. With a wallet everybody shows a
    certificate."""

    def __init__(
        self, members: Membership, wallet: Wallet | None = None, best: Callable[[], Mapping[NodeId, str]] = dict
    ) -> None:
        beat_s = members.waits.heartbeat_s
        self._members = members
        self._wallet = wallet
        self._best = best
        self._failed_s: dict[tuple[NodeId, str], float] = {}
        self._deadline_s = beat_s
        self._reasons = Reasons(wallet) if wallet else None
        self._said_s = -SAY_EVERY_S
        self._places = asyncio.Semaphore(DIAL_COUNT_MAX)
        self.channels = Channels(lambda address, node: dial(address, wallet, node), IDLE * beat_s)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    for call in self._members.tick(self._best_targets()):
                        tasks.create_task(self._call(call), name=f"exchange with {call.node_id or call.addresses}")
                    await self.channels.sweep()
                    await asyncio.sleep(self._members.waits.tick_s)
        finally:
            await self.channels.close()

    def _best_targets(self) -> dict[NodeId, str]:
        """As peers are dialled, without those that have just failed."""
        now_s = time.monotonic()
        again_s = BEST_AGAIN * self._members.waits.heartbeat_s
        self._failed_s = {key: at_s for key, at_s in self._failed_s.items() if now_s - at_s < again_s}
        found = {}
        for node, address in self._best().items():
            member = self._members.roster.members.get(node)
            if member is None or not member.card.addresses:
                continue
            at = target(address, int(member.card.addresses[0].rpartition(":")[2]))
            if (node, at) not in self._failed_s:
                found[node] = at
        return found

    async def _call(self, call: Call) -> None:
        """At all of its addresses at once; the first answer counts."""
        request = discovery_pb2.ExchangeCardRequest()
        wire.fill_greeting(request, self._members.greeting_for(call), time.time())
        member = self._members.roster.members.get(call.node_id) if call.node_id is not None else None
        place = contextlib.nullcontext() if member is not None and member.state in HERE else self._places
        asks = {
            asyncio.create_task(self._ask(address, call.node_id, request, place)): address for address in call.addresses
        }
        pending, problems = set(asks), dict[str, ClusterError]()
        answer: Answer | None = None
        try:
            while pending and answer is None:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    match one.result():
                        case Answer() as answer:
                            pass
                        case ClusterError() as error:
                            problems[asks[one]] = error
        finally:
            for one in pending:
                one.cancel()
            if pending:
                await asyncio.wait(pending)
        if answer is not None:
            await self._take(call, answer)
        else:
            await self._give_up(call, problems)

    async def _take(self, call: Call, answer: Answer) -> None:
        try:
            self._members.answered(call, answer.address, answer.greeting, answer.clock_ahead_s)
        except ClusterError as error:
            return await self._give_up(call, {call.addresses[0]: error})
        EXCHANGES.labels("answered").inc()
        if call.node_id is not None:
            await self.channels.keep_only(call.node_id, answer.address)

    async def _give_up(self, call: Call, problems: Mapping[str, ClusterError]) -> None:
        EXCHANGES.labels("failed").inc()
        # The first address is the one that answered last, or the best known.
        first = call.addresses[0]
        refused = [one for one, error in problems.items() if self._reasons and isinstance(error, Unreachable)]
        self._members.failed(call, self._known_reason(refused) or _line(first, problems[first].message))
        if call.node_id is not None:
            self._failed_s[call.node_id, first] = time.monotonic()
        # What anybody may announce is not for the log.
        is_known = call.node_id is None or call.node_id in self._members.roster.members
        for address, error in problems.items():
            if is_known and isinstance(error, Unauthenticated) and time.monotonic() - self._said_s >= SAY_EVERY_S:
                self._said_s = time.monotonic()
                log.warning("a peer cannot be called", extra={"peer": address, "why": error.message})
        for address in refused:
            if self._reasons and (reason := await self._reasons.look(address)):
                self._members.explained(call, _line(address, reason))
                if is_known:
                    log.warning("a peer cannot be called", extra={"peer": address, "why": reason})

    def _known_reason(self, addresses: Iterable[str]) -> str:
        found = ((one, self._reasons.known(one)) for one in addresses if self._reasons)
        return next((_line(address, reason) for address, reason in found if reason), "")

    async def _ask(
        self, address: str, node: NodeId | None, request: Any, place: contextlib.AbstractAsyncContextManager[None]
    ) -> Answer | ClusterError:
        try:
            async with asyncio.timeout(self._deadline_s), place:
                answer = await self._exchange(address, node, request)
                if node is None and self._wallet is not None:
                    # Any certificate of the cluster was good enough there: now the card's own has to be shown.
                    answer = await self._exchange(address, answer.greeting.card.node_id, request)
                return answer
        except TimeoutError:
            return DeadlinePassed(f"no answer within {self._deadline_s:g} s")
        except ClusterError as error:
            return error

    async def _exchange(self, address: str, node: NodeId | None, request: Any) -> Answer:
        async with self.channels.lent(address, node) as channel:
            stub: Any = discovery_pb2_grpc.DiscoveryServiceStub(channel)
            begun_s = time.time()
            try:
                # `_ask` ends it before that.
                told = await stub.ExchangeCard(request, timeout=2 * self._deadline_s)
            except grpc.aio.AioRpcError as error:
                raise from_call(error) from None
            ended_s = time.time()
            greeting = wire.checked_greeting(told)
            if self._wallet is not None and node is not None and greeting.card.node_id != node:
                raise InvalidRequest(f"it shows the card of {greeting.card.node_id}", param="card.node_id")
            ahead_s = told.sent_at.ToMicroseconds() / 1e6 - (begun_s + ended_s) / 2
            return Answer(address, greeting, ahead_s)


def _line(address: str, problem: str) -> str:
    """For the roster; a part of it others may have sent."""
    text = " ".join(f"{address}: {problem}".split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:PROBLEM_MAX]
