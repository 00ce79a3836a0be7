"""For which pairs a placement waits before it is planned. Pure.

A link that has not formed yet is neither a reason to give up nor to take a slower one; but nobody waits for ever.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Graph, Tried, unsettled
from thunderline.cluster.links import Link
from thunderline.cluster.media import Medium
from thunderline.scheduler.placing.values import Node, Situation, Wait, WaitFor

# From the later of the two ALIVE: a probe takes 1 s at most, a new address is probed at once, and again after 2 s.
SETTLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Unsettled:
    """`rails_do`: a probe has crossed a cable between the two the other way. Rails have both directions of it."""

    wait: Wait
    rails_do: bool


def unsettled_pairs(situation: Situation, nodes: Collection[Node]) -> list[Unsettled]:
    """The directed pairs of these nodes that may still get a link, or a better one."""
    young = {one.id for one in nodes if one.alive_for_s < SETTLE_S}
    if not young:
        return []
    words = {one.id: one.word for one in nodes}
    pairs = [pair for pair in combinations(sorted(words), 2) if young & set(pair)]
    parts = _by_pair(situation.graph, words.keys())
    silent = young & set(situation.graph.incomplete)
    found = []
    for both in pairs:
        part = parts.get(both, Graph())
        # Whose topology has just been started knows some of its links, maybe the worst of them.
        waits = [both, both[::-1]] if silent & set(both) else unsettled(part, both)
        found += [(pair, part) for pair in waits]
    return [
        Unsettled(Wait(WaitFor.LINKS, pair, _why(part, pair, words)), _is_crossed(part) and not _open(part, pair))
        for pair, part in found
    ]


def _is_crossed(part: Graph) -> bool:
    return any(one.medium is Medium.THUNDERBOLT and one.is_usable for one in part.links)


def _open(part: Graph, pair: tuple[NodeId, NodeId]) -> list[str]:
    """Addresses that may still answer; "" where none is known yet."""
    tries = [one for one in part.tried if (one.from_node, one.to_node) == pair]
    return [one.address for one in tries if not one.is_settled] if tries else [""]


def _why(part: Graph, pair: tuple[NodeId, NodeId], words: dict[NodeId, str]) -> str:
    who = f"{words[pair[0]]} → {words[pair[1]]}"
    left = _open(part, pair)
    if left == [""]:
        return f"{who}: no address was tried yet"
    if left:
        return f"{who}: {', '.join(left)} has neither answered nor failed twice"
    if pair in unsettled(part, pair):
        return f"{who}: there is a cable, and no probe has crossed it yet"
    return f"{who}: not all links have been told yet"


def _sorted(one: NodeId, other: NodeId) -> tuple[NodeId, NodeId]:
    return (one, other) if one < other else (other, one)


def _by_pair(graph: Graph, nodes: Collection[NodeId]) -> dict[tuple[NodeId, NodeId], Graph]:
    """The graph of each pair: asked pair by pair, so that many nodes cost no more than their rows."""
    links: dict[tuple[NodeId, NodeId], list[Link]] = {}
    tried: dict[tuple[NodeId, NodeId], list[Tried]] = {}
    for link in graph.links:
        links.setdefault(_sorted(link.from_node, link.to_node), []).append(link)
    for row in graph.tried:
        tried.setdefault(_sorted(row.from_node, row.to_node), []).append(row)
    cables = {_sorted(*one.nodes): one for one in graph.cables}
    rails = {_sorted(*one.nodes): one for one in graph.rails}
    every = links.keys() | tried.keys() | cables.keys() | rails.keys()
    return {
        pair: Graph(
            links=tuple(links.get(pair, ())),
            tried=tuple(tried.get(pair, ())),
            # One is as good as all: it says that there is a cable.
            cables=(cables[pair],) if pair in cables else (),
            rails=(rails[pair],) if pair in rails else (),
        )
        for pair in every
        if set(pair) <= set(nodes)
    }
