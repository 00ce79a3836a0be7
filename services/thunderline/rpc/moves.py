"""Where the connection to a peer goes: which of its addresses is used, and which are tried beside it. Pure.

Before a link to a peer is verified the addresses of its card are tried one after the other, until one answers. Then
topology says which is the best; the connection goes there once that one answers, and never before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import target
from thunderline.v1 import cluster_pb2, topology_pb2

# Addresses that are tried at the same time. A node that is gone, with 32 of them, is dialled no more often than that.
DIAL_COUNT_MAX = 3


@dataclass(frozen=True, slots=True)
class Held:
    """What there is of a connection. Targets are "host:port"."""

    # Where calls go; "" when nothing was dialled yet.
    current: str = ""
    # Whether it answers.
    works: bool = False
    # What is tried beside it, the oldest first.
    dialled: tuple[str, ...] = ()


def wanted(held: Held, targets: Sequence[str], best: str = "", patience_is_over: bool = False) -> tuple[str, ...]:
    """What should be tried beside the current one, the oldest first; the first that answers takes its place.

    `best` is "" where no link to the peer is known. `patience_is_over`: nothing new was tried for a while, nor has
    the current one broken. A role that restarts is back before that.
    """
    order = in_order(targets, best)
    if held.works and best:
        return () if held.current == best else (best,)
    if held.works and (held.current in order or not order):
        return ()
    others = tuple(one for one in order if one != held.current)
    kept = tuple(one for one in held.dialled if one in others)
    # Nothing can be hoped of one that the peer has given up, nor of none.
    begins = patience_is_over or (held.current not in order and not kept)
    fresh = _following(others, kept) if begins else None
    return kept if fresh is None else (*kept, fresh)[-DIAL_COUNT_MAX:]


def in_order(targets: Sequence[str], best: str = "") -> tuple[str, ...]:
    """The best first, then as they are given; each once."""
    return tuple(dict.fromkeys([best, *targets] if best else targets))


def _following(order: tuple[str, ...], kept: tuple[str, ...]) -> str | None:
    """The next in turn that is not tried now, after the newest of those that are."""
    begin = order.index(kept[-1]) + 1 if kept else 0
    return next((one for one in (*order[begin:], *order[:begin]) if one not in kept), None)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where one role of a node may be dialled."""

    addresses: tuple[str, ...] = ()
    port: int = 0

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(target(one, self.port) for one in self.addresses)


def reach(card: cluster_pb2.NodeCard, role: str, own: bool = False) -> Reach | None:
    """None when the role does not run there. `own`: of the node that asks; its own host is for its own processes."""
    endpoint = next((one for one in card.endpoints if one.role == role), None)
    if endpoint is None:
        return None
    if own or not card.addresses:
        return Reach((endpoint.host,), endpoint.port)
    return Reach(tuple(card.addresses), endpoint.port)


def best(before: Mapping[NodeId, str], told: topology_pb2.Topology) -> dict[NodeId, str]:
    """By peer, the address of the link that its own topology has chosen from the node that tells.

    A topology that has just started has not probed everything: what it does not say yet stays as it was.
    """
    found = {
        NodeId(link.to_node_id): link.peer_address
        for link in told.links
        if link.chosen and link.from_node_id == told.node_id
    }
    is_whole = told.complete or told.node_id not in told.incomplete_node_ids
    return found if is_whole else {**before, **found}
