"""What discovery tells and is told: cards, members, and who is not one. Pure."""

from dataclasses import dataclass

from thunderline.cluster import NodeId
from thunderline.cluster.members import MemberState


@dataclass(frozen=True, slots=True, order=True)
class Life:
    """One start of a node's discovery. The greater is the newer.

    `start_id` is drawn at each start. Only with a copied disk can two have one incarnation: then it decides, on every
    node alike.
    """

    incarnation: int
    start_id: str


@dataclass(frozen=True, slots=True)
class Card:
    """What the roster reads of a node's card; `whole` is the card as it came."""

    node_id: NodeId
    life: Life
    cluster_name: str
    # Counts the card's changes in this life.
    revision: int = 0
    hostname: str = ""
    # Where its discovery may be dialled: "host:port".
    addresses: tuple[str, ...] = ()
    # (name, value), sorted by name.
    versions: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    # Of the scheduler node: who was taken out of the cluster, in whatever life.
    departed: frozenset[NodeId] = frozenset()
    whole: bytes = b""


@dataclass(frozen=True, slots=True)
class Member:
    card: Card
    state: MemberState
    since_s: float
    # LEFT by the word of those who may not decide it: its next card says otherwise.
    is_hearsay: bool = False


@dataclass(frozen=True, slots=True)
class Rival:
    """Another life of a member, that was heard beside the one that is shown. Awake seconds."""

    card: Card
    since_s: float
    heard_s: float


@dataclass(frozen=True, slots=True)
class Twin:
    """Two nodes that live with one id, from a copied disk. `shown` is the one in the roster."""

    shown: Card
    other: Card


@dataclass(frozen=True, slots=True)
class Stranger:
    """A node that was heard under another cluster's name. Never a member."""

    node_id: NodeId
    cluster_name: str
    hostname: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What is told of a roster; members by id."""

    node_id: NodeId
    version: int
    complete: bool
    members: tuple[Member, ...]
    twins: tuple[Twin, ...] = ()
    strangers: tuple[Stranger, ...] = ()
