"""What follows from a roster for more than one program."""

from thunderline.cluster import NodeId
from thunderline.cluster.authorities import Holder
from thunderline.v1 import cluster_pb2, discovery_pb2

# As many as a joining node needs to find one that answers.
SEED_COUNT_MAX = 16


def holders(roster: discovery_pb2.Roster) -> list[Holder]:
    """What each member has that has not left; one that is off counts with its last card."""
    return [
        Holder(
            NodeId(member.card.node_id),
            frozenset(member.card.trusted_authorities),
            member.card.certificate_authority,
        )
        for member in roster.members
        if member.state != discovery_pb2.MEMBER_STATE_LEFT
    ]


def port(card: cluster_pb2.NodeCard, role: str) -> int:
    """0 where the card names none."""
    return next((one.port for one in card.endpoints if one.role == role), 0)


def addresses(card: cluster_pb2.NodeCard, role: str) -> list[str]:
    """Every "host:port" at which others may find a role of this node."""
    number = port(card, role)
    return [f"[{one}]:{number}" if ":" in one else f"{one}:{number}" for one in card.addresses] if number else []


def seeds(roster: discovery_pb2.Roster, first: NodeId) -> list[str]:
    """Discoveries to begin with: those of `first`, then of members that are ALIVE."""
    alive = [member.card for member in roster.members if member.state == discovery_pb2.MEMBER_STATE_ALIVE]
    cards = sorted(alive, key=lambda card: (card.node_id != first, card.node_id))
    return [address for card in cards for address in addresses(card, "discovery")][:SEED_COUNT_MAX]
