"""The core of topology with one mistake each. The simulation must notice every one of them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from simulation.topology_host import Core, Key, Known
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, Graph, Outcome, Version
from thunderline.cluster.links import RTT_LIMITS_US, Link, LinkId, LinkState, in_order
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.cluster.rails import Rail, RailEnd
from thunderline.topology import graphs, probes, reports
from thunderline.topology.cables import cables_of
from thunderline.topology.health import Health
from thunderline.topology.knowledge import News
from thunderline.topology.members import Members
from thunderline.topology.probes import Arrivals, Row, Rows
from thunderline.topology.reports import Report

S, M = LinkState, Medium
OF_PREFIX = {"10.": M.ETHERNET, "203.": M.ETHERNET, "192.168.1.": M.WIFI, "100.64.": M.VPN, "fd00": M.ETHERNET}


class TakesAddressesForLinks(Known):
    """What a card tells is there."""

    def tell(self, rows: Rows, arrivals: Arrivals, tells: Collection[NodeId], now_s: float) -> bool:
        believed = {
            key: replace(row, outcome=Outcome.ANSWERED, health=Health(S.UP, (500,))) if row.health is None else row
            for key, row in rows.items()
        }
        return super().tell(believed, arrivals, tells, now_s)


class NeverTellsAState(Known):
    """Only an address more or less is news, and an RTT."""

    def tell(self, rows: Rows, arrivals: Arrivals, tells: Collection[NodeId], now_s: float) -> bool:
        before = self.report
        if not super().tell(rows, arrivals, tells, now_s):
            return False
        if [one.address for one in before.tried] == [one.address for one in self.report.tried]:
            self._put_own(before)
        return True


class TellsEveryRtt(Known):
    """A report after every probe."""

    def tell(self, rows: Rows, arrivals: Arrivals, tells: Collection[NodeId], now_s: float) -> bool:
        if super().tell(rows, arrivals, tells, now_s):
            return True
        now = self.told(rows, arrivals, tells)
        if now == self.report:
            return False
        version = self.report.version
        self._put_own(replace(now, version=Version(version.start, version.number + 1)))
        return True

    def waits_with_rtts(self, now_s: float) -> bool:
        return False


class KnowsAllAtOnce(Known):
    """A roster that is still incomplete is taken for a complete one."""

    def follow(self, members: Members) -> None:
        super().follow(replace(members, is_complete=True))


class TakesWhateverCameLast(Known):
    """An older report replaces a newer one."""

    def take(self, told: Iterable[Report]) -> News:
        fresh = {one.node: one for one in told if one.node != self.node and one.node in self.members.peers}
        self.reports = {**self.reports, **fresh}
        return News.OF_LINKS


class CountsNoStarts(Known):
    """Versions begin anew with a restart."""

    def __init__(self, node: NodeId, start: int, cables: Mapping[Cable, float], period_s: float) -> None:
        super().__init__(node, 1, cables, period_s)

    def _meet_own(self, report: Report) -> News:
        return News.NONE


class BelievesStrangers(Known):
    """Who says a member's name to the echo is that member."""

    def tell(self, rows: Rows, arrivals: Arrivals, tells: Collection[NodeId], now_s: float) -> bool:
        said = {(one.last.peer, one.last.peer_address): one.health for one in arrivals.values()}
        believed = {key: replace(row, health=row.health or said.get(key)) for key, row in rows.items()}
        return super().tell(believed, arrivals, tells, now_s)


class TellsNoChoice(Known):
    """What other nodes use has to be guessed."""

    @property
    def taken(self) -> frozenset[LinkId]:
        return frozenset()


class KeepsTheGone(Known):
    """Links of who is not there stay."""

    def graph_now(self) -> Graph:
        return graphs.graph(self.reports, self.reports.keys(), self.members.alive | {self.node})


class SeesItselfOnly(Known):
    """The reports of others are not used."""

    def graph_now(self) -> Graph:
        return _graph(self, {self.node: self.report})


class TakesOneWayForBoth(Known):
    """Where one direction works the other does."""

    def graph_now(self) -> Graph:
        graph = super().graph_now()
        known = {link.id for link in graph.links}
        back = [
            replace(link, from_node=link.to_node, to_node=link.from_node, address=link.local_address)
            for link in graph.links
            if link.local_address and LinkId(link.to_node, link.from_node, link.local_address) not in known
        ]
        return replace(graph, links=tuple(sorted((*graph.links, *back), key=lambda link: link.id)))


class LosesCablesTooSoon(Known):
    """Every cable that carries nothing is lost, whatever else does not work."""

    def graph_now(self) -> Graph:
        graph = super().graph_now()
        here = cables_of(graph.links)
        return replace(graph, lost_cables=tuple(one for one in graph.cables if one not in here))


class ForgetsCables(Known):
    """A cable that is out was never there."""

    def renew(self, wall_s: float) -> bool:
        found = super().renew(wall_s)
        here = cables_of(self.graph.links)
        self.cables = {one: seen_s for one, seen_s in self.cables.items() if one in here}
        return found


class PairsPortsByTheirOrder(Known):
    """Where several cables join two Macs: the first with the first."""

    def graph_now(self) -> Graph:
        graph = super().graph_now()
        by_pair: dict[tuple[NodeId, NodeId], list[Rail]] = {}
        for one in graph.rails:
            by_pair.setdefault(one.nodes, []).append(one)
        found = []
        for rails in by_pair.values():
            ends = [sorted(end, key=lambda one: int(one.receptacle)) for end in zip(*map(_ends, rails), strict=True)]
            found += [replace(rails[0], one=one, other=other) for one, other in zip(*ends, strict=True)]
        return replace(graph, rails=tuple(found))


class NeedsBothEnds(Known):
    """What only one end sees is no rail."""

    def graph_now(self) -> Graph:
        graph = super().graph_now()
        return replace(graph, rails=tuple(one for one in graph.rails if not one.is_one_sided))


class LooksAtPortsOnce(Known):
    """What the first look at the own ports showed stays."""

    def follow(self, members: Members) -> None:
        super().follow(replace(members, ports=None) if self.ports else members)


def _ends(one: Rail) -> tuple[RailEnd, RailEnd]:
    return one.one, one.other


def choosing(choose: Callable[[tuple[Link, ...], LinkId | None, LinkId | None], LinkId | None]) -> type[Known]:
    """From all links of a pair, the one that was chosen before, and what the core chooses now."""

    class Chooses(Known):
        def renew(self, wall_s: float) -> bool:
            held, version = self.chosen, self.version
            is_changed = super().renew(wall_s)
            self.chosen = {
                pair: found
                for pair, links in self.by_pair.items()
                if (found := choose(links, held.get(pair), self.chosen.get(pair))) is not None
            }
            if self.chosen != held and self.version == version:
                self.touch()
            return is_changed

    return Chooses


def stays_on_a_dead_link(links: tuple[Link, ...], held: LinkId | None, best: LinkId | None) -> LinkId | None:
    return held if any(link.id == held and link.state is S.DOWN for link in links) else best


def trusts_who_answers(links: tuple[Link, ...], held: LinkId | None, best: LinkId | None) -> LinkId | None:
    """Whether or not the peer's card tells the address."""
    answering = [replace(one, marks=frozenset()) for one in links if one.state is not S.DOWN]
    return next((one.id for one in in_order(answering)), None)


def never_comes_back(links: tuple[Link, ...], held: LinkId | None, best: LinkId | None) -> LinkId | None:
    """The VPN that helped out while the cable was away is kept."""
    return held if any(link.id == held and link.state is not S.DOWN for link in links) else best


def takes_whatever_is_first(links: tuple[Link, ...], held: LinkId | None, best: LinkId | None) -> LinkId | None:
    """Two that are as good trade places at every measurement."""
    return next((link.id for link in in_order(links)), None)


def _graph(known: Known, heard: Mapping[NodeId, Report]) -> Graph:
    return graphs.graph(heard, known.members.present | {known.node}, known.members.alive | {known.node})


def never_asks_back(rows: Rows, peer: NodeId, peer_address: str) -> dict[Key, Row]:
    return dict(rows)


def goes_on_waiting(rows: Rows, peer: NodeId) -> dict[Key, Row]:
    """Who is back is tried when it is due."""
    return dict(rows)


def knows_cards_only(rows: Rows, addresses: Mapping[NodeId, Iterable[str]], heard: Arrivals) -> dict[Key, Row]:
    """Where a peer is heard from, and its card does not tell, is not tried."""
    return probes.rows_for(rows, addresses, {})


def degrades_at_once(row: Row, rtt_us: int, local_address: str, path: Path) -> Row:
    """One late answer is enough."""
    after = probes.answered(row, rtt_us, local_address, path)
    is_slow = rtt_us > RTT_LIMITS_US.get(after.medium, rtt_us)
    if after.health is None or not is_slow:
        return after
    return replace(after, health=replace(after.health, state=S.DEGRADED))


def never_recovers(row: Row, rtt_us: int, local_address: str, path: Path) -> Row:
    after = probes.answered(row, rtt_us, local_address, path)
    before = row.health
    if before is None or after.health is None or before.state is not S.DEGRADED:
        return after
    return replace(after, health=replace(after.health, state=S.DEGRADED))


def trusts_the_address(row: Row, rtt_us: int, local_address: str, path: Path) -> Row:
    """Whose subnet it is tells the medium."""
    medium = next((one for prefix, one in OF_PREFIX.items() if row.address.startswith(prefix)), M.THUNDERBOLT)

    def end(known: End | None) -> End | None:
        return replace(known, medium=medium) if known is not None else None

    told = Path(end(path.leaves), end(path.arrives), end(path.returns))
    return probes.answered(row, rtt_us, local_address, told)


def takes_a_refusal_for_silence(row: Row, outcome: Outcome, errno: int) -> Row:
    """A topology that restarts takes its links down."""
    return probes.failed(row, Outcome.TIMED_OUT if outcome is Outcome.REFUSED else outcome, errno)


def hears_the_silent(arrivals: Arrivals, now_s: float, period_s: float) -> Arrivals:
    return arrivals


def passes_nothing_on(
    known: Mapping[NodeId, Report], held: Mapping[NodeId, Version], own: NodeId, peer: NodeId
) -> tuple[Report, ...]:
    return tuple(one for one in reports.to_send(known, held, own, peer) if one.node == own)


def data_by_the_order(links: Collection[Link]) -> Link | None:
    """IPv6 is as good as IPv4."""
    return next(iter(in_order(links)), None)


BUGS: dict[str, Core] = {
    "an advertised address is a link": Core(TakesAddressesForLinks),
    "a direction is taken to work because the other one does": Core(TakesOneWayForBoth),
    "who is heard is not probed back": Core(asked_back=never_asks_back),
    "an address that only the peer's own probes show is not tried": Core(rows_for=knows_cards_only),
    "who is back is not tried at once": Core(begun_again=goes_on_waiting),
    "a stranger at the echo is believed": Core(BelievesStrangers),
    "who is silent is heard for ever": Core(still_heard=hears_the_silent),
    "an older report replaces a newer one": Core(TakesWhateverCameLast),
    "reports are not passed on": Core(to_send=passes_nothing_on),
    "the reports of others are not used": Core(SeesItselfOnly),
    "versions begin anew with a restart": Core(CountsNoStarts),
    "a link's state is no news": Core(NeverTellsAState),
    "every RTT is news": Core(TellsEveryRtt),
    "all is known before the roster is complete": Core(KnowsAllAtOnce),
    "links of who is gone stay": Core(KeepsTheGone),
    "one late answer makes a link DEGRADED": Core(answered=degrades_at_once),
    "a DEGRADED link never is UP again": Core(answered=never_recovers),
    "a refusal is taken for silence": Core(failed=takes_a_refusal_for_silence),
    "the address tells the medium": Core(answered=trusts_the_address),
    "a DOWN link stays chosen": Core(choosing(stays_on_a_dead_link)),
    "an address that no card tells is used": Core(choosing(trusts_who_answers)),
    "the better link is not taken again": Core(choosing(never_comes_back)),
    "of two near-equal links now the one, now the other is chosen": Core(choosing(takes_whatever_is_first)),
    "what a node has chosen is not told": Core(TellsNoChoice),
    "data goes by IPv6": Core(data_path=data_by_the_order),
    "a cable is lost although nothing else joins its ends": Core(LosesCablesTooSoon),
    "a cable that is out is forgotten": Core(ForgetsCables),
    "ports of two Macs are paired by their order": Core(PairsPortsByTheirOrder),
    "a rail that only one end sees is none": Core(NeedsBothEnds),
    "ports are looked at once": Core(LooksAtPortsOnce),
}

# Seeds that are known to catch those that few of the first ones notice.
CAUGHT_AT = {
    "an address that only the peer's own probes show is not tried": 4,
    "who is silent is heard for ever": 13,
    "reports are not passed on": 10,
    "links of who is gone stay": 3,
    "a DEGRADED link never is UP again": 23,
    "the address tells the medium": 4,
    "a DOWN link stays chosen": 15,
    "an address that no card tells is used": 5,
    "of two near-equal links now the one, now the other is chosen": 10,
    "what a node has chosen is not told": 10,
    "data goes by IPv6": 11,
    "ports of two Macs are paired by their order": 34,
    "ports are looked at once": 15,
}
