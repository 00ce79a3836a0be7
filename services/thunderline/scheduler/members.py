"""Members of the roster as placing takes them, and since when each is ALIVE. Pure."""

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address, is_ipv4
from thunderline.cluster.chips import memory_bytes_per_s
from thunderline.rpc.machine_facts import from_proto
from thunderline.scheduler.placing.settled import SETTLE_S
from thunderline.scheduler.placing.values import Backend, Node
from thunderline.scheduler.values import Member
from thunderline.v1 import cluster_pb2, discovery_pb2

# Ages are told in steps of this, and not at all once nobody asks for them: the same question is answered once.
AGE_STEP_S = 0.5
BACKENDS = {one.value: one for one in Backend}


def member(told: discovery_pb2.Member) -> Member:
    """Raises nothing, whatever its card says."""
    card, facts = told.card, from_proto(told.card.machine)
    node = Node(
        NodeId(card.node_id),
        card.hostname,
        is_alive=told.state == discovery_pb2.MEMBER_STATE_ALIVE,
        backends=_backends(facts.mlx_backends),
        rdma=facts.rdma,
        without_ipv4=_without_ipv4(card),
        memory_bytes_per_s=memory_bytes_per_s(card.chip),
        addresses=tuple(card.addresses),
    )
    return Member(node, facts.working_set_bytes)


def _backends(told: tuple[str, ...] | None) -> frozenset[Backend] | None:
    return None if told is None else frozenset(BACKENDS[one] for one in told if one in BACKENDS)


def _without_ipv4(card: cluster_pb2.NodeCard) -> frozenset[str]:
    told = {one.name: any(is_address(two) and is_ipv4(two) for two in one.addresses) for one in card.interfaces}
    return frozenset(name for name, has_one in told.items() if not has_one)


class Members:
    """Of the newest roster. Times are monotonic."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._alive_since_s: dict[NodeId, float] = {}
        self._incomplete_since_s: dict[NodeId, float] = {}

    def hear(self, roster: discovery_pb2.Roster, now_s: float) -> None:
        left = discovery_pb2.MEMBER_STATE_LEFT
        told = [member(one) for one in roster.members if one.state != left]
        counts = Counter(one.card.name for one in told)
        shared = {name for name, count in counts.items() if count > 1}
        self._members = [replace(one, card=replace(one.card, is_name_shared=one.card.name in shared)) for one in told]
        dead = {NodeId(one.card.node_id) for one in roster.members if one.state == discovery_pb2.MEMBER_STATE_DEAD}
        # One that was SUSPECT for a moment has not gone, and its links neither.
        known = {one.card.id for one in self._members} - dead
        alive = {one.card.id for one in self._members if one.card.is_alive}
        self._alive_since_s = {
            node: self._alive_since_s.get(node, now_s) for node in known if node in alive or node in self._alive_since_s
        }

    def look(self, now_s: float, incomplete: Collection[NodeId] = ()) -> tuple[Member, ...]:
        """As they are now. `incomplete`: who has not told of all its links. It counts as young from then on, as long as
        one that comes: its topology may have just been started."""
        self._incomplete_since_s = {node: self._incomplete_since_s.get(node, now_s) for node in incomplete}
        return tuple(
            replace(one, card=replace(one.card, alive_for_s=self._age_s(one.card.id, now_s))) for one in self._members
        )

    def _age_s(self, node: NodeId, now_s: float) -> float:
        since_s = max(self._alive_since_s.get(node, now_s), self._incomplete_since_s.get(node, -math.inf))
        age_s = now_s - since_s
        return math.inf if age_s >= SETTLE_S else age_s // AGE_STEP_S * AGE_STEP_S
