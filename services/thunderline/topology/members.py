"""Whom this node probes, from the roster of its own discovery. Pure."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address, is_probed, parse
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.members import MemberState
from thunderline.rpc.machine_facts import port_from_proto
from thunderline.v1 import cluster_pb2, discovery_pb2

# A card comes from another node: it may say anything.
ADDRESS_COUNT_MAX = 32
PORTS = range(1, 65536)
# How the operating system of a Mac begins on its card.
MAC = "darwin "


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
    # This node's own Thunderbolt ports, by its own card; None while its discovery has not looked yet.
    ports: tuple[ThunderboltPort, ...] | None = None
    # Its discovery will look, and has not yet.
    awaits_machine: bool = False
    # Of its own interfaces, by name, where only discovery knows them: on a Mac.
    media: Mapping[str, Medium] = field(default_factory=dict)

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
    told = Members(peers, roster.complete, owners, names, twins & {own, *peers})
    return told if mine is None else _with_own(told, mine.card)


def _with_own(told: Members, card: cluster_pb2.NodeCard) -> Members:
    """With what this node's own card says of its hardware."""
    # Other systems tell of no ports, which does not say that they have none.
    is_mac = card.operating_system.startswith(MAC)
    has_looked = is_mac and card.HasField("machine")
    return replace(
        told,
        ports=tuple(port_from_proto(one) for one in card.machine.ports) if has_looked else None,
        awaits_machine=is_mac and not has_looked,
        media={one.name: medium for one in card.interfaces if (medium := _medium(one.medium))} if is_mac else {},
    )


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


def _medium(number: int) -> Medium | None:
    try:
        return Medium(number)
    except ValueError:
        return None


def _is_id(node: NodeId) -> bool:
    try:
        return str(uuid.UUID(node)) == node
    except ValueError:
        return False
