"""In which versions and settings the members differ, by name and node. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from thunderline.cluster import NodeId
from thunderline.cluster.members import MemberState
from thunderline.discovery.values import Card, Member

# Each node has its own of these: shown, and nothing to be done about.
EXPECTED = {"node.bind", "node.metrics_bind", "gateway.bind", "roles", "discovery.seeds"}
# A card that does not name it: of an older thunderline, or of a node without it.
UNSAID = ""


class Kind(Enum):
    VERSION = "version"
    SETTING = "setting"


@dataclass(frozen=True, slots=True)
class Difference:
    """Each value with the nodes that have it, by id; the value of most nodes first."""

    kind: Kind
    name: str
    values: tuple[tuple[str, tuple[NodeId, ...]], ...]

    @property
    def expected(self) -> bool:
        return self.kind is Kind.SETTING and self.name in EXPECTED


def digest(settings: Iterable[tuple[str, str]]) -> str:
    """SHA-256 in hex: equal for equal settings, in whatever order."""
    return hashlib.sha256(json.dumps(sorted(settings)).encode()).hexdigest()


def differences(members: Iterable[Member]) -> tuple[Difference, ...]:
    """Of those that are there: what a dead node had may have been changed since."""
    here = {MemberState.ALIVE, MemberState.SUSPECT}
    cards = sorted((member.card for member in members if member.state in here), key=lambda card: card.node_id)
    versions = _differing(Kind.VERSION, {card.node_id: dict(card.versions) for card in cards})
    return versions + _differing(Kind.SETTING, {card.node_id: dict(card.settings) for card in cards})


def sentence(one: Difference, cards: Mapping[NodeId, Card]) -> str:
    """For the operator, by host name: "mlx is 0.32.4 on ada and bob, 0.32.2 on cleo"."""
    parts = [f"{value or 'not said'} on {_joined(cards, nodes)}" for value, nodes in one.values]
    return f"{one.name} is {', '.join(parts)}"


def _differing(kind: Kind, said: Mapping[NodeId, Mapping[str, str]]) -> tuple[Difference, ...]:
    found = []
    for name in sorted({name for values in said.values() for name in values}):
        nodes: dict[str, list[NodeId]] = {}
        for node_id, values in said.items():
            nodes.setdefault(values.get(name, UNSAID), []).append(node_id)
        if len(nodes) > 1:
            ordered = sorted(nodes.items(), key=lambda item: (-len(item[1]), item[0]))
            found.append(Difference(kind, name, tuple((value, tuple(who)) for value, who in ordered)))
    return tuple(found)


def _joined(cards: Mapping[NodeId, Card], nodes: Iterable[NodeId]) -> str:
    names = [cards[node].hostname or node if node in cards else node for node in nodes]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
