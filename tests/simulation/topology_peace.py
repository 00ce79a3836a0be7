"""What must hold of all nodes once there is peace: every graph is as the media are."""

from collections import Counter
from collections.abc import Mapping
from itertools import permutations
from typing import TYPE_CHECKING

from simulation.topology_host import PERIOD_S, TIMEOUT_S, Host
from simulation.topology_networks import Way
from simulation.topology_ports import ends_of
from thunderline.cluster import NodeId
from thunderline.cluster.addresses import is_vpn
from thunderline.cluster.graph import Graph, Outcome
from thunderline.cluster.graph import unsettled as waits_for
from thunderline.cluster.links import RTT_LIMITS_US, Link, LinkId, LinkState, Mark
from thunderline.cluster.media import Medium
from thunderline.topology.probes import Row

if TYPE_CHECKING:
    from simulation.topology_world import World

S, M = LinkState, Medium


def unsettled(world: "World") -> str:
    """What is not yet as it has to be in peace; "" when all is."""
    hosts, reaches = world.hosts, world.reaches
    for host in hosts:
        if not host.members.is_complete:
            return f"the roster of {host.node} is not complete"
        there = [
            other
            for other in hosts
            if other is not host and (reaches(host.index, other.index) or reaches(other.index, host.index))
        ]
        wanted = {other.node for other in there}
        if host.members.present != wanted or host.members.alive != wanted:
            return f"{host.node} takes {sorted(host.members.present)} to be there, and {sorted(wanted)} are"
        if any(_lags(world, host, other) for other in there):
            return f"{host.node} has not heard the newest reports"
        since_s = host.clock_s(world.now_s) - PERIOD_S - world.tick_s - TIMEOUT_S
        if any(one.last.at_s < since_s for one in host.arrivals.values()):
            return f"{host.node} hears who has fallen silent"
        if any(row.outcome is not Outcome.ANSWERED and _answers(row) for row in host.rows.values()):
            return f"{host.node} has not given up who does not answer"
        healths = [row.health for row in host.rows.values() if row.health is not None]
        healths += [one.health for one in host.arrivals.values()]
        if any(max(one.rtts_us) > 1.6 * min(one.rtts_us) for one in healths if one.state is not S.DOWN):
            return f"{host.node} remembers RTTs of before"
    known = _known_addresses(world)
    for host in world.lookers:
        if world.is_large:
            world.see(host)
        if found := _wrong_graph(world, host, known) or _wrong_choice(world, host):
            return f"at {host.node}: {found}"
    if any(host.is_dirty for host in world.lookers):
        return "cables are seen for the first time"
    is_near = any(net.near_limit for net in world.networks.nets)
    slow = [host.node for host in hosts if not is_near and host.has_news]
    return f"{slow} have news, if only of RTTs" if slow else ""


def _answers(row: Row) -> bool:
    return row.health is not None and row.health.state is not S.DOWN


def _lags(world: "World", host: Host, other: Host) -> bool:
    """Around a limit each RTT may be news, and the newest report is on its way."""
    newest, known = other.known.report, host.known.reports.get(other.node)
    if known is None or not any(net.near_limit for net in world.networks.nets):
        return known is not newest
    return newest.version.number - known.version.number > 1


def _known_addresses(world: "World") -> dict[tuple[int, int], set[str]]:
    """By who probes and who is probed: what cards tell, and where the peer is heard from."""
    pairs = list(permutations(range(len(world.hosts)), 2))
    known = {(one, other): set(world.told_addresses(other)) for one, other in pairs}
    for _ in range(0 if world.is_large else 3):
        for one, other in pairs:
            ways = [world.networks.way(other, address) for address in known[other, one]]
            known[one, other] |= {way.local_address for way in ways if isinstance(way, Way) and way.to == one}
    return known


def _wrong_graph(world: "World", host: Host, known: Mapping[tuple[int, int], set[str]]) -> str:
    graph = host.known.graph
    if graph.incomplete:
        return f"{graph.incomplete} have not told all"
    if world.is_large and host is not world.lookers[0]:
        # It is the graph that was looked at already.
        return "" if graph == world.lookers[0].known.graph else "it is another graph"
    present = host.members.present | {host.node}
    there = [one for one in world.hosts if one.node in present]
    wanted: dict[LinkId, Way] = {}
    for one, other in permutations(there, 2):
        for address in known[one.index, other.index]:
            way = world.networks.way(one.index, address)
            if isinstance(way, Way) and way.to == other.index:
                wanted[LinkId(one.node, other.node, address)] = way
    found = {link.id: link for link in graph.links if link.state is not S.DOWN}
    if found.keys() != wanted.keys():
        return f"{found.keys() - wanted.keys()} do not work, {wanted.keys() - found.keys()} do"
    for link_id, way in wanted.items():
        is_told = link_id.address in world.told_addresses(way.to)
        if wrong := _wrong_link(found[link_id], way, is_told):
            return wrong
    return _wrong_cables(world, graph, present)


def _wrong_choice(world: "World", host: Host) -> str:
    """Of a node whose graph is not looked at nobody knows what it would choose."""
    own = {pair: link for one in world.lookers for pair, link in one.known.chosen.items() if pair[0] == one.node}
    wrong = [pair for pair, link in host.known.chosen.items() if pair in own and link != own[pair]]
    return f"{host.known.chosen[wrong[0]]} is shown, {own[wrong[0]]} is chosen" if wrong else ""


def _wrong_link(link: Link, way: Way, is_told: bool) -> str:
    """`is_told`: the peer's card tells its address."""
    medium = M.VPN if is_vpn(link.address) or is_vpn(way.local_address) else way.medium
    low, high = (sum(ends) / 2 for ends in zip(way.out.range_us, way.back.range_us, strict=True))
    limit_us = RTT_LIMITS_US.get(medium, 10**9)
    wrong_state = (link.state is S.DEGRADED and high < 0.8 * limit_us) or (link.state is S.UP and low > limit_us)
    is_asymmetric = way.out is not way.back
    marks = ({Mark.ASYMMETRIC_ROUTE} if is_asymmetric else set()) | (set() if is_told else {Mark.UNADVERTISED})
    is_near = low / 1.25 - 110 <= link.rtt_us <= 1.25 * high + 110
    wrong = link.medium is not medium or wrong_state or link.marks != marks or not is_near
    return f"{link} should be {medium.name}, {marks}, {low:.0f} to {high:.0f} us" if wrong else ""


def _wrong_cables(world: "World", graph: Graph, present: frozenset[NodeId]) -> str:
    cables = world.networks.cables(world.names)
    for lost in graph.lost_cables:
        if any(lost.shares_an_end(one) for one, carries in cables.items() if carries):
            return f"{lost} is there, and said to be lost"
    moved = {
        frozenset(world.names[one] for one in net.members)
        for net in world.networks.nets
        if net.medium is M.THUNDERBOLT and net.moves
    }
    joined = {frozenset(link.id[:2]) for link in graph.links if link.state is not S.DOWN}
    # Where no port has a UUID, a second cable that is seen first while the other is away may be that one, moved.
    parallel = Counter(frozenset(one.nodes) for one in cables if not all(end.port_uuid for end in one.ends))
    moved |= {pair for pair, count in parallel.items() if count > 1}
    for one, carries in cables.items():
        pair = frozenset(one.nodes)
        was_seen = any(one.is_same(seen) for seen in world.seen_cables)
        is_lost = was_seen and not carries and pair not in moved and pair in joined and pair <= present
        if is_lost and not any(one.is_same(lost) for lost in graph.lost_cables):
            return f"{one} is not said to be lost"
    rails = world.macs.rails(world.names, present)
    if ends_of(graph.rails) != rails or len(graph.rails) != len(rails):
        return f"its rails are {graph.rails}, and there are {rails}"
    excused = {frozenset(one.nodes) for one in graph.cables} | {frozenset(one.nodes) for one in graph.rails}
    tried = {(one.from_node, one.to_node) for one in graph.tried}
    waits = waits_for(graph, sorted(present)) if len(present) < 20 else ()
    if wrong := [pair for pair in waits if frozenset(pair) not in excused and pair in tried]:
        return f"a placement would wait for {wrong}"
    return ""
