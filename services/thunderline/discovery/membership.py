"""The roster and the peers of one node as they are now, and who waits for their changes. Decides nothing itself."""

import logging
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from thunderline.cluster import NodeId
from thunderline.cluster.errors import Draining, Full, NotFound, Unauthenticated
from thunderline.cluster.members import HAS_LEFT, MemberState
from thunderline.discovery import peers as calling
from thunderline.discovery import roster as rosters
from thunderline.discovery import wire
from thunderline.discovery.member_life import Waits
from thunderline.discovery.peers import NOWHERE, Call, Greeting, Lead, Peers
from thunderline.discovery.roster import DEFAULTS
from thunderline.discovery.values import Card, Stranger
from thunderline.process.changes import Changes
from thunderline.v1 import discovery_pb2

# Far more than a handful of machines: who sends cards under ever new names stops here.
MEMBER_COUNT_MAX = 1024
# Heartbeats for which a node that has left goes on saying so; each member is called once within one.
FAREWELL = 2.0
# Heartbeats for which a failed call is told of a member, that since then has called us instead.
PROBLEM_KEPT = 10.0
# A late answer makes one offset wrong, not the one in the middle.
OFFSETS_KEPT = 5

log = logging.getLogger(__name__)


def continuous_s() -> float:
    """Seconds that go on while the machine sleeps."""
    # macOS stops time.monotonic in its sleep, and has no CLOCK_BOOTTIME.
    clock = time.CLOCK_MONOTONIC_RAW if sys.platform == "darwin" else time.CLOCK_BOOTTIME
    return time.clock_gettime(clock)


class Membership:
    """Belongs to one event loop. `scheduler` is the cluster's scheduler node."""

    def __init__(
        self,
        own: Card,
        remembered: Iterable[Card] = (),
        seeds: tuple[str, ...] = (),
        waits: Waits = DEFAULTS,
        *,
        alone: bool = False,
        scheduler: NodeId | None = None,
        clock: Callable[[], float] = continuous_s,
    ) -> None:
        self.changes = Changes()
        self.waits = waits
        self._clock = clock
        self.roster = rosters.start(own, remembered, clock(), waits, alone=alone, scheduler=scheduler)
        self.peers = Peers(seeds)
        self._offsets: dict[NodeId, deque[float]] = {}
        # What went wrong, in which life of the member, and when.
        self._problems: dict[NodeId, tuple[str, float]] = {}
        self._addresses: dict[NodeId, str] = {}

    @property
    def own(self) -> Card:
        return self.roster.own

    @property
    def has_left(self) -> bool:
        return self.roster.members[self.roster.own_id].state is MemberState.LEFT

    @property
    def has_gone(self) -> bool:
        """It has left, and has told it to whoever was there."""
        own = self.roster.members[self.roster.own_id]
        return self.has_left and self._clock() - own.since_s >= FAREWELL * self.waits.heartbeat_s

    def proto(self) -> discovery_pb2.Roster:
        ahead_s = {node: statistics.median(found) for node, found in self._offsets.items()}
        problems = {node: problem for node, (problem, _) in self._problems.items()}
        now_s, wall_s = self._clock(), time.time()
        notes = wire.Notes(ahead_s, problems, self._addresses)
        return wire.to_roster(rosters.view(self.roster), notes, lambda since_s: wall_s - (now_s - since_s))

    def tick(self, best: Mapping[NodeId, str] = NOWHERE) -> tuple[Call, ...]:
        """Whom to call now. Wanted every `waits.tick_s`."""
        self._become(rosters.tick(self.roster, self._clock()), self.peers)
        self._forget_problems()
        if self.has_gone:
            return ()
        due, peers = calling.calls(self.roster, self.peers, best)
        self._become(self.roster, peers)
        return due

    def greeting_for(self, call: Call) -> Greeting:
        """What to say in a call of ours."""
        is_twin = call.node_id == self.roster.own_id
        member = self.roster.members.get(call.node_id) if call.node_id is not None and not is_twin else None
        return self.greet(member.card if member is not None else None)

    def greet(self, to: Card | None) -> Greeting:
        greeting, peers = calling.greet(self.roster, self.peers, to)
        self._become(self.roster, peers)
        return greeting

    def greeted(self, greeting: Greeting, ahead_s: float, address: str) -> None:
        """Somebody has called us, from this IP address. Raises Full, Draining, Unauthenticated."""
        if self.has_gone:
            raise Draining("this node has left the cluster; its discovery comes back with a restart")
        if rosters.is_out(self.roster, greeting.card):
            raise Unauthenticated(f"node {greeting.card.node_id} {HAS_LEFT}")
        self._check_room(greeting)
        roster, peers = calling.greeted(self.roster, self.peers, greeting, self._clock())
        self._become(roster, peers)
        self._note(greeting.card, ahead_s, address)

    def answered(self, call: Call, address: str, greeting: Greeting, ahead_s: float) -> None:
        """Raises Full."""
        self._check_room(greeting)
        roster, peers = calling.answered(self.roster, self.peers, call, address, greeting, self._clock())
        self._become(roster, peers)
        self._note(greeting.card, ahead_s, address.rpartition(":")[0].strip("[]"))
        if self._problems.pop(greeting.card.node_id, None) is not None:
            self._is_news()

    def failed(self, call: Call, problem: str) -> None:
        """Nobody answered at any of the call's addresses."""
        self._become(self.roster, calling.failed(self.peers, call))
        if call.node_id is not None and call.node_id in self.roster.members:
            self._has_problem(call.node_id, problem)

    def explained(self, call: Call, reason: str) -> None:
        """Why a call has failed, found out a while after; nothing where one was answered meanwhile."""
        if call.node_id is not None and call.node_id in self._problems:
            self._has_problem(call.node_id, reason)

    def sighted(self, leads: Iterable[Lead], strangers: Iterable[Stranger] = ()) -> None:
        """Nodes announce themselves."""
        self._become(self.roster, calling.sighted(self.roster, self.peers, leads))
        for stranger in strangers:
            self._become(rosters.notice(self.roster, stranger, self._clock()), self.peers)

    def renew(self, own: Card) -> None:
        self._become(rosters.renew(self.roster, own, self._clock()), self.peers)

    def leave(self, node: NodeId) -> None:
        """A member leaves, or this node itself. Raises NotFound."""
        member = self.roster.members.get(node)
        if member is None:
            raise NotFound(f"{node} is no member of cluster {self.own.cluster_name!r}", param="node_id")
        self._become(rosters.leave(self.roster, node, member.card.life, self._clock()), self.peers)

    def _become(self, roster: rosters.Roster, peers: Peers) -> None:
        is_news, had_left = roster.version != self.roster.version, self.has_left
        self.roster, self.peers = roster, peers
        if is_news:
            self.changes.notify()
        if self.has_left and not had_left:
            log.warning("this node %s", HAS_LEFT)

    def _has_problem(self, node: NodeId, problem: str) -> None:
        known, _ = self._problems.get(node, ("", 0.0))
        self._problems[node] = (problem, self._clock())
        if known != problem:
            self._is_news()

    def _is_news(self) -> None:
        """Something beside the roster's own is told with it."""
        self._become(rosters.renumbered(self.roster), self.peers)

    def _check_room(self, greeting: Greeting) -> None:
        members = self.roster.members
        if greeting.card.node_id not in members and len(members) >= MEMBER_COUNT_MAX:
            raise Full(f"the cluster has {len(members)} members already")

    def _note(self, card: Card, ahead_s: float, address: str) -> None:
        """Of those who are shown."""
        member = self.roster.members.get(card.node_id)
        if member is None or member.card.life != card.life or card.node_id == self.roster.own_id:
            return
        self._offsets.setdefault(card.node_id, deque(maxlen=OFFSETS_KEPT)).append(ahead_s)
        self._addresses[card.node_id] = address

    def _forget_problems(self) -> None:
        now_s, members = self._clock(), self.roster.members
        kept_s = PROBLEM_KEPT * self.waits.heartbeat_s
        over = [
            node
            for node, (_, at_s) in self._problems.items()
            if node not in members
            or (members[node].state is MemberState.ALIVE and now_s - at_s >= kept_s)
            or members[node].state is MemberState.LEFT
        ]
        for node in over:
            del self._problems[node]
        if over:
            self._is_news()
        self._offsets = {node: found for node, found in self._offsets.items() if node in members}
        self._addresses = {node: address for node, address in self._addresses.items() if node in members}
