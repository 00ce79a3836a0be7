"""A machine of the simulated network, with its disk, its clock and its discovery, and what it has really heard."""

from dataclasses import dataclass, field

from thunderline.cluster import NodeId
from thunderline.discovery.member_life import Waits
from thunderline.discovery.peers import Peers
from thunderline.discovery.roster import Roster
from thunderline.discovery.values import Card, Life, View

WAITS = Waits()
NEVER_S = -1e9


class Broken(AssertionError):
    """A law of discovery does not hold."""


@dataclass
class Facts:
    """What is true of the whole network."""

    # Of every id that ever was.
    clusters: dict[NodeId, str]
    left: set[tuple[NodeId, Life]] = field(default_factory=set)
    # Two machines have it; its count of starts was lost.
    copied: set[NodeId] = field(default_factory=set)
    lost_count: set[NodeId] = field(default_factory=set)

    def is_plain(self, node_id: NodeId) -> bool:
        """Its lives follow each other by their number."""
        return node_id not in self.copied and node_id not in self.lost_count


@dataclass
class Truth:
    """What one life of a host has heard, on a count of its awake time that is kept apart from the roster's."""

    read_s: float
    awake_s: float = 0.0
    # When it last came late; and when it last knew nothing: at its start, or after a sleep.
    late_s: float = NEVER_S
    since_s: float = 0.0
    heard_s: dict[tuple[NodeId, Life], float] = field(default_factory=dict)
    revisions: dict[tuple[NodeId, Life], int] = field(default_factory=dict)
    lives: dict[NodeId, Life] = field(default_factory=dict)
    # Known from its disk alone.
    unheard: set[tuple[NodeId, Life]] = field(default_factory=set)

    def count(self, clock_s: float) -> None:
        """Of a gap no more than a heartbeat and a tick."""
        gap_s, self.read_s = clock_s - self.read_s, clock_s
        if 0 <= gap_s <= 1.25:
            self.awake_s += gap_s
            return
        self.awake_s += min(max(gap_s, 0.0), 1.25)
        self.late_s = self.awake_s
        if gap_s >= WAITS.dead_s:
            self.since_s = self.awake_s

    def hears(self, card: Card) -> None:
        key = (card.node_id, card.life)
        self.heard_s[key] = self.awake_s
        self.unheard.discard(key)
        self.revisions[key] = max(card.revision, self.revisions.get(key, 0))
        self.lives[card.node_id] = max(card.life, self.lives.get(card.node_id, card.life))

    def remembers(self, card: Card) -> None:
        self.hears(card)
        self.unheard.add((card.node_id, card.life))

    def silent_s(self, card: Card) -> float:
        return self.awake_s - max(self.heard_s[card.node_id, card.life], self.since_s)

    @property
    def judges(self) -> bool:
        return self.awake_s >= self.late_s + WAITS.heartbeat_s


@dataclass
class Host:
    """`clock_s` of the world's time is what its clock shows more."""

    index: int
    node_id: NodeId
    cluster_name: str
    mlx: str
    seeds: tuple[str, ...] = ()
    # On its disk.
    incarnation: int = 0
    remembered: tuple[Card, ...] = ()
    # Its machine.
    clock_s: float = 0.0
    frozen_until_s: float = NEVER_S
    # Its discovery: `run` counts its starts, for what is on its way.
    up: bool = False
    run: int = 0
    has_left: bool = False
    roster: Roster = field(init=False)
    peers: Peers = field(init=False)
    truth: Truth = field(init=False)
    # Of the last look; what one who watches has seen.
    before: Roster | None = None
    version: int = 0
    seen: View | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The second is one that nobody can reach."""
        return f"10.0.0.{self.index}:7401", f"192.168.9.{self.index}:7401"

    @property
    def card(self) -> Card:
        return self.roster.own

    def is_awake(self, now_s: float) -> bool:
        return self.up and now_s >= self.frozen_until_s

    def first_card(self, start_id: str) -> Card:
        """Of a start, that is counted."""
        self.incarnation += 1
        return Card(
            self.node_id,
            Life(self.incarnation, start_id),
            self.cluster_name,
            hostname=f"host{self.index}",
            addresses=self.addresses,
            versions=(("mlx", self.mlx), ("thunderline", "0.2.0")),
            settings=(("cluster.name", self.cluster_name), ("node.bind", self.addresses[0])),
        )
