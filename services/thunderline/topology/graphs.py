"""The one graph that follows from all nodes' reports. Pure.

Who has heard the same has the same graph.
"""

import operator
from collections.abc import Collection, Mapping, Sequence, Set

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_address
from thunderline.cluster.graph import Graph, Outcome, Tried
from thunderline.cluster.links import RTT_LIMITS_US, Link, LinkId, LinkState, Mark
from thunderline.cluster.paths import Path, link_medium
from thunderline.cluster.rails import rails_over
from thunderline.topology.cables import as_now, distinct, lost
from thunderline.topology.ports import ports_of
from thunderline.topology.reports import Heard, Reports, tried_key

# By link: what two nodes say of it, whether the one that is dialled has told all, and what follows.
Made = dict[LinkId, tuple[Tried | None, tuple[Heard, ...], bool, Link | None]]


def graph(
    reports: Reports,
    present: Collection[NodeId],
    alive: Collection[NodeId],
    twins: Collection[NodeId] = (),
    made: Made | None = None,
) -> Graph:
    """`present`: ALIVE and SUSPECT members; what others have said, or is said of others, is over.

    `twins`: those of which there are two. Nobody acts on what is missing there, nor knows whose ports are told.

    A node's own word on its probes counts before what its peers hear of them: if its topology is away its peers hear
    nothing, though the network is as it was.

    `made`: what was made the last time, renewed here. Of the very same words nothing is made again: one report is
    another one, and those of all others are what they were.
    """
    there = frozenset(present)
    known = {node: reports[node] for node in sorted(reports) if node in there}
    incomplete = sorted(node for node in there if node not in known or node in twins or not known[node].is_complete)
    tried = {
        one.id: one
        for report in known.values()
        for one in report.tried
        if one.from_node == report.node and _counts(one, there)
    }
    heard: dict[LinkId, list[Heard]] = {}
    for report in known.values():
        for word in report.heard:
            if word.to_node == report.node and _counts(word, there):
                heard.setdefault(LinkId(word.from_node, word.to_node, word.address), []).append(word)
    speaking = {node for node, report in known.items() if report.is_complete}
    links = _links(tried, heard, speaking, {} if made is None else made)
    told_ports = tuple((node, report.ports) for node, report in known.items() if report.ports and node not in twins)
    ports = ports_of(told_ports)
    cables = distinct(
        as_now(cable, ports)
        for report in known.values()
        for cable in report.cables
        if report.node in cable.nodes and set(cable.nodes) <= there
    )
    return Graph(
        links,
        tuple(sorted(tried.values(), key=tried_key)),
        cables,
        lost(cables, links, set(alive) - set(incomplete), ports),
        tuple(incomplete),
        tuple((node, report.version) for node, report in known.items()),
        told_ports,
        rails_over(ports.plugged),
    )


def _counts(one: Tried | Heard, present: Set[NodeId]) -> bool:
    """Whether it is of two members that are there. A report comes from another node: it may say anything."""
    return one.from_node != one.to_node and {one.from_node, one.to_node} <= present and is_address(one.address)


def _links(
    tried: Mapping[LinkId, Tried], heard: Mapping[LinkId, Sequence[Heard]], speaking: Set[NodeId], made: Made
) -> tuple[Link, ...]:
    before = dict(made)
    made.clear()
    for each in sorted(tried.keys() | heard.keys()):
        word, others, speaks = tried.get(each), tuple(heard.get(each, ())), each.to_node in speaking
        known = before.get(each)
        if known is not None and known[0] is word and known[2] is speaks and _are_same(known[1], others):
            made[each] = known
        else:
            made[each] = word, others, speaks, _link(each, word, others, speaks)
    return tuple(link for *_, link in made.values() if link is not None)


def _are_same(some: Sequence[Heard], others: Sequence[Heard]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _link(link_id: LinkId, tried: Tried | None, heard: Sequence[Heard], peer_speaks: bool) -> Link | None:
    """One direction by what its two nodes say: the one that dials, and the one that is dialled.

    `peer_speaks`: the latter has told all. It tells of no probe that it cannot prove.
    """
    if tried is None or tried.outcome is Outcome.UNTRIED:
        proven = [one for one in heard if one.is_proven and one.state is not LinkState.DOWN]
        return _heard_link(link_id, min(proven, key=_heard_key)) if proven else None
    if tried.state is None:
        return None
    medium = link_medium(tried.path, (tried.address, tried.local_address))
    # The prober holds RTTs against the medium without the way that the peer's own probes come by.
    is_in_time = tried.state is LinkState.DEGRADED and medium not in RTT_LIMITS_US
    return Link(
        *link_id,
        medium=medium,
        state=LinkState.UP if is_in_time else tried.state,
        rtt_us=tried.rtt_us,
        path=tried.path,
        local_address=tried.local_address,
        marks=_marks(
            tried.path,
            one_sided=not (heard or peer_speaks or tried.state is LinkState.DOWN),
            unadvertised=not tried.is_advertised,
        ),
    )


def _heard_link(link_id: LinkId, heard: Heard) -> Link:
    path = Path(arrives=heard.arrives, returns=heard.returns)
    return Link(
        *link_id,
        medium=link_medium(path, (heard.address, heard.from_address)),
        state=heard.state,
        rtt_us=heard.rtt_us,
        path=path,
        local_address=heard.from_address,
        marks=_marks(path, one_sided=True),
    )


def _heard_key(heard: Heard) -> tuple[int, int, str]:
    return heard.state.value, heard.rtt_us, heard.from_address


def _marks(path: Path, one_sided: bool, unadvertised: bool = False) -> frozenset[Mark]:
    found = {
        Mark.ASYMMETRIC_ROUTE: path.is_asymmetric,
        Mark.ONE_SIDED: one_sided,
        Mark.UNADVERTISED: unadvertised,
    }
    return frozenset(mark for mark, holds in found.items() if holds)
