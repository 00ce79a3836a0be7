"""What follows from a roster for more than one program."""

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address, parse
from thunderline.cluster.authorities import Holder
from thunderline.rpc.moves import reach
from thunderline.v1 import discovery_pb2

# As many as a joining node needs to find one that answers.
SEED_COUNT_MAX = 16


def holders(roster: discovery_pb2.Roster) -> list[Holder]:
    """What each member has that has not left; one that is off counts with its last card.

    `roster` is the scheduler node's: who was taken out by its card renews nothing any more.
    """
    own = [member.card for member in roster.members if member.card.node_id == roster.node_id]
    departed = {node for card in own for node in card.departed_node_ids}
    return [
        Holder(
            NodeId(member.card.node_id),
            frozenset(member.card.trusted_authorities),
            member.card.certificate_authority,
        )
        for member in roster.members
        if member.state != discovery_pb2.MEMBER_STATE_LEFT and member.card.node_id not in departed
    ]


def has_left(roster: discovery_pb2.Roster, node: NodeId) -> bool:
    return any(one.card.node_id == node and one.state == discovery_pb2.MEMBER_STATE_LEFT for one in roster.members)


def copied(roster: discovery_pb2.Roster, node: NodeId, address: str) -> str:
    """Why who calls from `address` cannot be this node: it lives elsewhere. "" when it can, or is of this machine."""
    cards = [one.card for one in roster.members if one.state == discovery_pb2.MEMBER_STATE_ALIVE]
    card = next((one for one in cards if one.node_id == node), None)
    if card is None or not is_address(address) or parse(address).is_loopback:
        return ""
    if parse(address) in {parse(one) for one in card.addresses if is_address(one)}:
        return ""
    return (
        f"node {node} ({card.hostname}) is alive: a copied disk? Then remove node.json to be another node; if it is "
        "this machine at another address, stop `thunderline up` here, and join again in some seconds"
    )


def seeds(roster: discovery_pb2.Roster, first: NodeId) -> list[str]:
    """Discoveries to begin with: those of `first`, then of members that are ALIVE."""
    alive = [member.card for member in roster.members if member.state == discovery_pb2.MEMBER_STATE_ALIVE]
    cards = sorted(alive, key=lambda card: (card.node_id != first, card.node_id))
    found = [reach(card, "discovery") for card in cards]
    return [target for one in found if one is not None for target in one.targets][:SEED_COUNT_MAX]
