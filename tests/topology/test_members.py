"""Whom a node probes, from a roster that may say anything."""

import uuid

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.members import MemberState
from thunderline.topology.members import Members, Peer, begun_again, members
from thunderline.v1 import cluster_pb2, discovery_pb2

A, B, C = (NodeId(str(uuid.UUID(int=number))) for number in (1, 2, 3))
ALIVE, SUSPECT, DEAD, LEFT = (MemberState(number) for number in (1, 2, 3, 4))
PORTS = {"echo": 7412, "topology": 7402, "scheduler": 7403}


def member(
    node: str,
    addresses: list[str],
    state: MemberState = ALIVE,
    ports: dict[str, int] | None = None,
    life: tuple[int, str] = (1, "x"),
) -> discovery_pb2.Member:
    endpoints = [
        cluster_pb2.RoleEndpoint(role=role, port=port) for role, port in (PORTS if ports is None else ports).items()
    ]
    interface = cluster_pb2.NetworkInterface(name="en5", medium=cluster_pb2.MEDIUM_THUNDERBOLT, addresses=addresses)
    card = cluster_pb2.NodeCard(
        node_id=node,
        incarnation=life[0],
        start_id=life[1],
        hostname=f"host-{node[-1]}",
        addresses=addresses,
        endpoints=endpoints,
        interfaces=[interface],
    )
    return discovery_pb2.Member(card=card, state=state.value)  # type: ignore[arg-type]


def found(*others: discovery_pb2.Member, own: list[str] | None = None) -> Members:
    mine = member(A, ["10.0.0.1"] if own is None else own)
    return members(discovery_pb2.Roster(members=[mine, *others], complete=True), A)


def test_a_peer_is_all_that_a_probe_needs() -> None:
    told = found(member(B, ["192.168.4.2", "10.0.0.2"], SUSPECT, life=(7, "y")))
    assert told.peers == {B: Peer(B, SUSPECT, (7, "y"), ("192.168.4.2", "10.0.0.2"), 7412, 7402)}
    assert told.owners[(B, "10.0.0.2")] == "en5"
    assert told.names == {A: "host-1", B: "host-2"}
    assert told.is_complete


def test_ids_that_two_nodes_have_are_told() -> None:
    twins = [discovery_pb2.Twin(node_id=node) for node in (A, B, C)]
    cards = [member(A, ["10.0.0.1"]), member(B, ["10.0.0.2"])]
    assert members(discovery_pb2.Roster(members=cards, twins=twins), A).twins == {A, B}


# What a card says: which addresses of it are tried.
ADDRESSES: dict[str, tuple[list[str], list[str], tuple[str, ...]]] = {
    "loopback of another machine": (["10.0.0.1"], ["127.0.0.1", "10.0.0.2"], ("10.0.0.2",)),
    "loopback of one's own": (["127.0.0.1"], ["127.0.0.1"], ("127.0.0.1",)),
    "one that is told twice": (["10.0.0.1"], ["10.0.0.2", "10.0.0.2"], ("10.0.0.2",)),
    "one in two forms": (["10.0.0.1"], ["10.0.0.2", "::ffff:10.0.0.2"], ("10.0.0.2",)),
    "no addresses": (["10.0.0.1"], ["everywhere", "", "0.0.0.0", "224.0.0.1", "fe80::1", "10.0.0.300"], ()),
    "too many": (["10.0.0.1"], [f"10.0.1.{n}" for n in range(40)], tuple(f"10.0.1.{n}" for n in range(32))),
}


@pytest.mark.parametrize(("own", "told", "tried"), ADDRESSES.values(), ids=ADDRESSES.keys())
def test_addresses_that_are_worth_a_try(own: list[str], told: list[str], tried: tuple[str, ...]) -> None:
    assert found(member(B, told), own=own).peers[B].addresses == tried


NOBODY: dict[str, discovery_pb2.Member] = {
    "who has left": member(B, ["10.0.0.2"], LEFT),
    "who has no echo": member(B, ["10.0.0.2"], ports={"topology": 7402}),
    "an impossible port": member(B, ["10.0.0.2"], ports={"topology": 7402, "echo": 70000}),
    "no UUID": member("b", ["10.0.0.2"]),
    "a UUID in another form": member(B.upper().replace("-", ""), ["10.0.0.2"]),
    "a state of a later version": discovery_pb2.Member(card=member(B, ["10.0.0.2"]).card, state=99),  # type: ignore[arg-type]
    "this node": member(A, ["10.0.0.2"]),
}


@pytest.mark.parametrize("other", NOBODY.values(), ids=NOBODY.keys())
def test_who_is_not_probed(other: discovery_pb2.Member) -> None:
    assert found(other).peers == {}


def test_who_is_there_and_who_lives() -> None:
    told = found(member(B, ["10.0.0.2"], SUSPECT), member(C, ["10.0.0.3"], DEAD))
    assert (told.present, told.alive) == (frozenset({B}), frozenset())
    assert set(told.peers) == {B, C}


# Before, after: whether what failed before counts no more.
AGAIN: dict[str, tuple[discovery_pb2.Member, discovery_pb2.Member, bool]] = {
    "it was DEAD": (member(B, ["10.0.0.2"], DEAD), member(B, ["10.0.0.2"]), True),
    "it was SUSPECT": (member(B, ["10.0.0.2"], SUSPECT), member(B, ["10.0.0.2"]), True),
    "another life": (member(B, ["10.0.0.2"]), member(B, ["10.0.0.2"], life=(2, "x")), True),
    "another start of the same count": (member(B, ["10.0.0.2"]), member(B, ["10.0.0.2"], life=(1, "z")), True),
    "another address": (member(B, ["10.0.0.2"]), member(B, ["10.0.0.3"]), False),
    "nothing": (member(B, ["10.0.0.2"]), member(B, ["10.0.0.2"]), False),
    "it is SUSPECT now": (member(B, ["10.0.0.2"]), member(B, ["10.0.0.2"], SUSPECT), False),
}


@pytest.mark.parametrize(("before", "after", "again"), AGAIN.values(), ids=AGAIN.keys())
def test_who_has_begun_again(before: discovery_pb2.Member, after: discovery_pb2.Member, again: bool) -> None:
    assert begun_again(found(before), found(after)) == ((B,) if again else ())


def test_a_new_peer_has_nothing_to_begin_again() -> None:
    assert begun_again(found(), found(member(B, ["10.0.0.2"]))) == ()


def own_card(system: str, machine: cluster_pb2.MachineFacts | None) -> Members:
    mine = member(A, ["10.0.0.1"])
    mine.card.operating_system = system
    mine.card.interfaces.add(name="en9", medium=99)
    mine.card.interfaces.add(name="utun4", medium=cluster_pb2.MEDIUM_VPN)
    if machine is not None:
        mine.card.machine.CopyFrom(machine)
    other = member(B, ["10.0.0.2"])
    other.card.operating_system = "darwin 25.2.0"
    other.card.interfaces.add(name="en12", medium=cluster_pb2.MEDIUM_WIFI)
    other.card.machine.ports.add(receptacle="6")
    return members(discovery_pb2.Roster(members=[mine, other], complete=True), A)


NOTHING = cluster_pb2.MachineFacts()
PORT = cluster_pb2.MachineFacts(ports=[cluster_pb2.ThunderboltPort(receptacle="1", interface="en5", rdma_port=99)])  # type: ignore[arg-type]
MEDIA = {"en5": Medium.THUNDERBOLT, "utun4": Medium.VPN}
# The own card's system and machine: the own ports, whether one waits for them, and media.
OWN: dict[
    str, tuple[str, cluster_pb2.MachineFacts | None, tuple[ThunderboltPort, ...] | None, bool, dict[str, Medium]]
] = {
    "a Mac that has not looked yet": ("darwin 25.2.0", None, None, True, MEDIA),
    "a Mac that has looked": ("darwin 25.2.0", PORT, (ThunderboltPort(receptacle="1", interface="en5"),), False, MEDIA),
    "a Mac without a port": ("darwin 25.2.0", NOTHING, (), False, MEDIA),
    "another system, which does not look": ("linux 6.18.0", None, None, False, {}),
    "another system, which tells of no ports": ("linux 6.18.0", NOTHING, None, False, {}),
    "a system with a similar name": ("darwinix 1", None, None, False, {}),
}


@pytest.mark.parametrize(("system", "machine", "ports", "awaits", "media"), OWN.values(), ids=OWN.keys())
def test_what_the_own_card_says_of_the_machine(
    system: str,
    machine: cluster_pb2.MachineFacts | None,
    ports: tuple[ThunderboltPort, ...] | None,
    awaits: bool,
    media: dict[str, Medium],
) -> None:
    told = own_card(system, machine)
    assert (told.ports, told.awaits_machine, told.media) == (ports, awaits, media)


def test_without_an_own_card_nothing_is_known_and_nothing_awaited() -> None:
    told = members(discovery_pb2.Roster(members=[member(B, ["10.0.0.2"])]), A)
    assert (told.ports, told.awaits_machine, told.media) == (None, False, {})
