"""What this node knows of the network: its own report, the others', the one graph, and which links it chooses.

Belongs to the event loop; times come in as arguments.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from enum import IntEnum

from thunderline.cluster import NodeId
from thunderline.cluster.graph import START_MAX, Cable, Graph, Version
from thunderline.cluster.links import Link, LinkId, believed, choose
from thunderline.cluster.machine_facts import ThunderboltPort
from thunderline.topology import graphs, wire
from thunderline.topology import reports as reporting
from thunderline.topology.cables import cables_of, remembered
from thunderline.topology.members import Members
from thunderline.topology.ports import NOTHING_TOLD, ports_of
from thunderline.topology.probes import Arrivals, Rows
from thunderline.topology.reports import Report, Reports
from thunderline.v1 import topology_pb2

Pair = tuple[NodeId, NodeId]

# A mere RTT is told once in so many periods: of 16 nodes on a busy network each has another one all the time, and
# nobody decides anything by it within seconds.
RTT_PERIOD_COUNT = 10

# Nodes that a peer tells of while our own discovery does not know them: over a stream that stands nothing comes twice.
EARLY_COUNT_MAX = 64


class News(IntEnum):
    """What others have told."""

    NONE = 0
    # Nobody has to hurry for it.
    OF_RTTS = 1
    OF_LINKS = 2


class Knowledge:
    """`start` counts the starts of the role; `period_s` is that of the probes."""

    def __init__(self, node: NodeId, start: int, cables: Mapping[Cable, float], period_s: float) -> None:
        self.node = node
        self.start = start
        self.cables = dict(cables)
        self.members = Members()
        # Own Thunderbolt ports: the last that the own card told.
        self.ports: tuple[ThunderboltPort, ...] = ()
        self.report = Report(node, Version(start, 0))
        self.reports: Reports = {node: self.report}
        self.graph = Graph()
        self.by_pair: dict[Pair, tuple[Link, ...]] = {}
        # Of own pairs chosen here; of others as their nodes tell.
        self.chosen: dict[Pair, LinkId] = {}
        # Of what this node tells: the graph, its choices, its interfaces.
        self.version = Version(start, 0)
        self._rtt_pace_s = RTT_PERIOD_COUNT * period_s
        self._told_s = -self._rtt_pace_s
        self._early: dict[NodeId, Report] = {}
        self._encoded: dict[NodeId, tuple[Report, topology_pb2.NodeReport]] = {}
        # The newest own report that others have, and when it was answered for the last time.
        self._met = self.report
        self._now_s, self._answered_s = 0.0, -period_s
        self._period_s = period_s
        # What the graph was made from, and the cables in it that end here.
        self._made_from: tuple[Reports, Members] | None = None
        self._here: tuple[Cable, ...] = ()
        self._made: graphs.Made = {}
        self._told_ports = NOTHING_TOLD

    def follow(self, members: Members) -> None:
        """The roster is another one: who has left is not told of, and its report waits for it."""
        self.members = members
        if members.ports is not None:
            self.ports = members.ports
        known = {node: one for node, one in self.reports.items() if node == self.node or node in members.peers}
        for node, report in self.reports.items():
            if node not in known:
                self._wait(report)
        self._encoded = {node: one for node, one in self._encoded.items() if node in known}
        arrived = [self._early.pop(node) for node in list(self._early) if self._takes(node)]
        self.reports = reporting.merge(known, arrived)

    def _takes(self, node: NodeId) -> bool:
        return node in self.members.peers and node not in self.members.twins

    def _wait(self, report: Report) -> None:
        """For its node to be a member; of too many the oldest is forgotten."""
        found = self._early.pop(report.node, report)
        self._early[report.node] = reporting.newer(found, report)
        if len(self._early) > EARLY_COUNT_MAX:
            del self._early[next(iter(self._early))]

    def tell(self, rows: Rows, arrivals: Arrivals, tells: Collection[NodeId], now_s: float) -> bool:
        """Whether the own report is another one now."""
        self._now_s = now_s
        if self._goes_above():
            return True
        after = reporting.next_report(self.report, self.told(rows, arrivals, tells))
        if after == self.report:
            return False
        # In the very same moment a choice goes with the RTTs that it follows from.
        if 0 < now_s - self._told_s < self._rtt_pace_s and not reporting.is_urgent(self.report, after):
            return False
        self._told_s = now_s
        self._put_own(after)
        return True

    def told(self, rows: Rows, arrivals: Arrivals, tells: Collection[NodeId]) -> Report:
        """What is known now, with the version of the last report.

        A Mac that has not looked at its ports yet cannot tell which cables are there.
        """
        cables = [one for one in self.cables if self.node in one.nodes]
        knows = self.members.is_complete and not self.members.awaits_machine
        version = self.report.version
        return reporting.told(self.node, version, rows, arrivals, cables, knows, tells, self.ports, self.taken)

    def take(self, reports: Iterable[Report]) -> News:
        """What a peer has told. Of no member, and of one of two twins, it is kept until it is one, for a few."""
        news = News.NONE
        for report in reports:
            if report.node == self.node:
                news = max(news, self._meet_own(report))
            elif self._takes(report.node):
                before = self.reports.get(report.node)
                self.reports = reporting.merge(self.reports, [report])
                after = self.reports[report.node]
                if before is None or (after != before and reporting.is_urgent(before, after)):
                    news = News.OF_LINKS
                elif after != before:
                    news = max(news, News.OF_RTTS)
            else:
                self._wait(report)
        return news

    def renew(self, wall_s: float) -> bool:
        """The graph and the choices that follow from the reports; whether anything is another now."""
        is_changed = False
        grounds = self.reports, self.members
        if self._made_from is None or any(new is not old for new, old in zip(grounds, self._made_from, strict=True)):
            self._made_from = grounds
            is_changed = self._choose(self.graph_now())
        self.cables = remembered(self.cables, self._here, wall_s, self._told_ports)
        if is_changed:
            self.touch()
        return is_changed

    def _choose(self, graph: Graph) -> bool:
        by_pair: dict[Pair, list[Link]] = {}
        for link in graph.links:
            by_pair.setdefault((link.from_node, link.to_node), []).append(link)
        told = {one.id for one in graph.tried if one.is_chosen}
        best = {
            pair: choose(links, self.chosen.get(pair)) if pair[0] == self.node else believed(links, told)
            for pair, links in by_pair.items()
        }
        chosen = {pair: link.id for pair, link in best.items() if link is not None}
        is_changed = (graph, chosen) != (self.graph, self.chosen)
        if graph.ports != self.graph.ports:
            self._told_ports = ports_of(graph.ports)
        self.graph, self.chosen = graph, chosen
        self.by_pair = {pair: tuple(links) for pair, links in by_pair.items()}
        self._here = tuple(one for one in cables_of(graph.links, self._told_ports) if self.node in one.nodes)
        return is_changed

    def graph_now(self) -> Graph:
        members, own = self.members, {self.node}
        return graphs.graph(self.reports, members.present | own, members.alive | own, members.twins, self._made)

    def touch(self) -> None:
        """Something else that this node tells is another one."""
        self.version = Version(self.version.start, self.version.number + 1)

    def encoded(self, report: Report) -> topology_pb2.NodeReport:
        """As a message; the same for all whom it is told."""
        known = self._encoded.get(report.node)
        if known is None or known[0] is not report:
            known = self._encoded[report.node] = report, wire.report_to_proto(report)
        return known[1]

    def best(self, peer: NodeId) -> str:
        """The address by which connections from here go to a peer; "" while no link answers."""
        found = self.chosen.get((self.node, peer))
        return found.address if found else ""

    @property
    def taken(self) -> frozenset[LinkId]:
        """By which connections from here go."""
        own = (self.chosen.get((self.node, peer)) for peer in self.members.peers)
        return frozenset(one for one in own if one is not None)

    def _meet_own(self, report: Report) -> News:
        """Others have a newer one of this node: the count of its starts was lost, and nobody would believe the next."""
        if report.version.start >= START_MAX:
            # Of what is above it no peer would believe anything.
            return News.NONE
        self._met = max(self._met, report, key=lambda one: one.version)
        return News.OF_LINKS if self._goes_above() else News.NONE

    def _goes_above(self) -> bool:
        """Once a probe period: two nodes of one id would drive each other on."""
        is_early = self._now_s - self._answered_s < self._period_s
        if self._met.version <= self.report.version or is_early or self.node in self.members.twins:
            return False
        self._answered_s = self._now_s
        self.start = self._met.version.start + 1
        self.version = Version(self.start, self.version.number)
        self._put_own(replace(self.report, version=Version(self.start, 0)))
        return True

    def _put_own(self, report: Report) -> None:
        self.report = report
        self.reports = {**self.reports, self.node: report}
