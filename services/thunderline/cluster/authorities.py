"""How a cluster changes its authority without a moment at which two of its nodes refuse each other. Pure.

`cluster rotate` makes a second authority. Everybody learns to trust it beside the first; when all do, it signs; when
all hold a certificate of it, the first is dropped. A node learns of each turn by renewing its certificate.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Ring:
    """Fingerprints of the authorities that are trusted, oldest first: one, or two while they change."""

    trusted: tuple[str, ...]
    signing: str


@dataclass(frozen=True, slots=True)
class Holder:
    """What one node has, the scheduler node among them: whom it trusts, and who signed its certificate."""

    node: NodeId
    trusts: frozenset[str]
    signed_by: str


class Turn(Enum):
    REST = auto()  # One authority, which signed everybody's certificate.
    WAIT = auto()  # For nodes, by name.
    SIGN = auto()  # Everybody trusts the new one: it signs from now on.
    DROP = auto()  # Everybody has a certificate of the new one: the old one is not trusted any more.


def begun(ring: Ring, new: str) -> Ring:
    """`cluster rotate`. Raises InvalidRequest while a rotation is under way."""
    if len(ring.trusted) > 1:
        raise InvalidRequest("a rotation is under way: `thunderline cluster rotate` shows for whom it waits")
    return Ring((*ring.trusted, new), ring.signing)


def turned(ring: Ring, holders: Collection[Holder]) -> tuple[Turn, Ring, tuple[NodeId, ...]]:
    """The next turn, the ring after it, and for whom it waits.

    `holders` are all members that have not LEFT: a node that is off holds it up, until it is back, or `rotate --now`.
    """
    newest = ring.trusted[-1]
    if ring.signing != newest:
        late = tuple(sorted(one.node for one in holders if newest not in one.trusts))
        return (Turn.WAIT, ring, late) if late else (Turn.SIGN, Ring(ring.trusted, newest), ())
    late = tuple(sorted(one.node for one in holders if one.signed_by != newest))
    if late:
        return Turn.WAIT, ring, late
    return (Turn.DROP, Ring((newest,), newest), ()) if len(ring.trusted) > 1 else (Turn.REST, ring, ())


def hastened(ring: Ring, new: str) -> Ring:
    """`cluster rotate --now`, for a lost key: only a new one counts, and nodes without its certificate join again.

    One that was about to follow does not: its key lay in the same file. Raises InvalidRequest for one that is trusted.
    """
    if new in ring.trusted:
        raise InvalidRequest("the key of an authority that is trusted already may be lost too")
    return Ring((new,), new)
