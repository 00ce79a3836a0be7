"""Cards, greetings and rosters between protos and values. What comes from outside is checked against its bounds.

Other members read these cards too: their command lines print them, their topologies dial what they name.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address, target
from thunderline.cluster.errors import InvalidRequest
from thunderline.discovery.differences import Kind, differences, sentence
from thunderline.discovery.peers import ADDRESS_COUNT_MAX, LEAD_COUNT_MAX, Greeting, Lead
from thunderline.discovery.values import Card, Life, View
from thunderline.rpc import machine_facts
from thunderline.v1 import cluster_pb2, discovery_pb2

CARD_BYTES_MAX = 64 * 1024
# Counts of starts: with the count of changes beside it a version fits 63 bits.
INCARNATION_MAX = 2**31 - 1
PORT_MAX = 65_535
# timestamp.proto: the years 1 to 9999. What is beyond them cannot be converted.
SECONDS_MIN, SECONDS_MAX = -62_135_596_800, 253_402_300_799
NANOS_MAX = 999_999_999
# (field, least and most characters)
TEXTS = (
    ("hostname", 0, 255),
    ("cluster_name", 1, 64),
    ("version", 0, 64),
    ("operating_system", 0, 128),
    ("chip", 0, 128),
    ("start_id", 1, 64),
    ("settings_digest", 0, 64),
    ("certificate_authority", 0, 64),
    ("signing_authority", 0, 64),
)
# (field, most entries)
LISTS = (
    ("interfaces", 64),
    ("endpoints", 16),
    ("versions", 16),
    ("settings", 32),
    ("addresses", 32),
    ("trusted_authorities", 2),
    ("departed_node_ids", 256),
)
INTERFACE_ADDRESS_COUNT_MAX = 32


@dataclass(frozen=True, slots=True)
class Notes:
    """What is told of a member beside its card and state; unset while it is not known."""

    clock_ahead_s: Mapping[NodeId, float] = field(default_factory=dict)
    problems: Mapping[NodeId, str] = field(default_factory=dict)
    addresses: Mapping[NodeId, str] = field(default_factory=dict)


def to_card(told: cluster_pb2.NodeCard) -> Card:
    """Of a card that is known to be good: our own, or one that was checked."""
    port = next((one.port for one in told.endpoints if one.role == "discovery"), 0)
    return Card(
        node_id=NodeId(told.node_id),
        life=Life(told.incarnation, told.start_id),
        cluster_name=told.cluster_name,
        revision=told.revision,
        hostname=told.hostname,
        addresses=tuple(target(address, port) for address in told.addresses) if port else (),
        versions=tuple((one.name, one.value) for one in told.versions),
        settings=tuple((one.name, one.value) for one in told.settings),
        departed=frozenset(NodeId(one) for one in told.departed_node_ids),
        whole=told.SerializeToString(deterministic=True),
    )


def checked_card(told: cluster_pb2.NodeCard) -> Card:
    """Raises InvalidRequest that names the field."""
    _check(told.ByteSize() <= CARD_BYTES_MAX, "card", f"has more than {CARD_BYTES_MAX} bytes")
    _check_node_id(told.node_id, "card.node_id")
    for name, least, most in TEXTS:
        _check_text(getattr(told, name), f"card.{name}", least, most)
    _check(1 <= told.incarnation <= INCARNATION_MAX, "card.incarnation", f"is not 1 to {INCARNATION_MAX}")
    for name in ("revision", "memory_bytes"):
        _check(getattr(told, name) >= 0, f"card.{name}", "is below zero")
    for name, most in LISTS:
        _check(len(getattr(told, name)) <= most, f"card.{name}", f"has more than {most} entries")
    for interface in told.interfaces:
        _check_text(interface.name, "card.interfaces.name", 1, 64)
        few = len(interface.addresses) <= INTERFACE_ADDRESS_COUNT_MAX
        _check(few, "card.interfaces.addresses", f"has more than {INTERFACE_ADDRESS_COUNT_MAX} entries")
        _check_addresses(interface.addresses, "card.interfaces.addresses")
    _check_addresses(told.addresses, "card.addresses")
    for endpoint in told.endpoints:
        _check_text(endpoint.role, "card.endpoints.role", 1, 32)
        _check_text(endpoint.host, "card.endpoints.host", 0, 255)
        _check(1 <= endpoint.port <= PORT_MAX, "card.endpoints.port", f"is not 1 to {PORT_MAX}")
    _check(any(one.role == "discovery" for one in told.endpoints), "card.endpoints", "names no discovery")
    for name in ("versions", "settings"):
        for one in getattr(told, name):
            _check_text(one.name, f"card.{name}.name", 1, 64)
            _check_text(one.value, f"card.{name}.value", 0, 1024)
    for fingerprint in told.trusted_authorities:
        _check_text(fingerprint, "card.trusted_authorities", 1, 64)
    for node_id in told.departed_node_ids:
        _check_node_id(node_id, "card.departed_node_ids")
    broken = machine_facts.problem(told.machine)
    _check(not broken, "card.machine", broken)
    return to_card(told)


# What both ends of an exchange send has the same fields.
Exchanged = discovery_pb2.ExchangeCardRequest | discovery_pb2.ExchangeCardResponse


def checked_greeting(told: Exchanged) -> Greeting:
    """`sent_at` may be read after this. Raises InvalidRequest that names the field."""
    card = checked_card(told.card)
    is_time = SECONDS_MIN <= told.sent_at.seconds <= SECONDS_MAX and 0 <= told.sent_at.nanos <= NANOS_MAX
    _check(is_time, "sent_at", "is no time")
    _check(len(told.peers) <= LEAD_COUNT_MAX, "peers", f"has more than {LEAD_COUNT_MAX} entries")
    _check(len(told.left) <= LEAD_COUNT_MAX, "left", f"has more than {LEAD_COUNT_MAX} entries")
    for lead in told.peers:
        _check_node_id(lead.node_id, "peers.node_id")
        few = len(lead.addresses) <= ADDRESS_COUNT_MAX
        _check(few, "peers.addresses", f"has more than {ADDRESS_COUNT_MAX} entries")
        for address in lead.addresses:
            _check(is_target(address), "peers.addresses", f"holds {address[:64]!r}, which is no address with a port")
    for one in told.left:
        _check_node_id(one.node_id, "left.node_id")
        _check_text(one.start_id, "left.start_id", 1, 64)
        _check(1 <= one.incarnation <= INCARNATION_MAX, "left.incarnation", f"is not 1 to {INCARNATION_MAX}")
    leads = tuple(Lead(NodeId(lead.node_id), tuple(lead.addresses)) for lead in told.peers)
    left = tuple((NodeId(one.node_id), Life(one.incarnation, one.start_id)) for one in told.left)
    return Greeting(card, leads, left)


def fill_greeting(message: Exchanged, greeting: Greeting, now_s: float) -> None:
    """`now_s` is of the wall clock."""
    message.card.CopyFrom(whole(greeting.card))
    for lead in greeting.peers[:LEAD_COUNT_MAX]:
        message.peers.add(node_id=lead.node_id, addresses=lead.addresses[:ADDRESS_COUNT_MAX])
    for node_id, life in greeting.left[:LEAD_COUNT_MAX]:
        message.left.add(node_id=node_id, incarnation=life.incarnation, start_id=life.start_id)
    message.sent_at.FromMicroseconds(int(now_s * 1e6))


def to_roster(view: View, notes: Notes, wall_s: Callable[[float], float]) -> discovery_pb2.Roster:
    """`wall_s` turns a time of the view into one of the wall clock."""
    roster = discovery_pb2.Roster(complete=view.complete, node_id=view.node_id, version=view.version)
    for member in view.members:
        node_id = member.card.node_id
        told = roster.members.add(
            card=whole(member.card),
            state=member.state.value,
            problem=notes.problems.get(node_id, ""),
            address=notes.addresses.get(node_id, ""),
        )
        told.state_since.FromMicroseconds(int(wall_s(member.since_s) * 1e6))
        if node_id in notes.clock_ahead_s:
            told.clock_ahead_s = notes.clock_ahead_s[node_id]
    for twin in view.twins:
        roster.twins.add(node_id=twin.shown.node_id, shown=whole(twin.shown), other=whole(twin.other))
    for stranger in view.strangers:
        roster.strangers.add(
            node_id=stranger.node_id,
            cluster_name=stranger.cluster_name,
            hostname=stranger.hostname,
            addresses=stranger.addresses,
        )
    cards = {member.card.node_id: member.card for member in view.members}
    for one in differences(view.members):
        kinds = {Kind.VERSION: "DIFFERENCE_KIND_VERSION", Kind.SETTING: "DIFFERENCE_KIND_SETTING"}
        difference = roster.differences.add(
            kind=discovery_pb2.DifferenceKind.Value(kinds[one.kind]),
            name=one.name,
            sentence=sentence(one, cards),
            expected=one.expected,
        )
        for value, nodes in one.values:
            difference.values.add(value=value, node_ids=nodes)
    return roster


def whole(card: Card) -> cluster_pb2.NodeCard:
    """As it came. To be read only: everybody gets the same one."""
    return _parsed(card.whole)


# Members are told again and again, and their cards seldom change.
@lru_cache(maxsize=1024)
def _parsed(data: bytes) -> cluster_pb2.NodeCard:
    return cluster_pb2.NodeCard.FromString(data)


def is_node_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def is_target(text: str) -> bool:
    """ "ADDRESS:PORT": a name would have everybody ask the name servers for it."""
    host, _, port = text.rpartition(":")
    fits = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= PORT_MAX
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return fits and is_address(plain) and "%" not in plain and target(plain, int(port)) == text


def _check(fine: bool, param: str, problem: str) -> None:
    if not fine:
        raise InvalidRequest(f"{param} {problem}", param=param)


def _check_node_id(text: str, param: str) -> None:
    _check(is_node_id(text), param, "is no UUID")


def _check_text(text: str, param: str, least: int, most: int) -> None:
    """Printed on terminals: nothing in it may do more than be read."""
    _check(least <= len(text) <= most, param, f"is not {least} to {most} characters long")
    _check(text.isprintable(), param, "holds characters that cannot be printed")


def _check_addresses(found: Iterable[str], param: str) -> None:
    for address in found:
        fine = is_address(address) and "%" not in address
        _check(fine, param, f"holds {address[:64]!r}, which is no address")
