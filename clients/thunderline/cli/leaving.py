"""`cluster leave`: a member leaves, by its own word or by the scheduler node's."""

import asyncio

from thunderline.client import DiscoveryClient
from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest, Unauthenticated
from thunderline.process import authority
from thunderline.process.departed import depart
from thunderline.process.settings import JOINED, Settings
from thunderline.process.trust import FOLDER, NODE, Wallet
from thunderline.v1 import discovery_pb2

# This node tells the others with its next heartbeats: this many.
TELL_HEARTBEATS = 3


def named(roster: discovery_pb2.Roster, word: str) -> NodeId:
    """By its id, its host name, or the beginning of its id. Raises InvalidRequest when it is none's, or several's."""
    cards = [member.card for member in roster.members if member.state != discovery_pb2.MEMBER_STATE_LEFT]
    for found in (
        [card.node_id for card in cards if card.node_id == word],
        [card.node_id for card in cards if card.hostname == word],
        [card.node_id for card in cards if word and card.node_id.startswith(word)],
    ):
        if len(found) == 1:
            return NodeId(found[0])
        if found:
            raise InvalidRequest(f"{word!r} is several nodes: {', '.join(sorted(found))}", param="node")
    raise InvalidRequest(f"no member is named {word!r}: `thunderline nodes` shows them", param="node")


def check(settings: Settings, own: NodeId, node: NodeId) -> None:
    """Raises InvalidRequest for what would leave the cluster without its scheduler node, or nothing to leave."""
    if node == own and not settings.cluster.scheduler:
        raise InvalidRequest("this node is on its own: there is no cluster to leave", param="node")
    if node == (settings.cluster.scheduler or own):
        raise InvalidRequest("the scheduler node cannot leave: the others would have nobody to obey", param="node")


async def leave(target: str, wallet: Wallet, node: NodeId, is_own: bool, heartbeat_s: float) -> None:
    """All members are told. Raises ClusterError."""
    async with DiscoveryClient(target, wallet) as discovery:
        await discovery.leave(node)
    if is_own:
        await asyncio.sleep(TELL_HEARTBEATS * heartbeat_s)


def take_out(settings: Settings, node: NodeId) -> None:
    """Before the others are told: its certificate is renewed no more, and its cards are refused.

    Raises OSError, CannotStart.
    """
    if authority.kept(settings.home) is not None:
        with authority.changing(settings.home):
            depart(settings.home, node)


def untold(wallet: Wallet) -> str:
    """Why this node can tell nobody that it leaves: its certificate, say, has expired. "" when it can."""
    try:
        wallet.checked()
    except Unauthenticated as error:
        return error.message
    return ""


def forget(settings: Settings) -> None:
    """This node is one of its own again. Raises OSError."""
    with authority.changing(settings.home):
        (settings.home / FOLDER / NODE).unlink(missing_ok=True)
        (settings.home / JOINED).unlink(missing_ok=True)
