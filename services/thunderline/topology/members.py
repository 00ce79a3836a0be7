"""Whom this node probes, from the roster of its own discovery. Pure."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address, is_probed, parse
from thunderline.cluster.members import MemberState
from thunderline.v1 import cluster_pb2, discovery_pb2

# A card comes from another node: it may say anything.
ADDRESS_COUNT_MAX = 32
PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another member. `addresses`: those that are worth a try from here."""

    node: NodeId
    state: MemberState
    # Which of its lives: another one after each start of its discovery.
    life: tuple[int, str]
    addresses: tuple[str, ...]
    echo_port: int
    topology_port: int

    @property
    def is_present(self) -> bool:
        return self.state in (MemberState.ALIVE, MemberState.SUSPECT)


@dataclass(frozen=True, slots=True)
class Members:
    """`is_complete`: discovery says that nobody is missing; without discovery the last word stays."""

    peers: Mapping[NodeId, Peer] = field(default_factory=dict)
    is_complete: bool = False
    # By node and address: the interface that the node's card gives to the address.
    owners: Mapping[tuple[NodeId, str], str] = field(default_factory=dict)
    names: Mapping[NodeId, str] = field(default_factory=dict)
    # Ids by which two nodes live: whose report is whose nobody can tell.
    twins: frozenset[NodeId] = frozenset()

    @property
    def present(self) -> frozenset[NodeId]:
        return frozenset(peer.node for peer in self.peers.values() if peer.is_present)

    @property
    def alive(self) -> frozenset[NodeId]:
        return frozenset(peer.node for peer in self.peers.values() if peer.state is MemberState.ALIVE)


def members(roster: discovery_pb2.Roster, own: NodeId) -> Members:
    """All but those that have left, and those whose card is of no use."""
    cards = {NodeId(one.card.node_id): one for one in roster.members}
    mine = cards.get(own)
    # Who lives on loopback is on this machine.
    same_machine = mine is not None and any(is_address(a) and parse(a).is_loopback for a in mine.card.addresses)
    peers = {}
    for node, member in sorted(cards.items()):
        state = _state(member.state)
        if node != own and _is_id(node) and state not in (None, MemberState.LEFT):
            assert state is not None
            if (found := _peer(node, member.card, state, same_machine)) is not None:
                peers[node] = found
    known = [one.card for node, one in cards.items() if node in peers or node == own]
    owners = {
        (NodeId(card.node_id), address): interface.name
        for card in known
        for interface in card.interfaces
        for address in interface.addresses
    }
    names = {NodeId(card.node_id): card.hostname for card in known}
    twins = frozenset(NodeId(one.node_id) for one in roster.twins)
    return Members(peers, roster.complete, owners, names, twins & {own, *peers})


def _peer(node: NodeId, card: cluster_pb2.NodeCard, state: MemberState, same_machine: bool) -> Peer | None:
    ports = {one.role: one.port for one in card.endpoints if one.port in PORTS}
    if "echo" not in ports or "topology" not in ports:
        return None
    told = [str(parse(one)) for one in card.addresses[:ADDRESS_COUNT_MAX] if is_probed(one, same_machine)]
    addresses = tuple(dict.fromkeys(told))
    return Peer(node, state, (card.incarnation, card.start_id), addresses, ports["echo"], ports["topology"])


def begun_again(before: Members, after: Members) -> tuple[NodeId, ...]:
    """Who is ALIVE again, or in another life: what failed before counts no more."""
    return tuple(
        node
        for node, peer in after.peers.items()
        if peer.state is MemberState.ALIVE
        and (old := before.peers.get(node)) is not None
        and (old.state is not MemberState.ALIVE or old.life != peer.life)
    )


def _state(number: int) -> MemberState | None:
    try:
        return MemberState(number)
    except ValueError:
        return None


def _is_id(node: NodeId) -> bool:
    try:
        return str(uuid.UUID(node)) == node
    except ValueError:
        return False
