"""What crosses the echo port: messages of fixed sizes, in network order. Pure.

A caller asks, the echo answers; three times over one connection make a probe. One that shows a permit sends bytes
after the first answer, as many as it can, and the echo closes with a tally of what came.
"""

import hashlib
import ipaddress
import struct
import uuid
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

from thunderline.cluster import NodeId
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End

MAGIC, VERSION = b"TLEC", 1
# The last echo of the burst lets the echo measure, too: from its answer to the next ask.
BURST_COUNT = 3
NONCE_BYTES = 16
# IFNAMSIZ without its zero, on Linux and macOS alike.
NAME_BYTES_MAX = 15

_ASK = struct.Struct(f"!4sBBxx16s16s{NONCE_BYTES}s")
_ANSWER = struct.Struct(f"!4sBBxx16s16s{NONCE_BYTES}s16sB15sB15s")
_TALLY = struct.Struct("!QQ")
ASK_BYTES, ANSWER_BYTES, TALLY_BYTES = _ASK.size, _ANSWER.size, _TALLY.size
# Magic, version, kind, cluster, node; then comes the nonce. Those of a burst differ in nothing else.
_HEAD_BYTES = ASK_BYTES - NONCE_BYTES


class Kind(IntEnum):
    ECHO = 1
    # The nonce is a permit.
    SINK = 2


class BadMessage(ValueError):
    """The bytes are none of ours."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who speaks: `cluster` is the digest of its cluster's name."""

    node: NodeId
    cluster: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    kind: Kind
    speaker: Speaker
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """`address`: the one that was dialled, as the echo sees it; `arrives` and `returns`: its interfaces."""

    kind: Kind
    speaker: Speaker
    nonce: bytes
    address: str
    arrives: End | None
    returns: End | None


@dataclass(frozen=True, slots=True)
class Tally:
    """What a sink took, from its first byte to its last."""

    taken_bytes: int
    elapsed_us: int


def speaker(node: NodeId, cluster_name: str) -> Speaker:
    """Raises ValueError for a node_id that is no UUID."""
    return Speaker(NodeId(str(uuid.UUID(node))), hashlib.sha256(cluster_name.encode()).digest()[:16])


def pack_ask(ask: Ask) -> bytes:
    node = _node_bytes(ask.speaker.node)
    return _ASK.pack(MAGIC, VERSION, ask.kind, ask.speaker.cluster, node, ask.nonce)


def unpack_ask(data: bytes) -> Ask:
    """Raises BadMessage."""
    magic, version, kind, cluster, node, nonce = _unpacked(_ASK, data)
    return Ask(_kind(magic, version, kind), Speaker(_node(node), cluster), nonce)


def pack_answer(answer: Answer) -> bytes:
    """The address is one of an IP socket."""
    node, address = _node_bytes(answer.speaker.node), _address_bytes(answer.address)
    head = (MAGIC, VERSION, answer.kind, answer.speaker.cluster, node, answer.nonce, address)
    return _ANSWER.pack(*head, *_end_fields(answer.arrives), *_end_fields(answer.returns))


def unpack_answer(data: bytes) -> Answer:
    """Raises BadMessage."""
    magic, version, kind, cluster, node, nonce, packed, *ends = _unpacked(_ANSWER, data)
    who = Speaker(_node(node), cluster)
    return Answer(_kind(magic, version, kind), who, nonce, _address(packed), _end(*ends[:2]), _end(*ends[2:]))


def with_nonce(message: bytes, nonce: bytes) -> bytes:
    """The next ask or answer of a burst."""
    return message[:_HEAD_BYTES] + nonce + message[ASK_BYTES:]


def nonce_of(message: bytes) -> bytes:
    return message[_HEAD_BYTES:ASK_BYTES]


def pack_tally(tally: Tally) -> bytes:
    return _TALLY.pack(tally.taken_bytes, tally.elapsed_us)


def unpack_tally(data: bytes) -> Tally:
    """Raises BadMessage."""
    return Tally(*_unpacked(_TALLY, data))


@lru_cache(maxsize=1024)
def _node_bytes(node: NodeId) -> bytes:
    return uuid.UUID(node).bytes


@lru_cache(maxsize=1024)
def _node(data: bytes) -> NodeId:
    return NodeId(str(uuid.UUID(bytes=data)))


@lru_cache(maxsize=1024)
def _address_bytes(address: str) -> bytes:
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else b"\0" * 10 + b"\xff\xff" + parsed.packed


@lru_cache(maxsize=1024)
def _address(data: bytes) -> str:
    found = ipaddress.IPv6Address(data)
    return str(found.ipv4_mapped or found)


def _unpacked(form: struct.Struct, data: bytes) -> tuple[Any, ...]:
    if len(data) != form.size:
        raise BadMessage(f"{len(data)} bytes instead of {form.size}")
    return form.unpack(data)


def _kind(magic: bytes, version: int, kind: int) -> Kind:
    if magic != MAGIC or version != VERSION:
        raise BadMessage("not an echo of this version")
    try:
        return Kind(kind)
    except ValueError:
        raise BadMessage(f"unknown kind {kind}") from None


def _end_fields(end: End | None) -> tuple[int, bytes]:
    """0 where nobody can tell."""
    return (end.medium.value, end.interface.encode()[:NAME_BYTES_MAX]) if end else (0, b"")


def _end(medium: int, name: bytes) -> End | None:
    if medium == 0:
        return None
    try:
        end = End(name.rstrip(b"\0").decode(), Medium(medium))
    except ValueError:
        raise BadMessage("not an interface") from None
    if not end.interface.isprintable():
        raise BadMessage("not the name of an interface")
    return end
