"""What must hold of every probe, report, graph and choice at every moment, and of all of them once there is peace.

Written from what really crossed, and from the media as they are.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

from simulation.topology_host import MISSED, PERIOD_S, REFUSED, Broken, Host, Told
from simulation.topology_networks import Way
from simulation.topology_ports import agree, ends_of
from thunderline.cluster import NodeId
from thunderline.cluster.addresses import address_key, is_ipv4, is_private, is_vpn
from thunderline.cluster.graph import Cable, Graph
from thunderline.cluster.links import RTT_LIMITS_US, Link, LinkId, LinkState, Mark
from thunderline.cluster.media import ORDER, Medium
from thunderline.topology.probes import ASKED_GAP_S, SILENT_PERIOD_COUNT, Row

if TYPE_CHECKING:
    from simulation.topology_world import World

S, M = LinkState, Medium
EXACT_S = 1e-6
# Two probe periods, and the tick in which that is looked at.
DIRECTION_S = 2 * PERIOD_S

LAWS = (
    "no link without a probe that crossed, none of who is not there, and of no medium that it did not cross",
    "DOWN after three tries without an answer or fifteen that were refused, and no earlier",
    "DEGRADED after three slow answers, UP after five fast ones, by the first answer where there was none",
    "who is heard is probed back at once, and who is back is tried at once",
    "every address of every peer has a row, and all is known only when each is a link, or failed twice",
    "who is silent for four periods is not heard any more",
    "a direction that works is in the graphs of both ends two probe periods after both serve",
    "who has heard the same reports has the same graph, in whatever order they came",
    "versions grow with every change, over restarts too, and name one content",
    "nothing that is DOWN is chosen, nothing is chosen only where nothing answers",
    "nothing is kept that another would beat if it were a fifth slower",
    "what answers is left only for what is clearly better",
    "data goes by IPv4, and by no VPN while anything else is UP",
    "CABLE_LOST of a cable that carried something and carries nothing, between nodes that are alive by another way",
    "a cable that was seen is remembered, by its ports where they are told",
    "a rail joins ports that one cable has joined, and no port without a hub has two",
    "in peace the graph is the same everywhere, complete, and holds exactly what works, as it works",
    "in peace all show of each node what it has chosen itself",
    "in peace all have the same rails: one for each cable between Macs, one-sided where one of the two sees nobody",
    "in peace the first of the link order is chosen, and no placement waits but for a cable",
    "in peace no choice goes back and forth, also where RTTs scatter around a limit",
    "in peace nothing is news, and every address is probed once a period",
)


def of_a_try(host: Host, key: tuple[NodeId, str], before: Row | None) -> None:
    """Just after its result: the state of the link against the tries of its row."""
    if before is None:
        return
    row, tries = host.rows[key], host.tries[key]
    health = row.health
    answers = [one for one in tries if one >= 0]
    if health is None:
        if answers:
            raise Broken(f"{key} has answered {host.node}, and is no link")
        return
    if not answers:
        raise Broken(f"{key} is a link of {host.node}, and has never answered")
    state, limit_us = health.state, RTT_LIMITS_US.get(row.medium)
    was = before.health.state if before.health is not None and len(tries) > 1 else S.DOWN
    if tries[-1] < 0:
        silent = tries[len(tries) - next(n for n, one in enumerate(reversed(tries)) if one >= 0) :]
        if state is not S.DOWN and (silent[-3:] == [MISSED] * 3 or silent[-15:] == [REFUSED] * 15):
            raise Broken(f"{key} is {state.name} for {host.node} after {silent}")
        may_be_down = was is S.DOWN or silent.count(MISSED) >= 3 or silent.count(REFUSED) >= 15
        if state is not was and not (state is S.DOWN and may_be_down):
            raise Broken(f"{key} went from {was.name} to {state.name} for {host.node} after {silent}")
        return
    is_slow = limit_us is not None and tries[-1] > limit_us
    slow = [limit_us is not None and one > limit_us for one in answers[-3:]]
    fast = [one >= 0 and (limit_us is None or one < 0.8 * limit_us) for one in tries[-5:]]
    expected = {
        S.DOWN: S.DEGRADED if is_slow else S.UP,
        S.UP: S.DEGRADED if len(slow) == 3 and all(slow) else S.UP,
        S.DEGRADED: S.UP if len(fast) == 5 and all(fast) else S.DEGRADED,
    }[was]
    if state is not expected:
        raise Broken(f"{key} went from {was.name} to {state.name} for {host.node} after {tries} of {row.medium.name}")


def of_a_look(world: "World", host: Host) -> None:
    """After it has begun what was due, and told what was news."""
    now_s, clock_s = world.now_s, host.clock_s(world.now_s)
    for key, since_s in list(host.owed_s.items()):
        row = host.rows.get(key)
        if row is None or row.in_flight:
            del host.owed_s[key]
        elif now_s - since_s > ASKED_GAP_S + world.tick_s + EXACT_S:
            raise Broken(f"{key} was heard by {host.node}, or is back, and is not tried at once")
    silent_s = SILENT_PERIOD_COUNT * PERIOD_S
    if clock_s >= host.judges_from_s and any(clock_s - one.last.at_s > silent_s for one in host.arrivals.values()):
        raise Broken(f"{host.node} still hears who is silent")
    _of_its_report(world, host)


def _of_its_report(world: "World", host: Host) -> None:
    report = host.known.report
    if report is host.checked:
        return
    host.checked = report
    if report.version <= host.highest_report and host.node not in world.lost_count:
        raise Broken(f"reports of {host.node} went from {host.highest_report} to {report.version}")
    host.highest_report = max(report.version, host.highest_report)
    tried = {(one.to_node, one.address) for one in report.tried}
    told = {(peer, address) for peer, one in host.members.peers.items() for address in one.addresses}
    if told - tried and host.rows:
        raise Broken(f"{host.node} has no row for {told - tried}")
    if not report.is_complete:
        return
    if host.roster is None or not host.roster.complete:
        raise Broken(f"{host.node} says that it knows all, and its roster is not complete")
    if host.is_mac and host.ports is None:
        raise Broken(f"{host.node} says that it knows all, and has not looked at its ports")
    # What is UP or DEGRADED is held against its tries by `of_a_try`.
    stands = {(one.to_node, one.address) for one in report.tried if one.state in (S.UP, S.DEGRADED)}
    for key in tried - stands:
        tries = host.tries.get(key, [])
        if not tries or (tries[-1] < 0 and sum(one < 0 for one in tries[-2:]) < 2):
            raise Broken(f"{host.node} says that it knows all, and {key} was tried so: {tries}")


def of_a_graph(world: "World", host: Host, before: Told) -> None:
    """Just after the graph was made and links were chosen from it."""
    known, graph = host.known, host.known.graph
    is_same = graph == before.graph and known.chosen == before.chosen
    if known.version < before.version or (known.version == before.version) is not is_same:
        raise Broken(f"version {known.version} of {host.node} after {before.version}")
    if not is_same and known.version <= host.highest_shown and host.node not in world.lost_count:
        raise Broken(f"what {host.node} shows went from {host.highest_shown} to {known.version}")
    host.highest_shown = max(known.version, host.highest_shown)
    for node, version in graph.seen:
        if version < host.heard_of.get(node, version):
            raise Broken(f"{host.node} went back to {version} of {node}")
        host.heard_of[node] = version
        report = known.reports[node]
        if world.versions.setdefault((node, version), report) != report and node not in world.lost_count:
            raise Broken(f"{version} of {node} means two things")
    if graph is not before.graph:
        _of_links(world, host, graph)
    for peer in host.members.peers:
        found = known.by_pair.get((host.node, peer), ())
        chosen = next((one for one in found if one.id == known.chosen.get((host.node, peer))), None)
        of_a_choice(found, chosen, before.chosen.get((host.node, peer)))
        of_data(found, world.core.data_path(found))


def _of_links(world: "World", host: Host, graph: Graph) -> None:
    present = host.members.present | {host.node}
    for link in graph.links:
        if link.from_node not in present or link.to_node not in present:
            raise Broken(f"{host.node} has a link of who is not there: {link}")
        media = world.crossed.get(link.id)
        if media is None or link.local_address.startswith("10.66."):
            raise Broken(f"{host.node} has a link that no probe has crossed: {link}")
        if link.medium not in media and not (is_vpn(link.address) and link.medium is M.VPN):
            # The way back may be known by the peer's own probes alone.
            pair = (link.to_node, link.from_node)
            back = {one for key, found in world.crossed.items() if key[:2] == pair for one in found}
            if link.medium not in back:
                raise Broken(f"{host.node} has {link}, which has crossed {media}")
    for cable in graph.lost_cables:
        if not any(cable.is_same(one) for one in world.crossed_cables):
            raise Broken(f"{cable} is lost for {host.node}, and never carried anything")
        if not set(cable.nodes) <= host.members.alive | {host.node}:
            raise Broken(f"{cable} is lost for {host.node}, and its ends are not alive")
        joins = [one for one in graph.links if {one.from_node, one.to_node} == set(cable.nodes)]
        answering = [one for one in joins if one.state is not S.DOWN]
        if not answering:
            raise Broken(f"{cable} is lost for {host.node}, and nothing else joins its ends")
        ends = {(end.node, end.interface) for end in cable.ends}
        for one in answering:
            is_there = {(one.from_node, one.local_interface), (one.to_node, one.remote_interface)} == ends
            if is_there and one.medium is M.THUNDERBOLT and Mark.ASYMMETRIC_ROUTE not in one.marks:
                raise Broken(f"{cable} is lost for {host.node}, and carries {one}")
    for cable, carries in world.networks.cables(world.names).items():
        if carries and host.node in cable.nodes and _shows(graph, cable) and agree(graph, cable):
            if not any(cable.is_same(one) for one in host.cables):
                raise Broken(f"{host.node} sees {cable}, and does not remember it")
            world.seen_cables.add(cable)
    _of_rails(world, host, graph)


def _of_rails(world: "World", host: Host, graph: Graph) -> None:
    """Of a hub's port two may be told for a moment, by who has looked and who has not since it was moved."""
    if not world.macs.joined.issuperset(pair for pair, _ in ends_of(graph.rails)):
        raise Broken(f"{host.node} has rails of different cables: {graph.rails}")
    direct = [end.port_uuid for one in graph.rails if not one.behind for end in (one.one, one.other)]
    if len(direct) != len(set(direct)):
        raise Broken(f"{host.node} has two rails at one port: {graph.rails}")


def _shows(graph: Graph, cable: Cable) -> bool:
    ends = {(end.node, end.interface) for end in cable.ends}
    return any(
        {(link.from_node, link.local_interface), (link.to_node, link.remote_interface)} == ends
        and link.medium is M.THUNDERBOLT
        and link.state is not S.DOWN
        and Mark.ASYMMETRIC_ROUTE not in link.marks
        for link in graph.links
    )


def of_a_choice(links: Iterable[Link], chosen: Link | None, held: LinkId | None) -> None:
    answering = [one for one in links if _may_be_used(one)]
    if chosen is None or chosen not in answering:
        if answering or chosen is not None:
            raise Broken(f"{chosen} is chosen, and these answer: {answering}")
        return
    better = [one for one in answering if beats(one, chosen)]
    if better:
        raise Broken(f"{chosen} is kept, and {better[0]} is clearly better")
    left = next((one for one in answering if one.id == held), None)
    if left is not None and left is not chosen and not beats(chosen, left):
        raise Broken(f"{left} is left for {chosen}, which is not clearly better")


def _may_be_used(one: Link) -> bool:
    """It answers, and its address is the peer's by more than what somebody said to an echo."""
    return one.state is not S.DOWN and Mark.UNADVERTISED not in one.marks


def beats(one: Link, other: Link) -> bool:
    """Whether it would still come first if it were slower by a fifth, and by 0.1 ms; DEGRADED, where that is slow."""
    slow_us = max(int(one.rtt_us * 1.2), one.rtt_us + 100)
    if slow_us > RTT_LIMITS_US.get(one.medium, slow_us):
        one = replace(one, state=S.DEGRADED)
    mine, theirs = _counts_as(one, slow_us), _counts_as(other, other.rtt_us)
    if mine != theirs:
        return mine < theirs
    if mine != ORDER.index(M.VPN):
        classes = [(link.state is S.DEGRADED, not is_private(link.address)) for link in (one, other)]
        if classes[0] != classes[1]:
            return classes[0] < classes[1]
    return (slow_us, address_key(one.address)) < (other.rtt_us, address_key(other.address))


def _counts_as(link: Link, rtt_us: int) -> int:
    if link.state is S.UP:
        return ORDER.index(link.medium)
    meets = [n for n, medium in enumerate(ORDER) if rtt_us <= RTT_LIMITS_US.get(medium, -1)]
    return next((n for n in meets if n >= ORDER.index(link.medium)), ORDER.index(M.VPN))


def of_data(links: Iterable[Link], path: Link | None) -> None:
    usable = [one for one in links if _may_be_used(one) and is_ipv4(one.address)]
    if path is None or path not in usable:
        if usable or path is not None:
            raise Broken(f"data goes by {path}, and these could carry it: {usable}")
        return
    if path.medium is M.VPN and any(one.state is S.UP and one.medium is not M.VPN for one in usable):
        raise Broken(f"data goes by {path} although another is UP")


def of_directions(world: "World") -> None:
    """Each second."""
    now_s = world.now_s
    calm = [
        host
        for host in world.hosts
        if host.serves(now_s) and now_s - max(host.serves_s, host.disturbed_s) >= DIRECTION_S + world.tick_s
    ]
    for one, other in permutations(calm, 2):
        is_deaf = frozenset((one.index, other.index)) in world.deaf
        for address in world.told_addresses(other.index):
            way = world.networks.way(one.index, address)
            if not isinstance(way, Way) or way.to != other.index:
                continue
            for host in (one,) if is_deaf else (one, other):
                if not host.answers(one.node, other.node, address):
                    raise Broken(f"{one.node} reaches {address} of {other.node}, and {host.node} does not know it")
