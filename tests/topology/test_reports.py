"""Reports, their merging, and the one graph that follows: the same on every node, whatever came in which order."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.cluster import NodeId
from thunderline.cluster.graph import (
    Cable,
    CableEnd,
    Graph,
    Outcome,
    Tried,
    Version,
    cable,
    is_covered,
    outcome_of,
    unsettled,
)
from thunderline.cluster.links import LinkState, Mark
from thunderline.cluster.machine_facts import RdmaPortState, ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.topology.graphs import Made, graph
from thunderline.topology.probes import Echoed, Row, answered, failed, heard, rows_for
from thunderline.topology.reports import (
    Heard,
    Report,
    Reports,
    is_urgent,
    merge,
    next_report,
    to_send,
    told,
)
from topology.scenes import ADDRESSES, A, B, C, end, port, straight

S, M = LinkState, Medium
TB, ETH, VPN = M.THUNDERBOLT, M.ETHERNET, M.VPN
B_CABLE, A_CABLE = ADDRESSES[TB]
B_LAN, A_LAN = ADDRESSES[ETH]
V1 = Version(1, 1)
BOTH = (A, B)


def tried(
    from_node: NodeId = A,
    to_node: NodeId = B,
    address: str = B_CABLE,
    state: LinkState | None = S.UP,
    outcome: Outcome = Outcome.ANSWERED,
    rtt_us: int = 50,
    medium: Medium = TB,
    local_address: str = A_CABLE,
) -> Tried:
    return Tried(
        from_node,
        to_node,
        address,
        outcome,
        failure_count=0 if outcome in (Outcome.ANSWERED, Outcome.UNTRIED) else 2,
        state=state,
        rtt_us=rtt_us,
        local_address=local_address,
        path=straight(medium),
    )


def hears(
    from_node: NodeId = A,
    to_node: NodeId = B,
    address: str = B_CABLE,
    from_address: str = A_CABLE,
    is_proven: bool = True,
    state: LinkState = S.UP,
) -> Heard:
    return Heard(from_node, to_node, address, from_address, end(TB), end(TB), state, 60, is_proven)


def report(
    node: NodeId,
    *rows: Tried | Heard,
    version: Version = V1,
    cables: tuple[Cable, ...] = (),
    is_complete: bool = True,
    tells: tuple[NodeId, ...] = (),
    ports: tuple[ThunderboltPort, ...] = (),
) -> Report:
    tries = tuple(one for one in rows if isinstance(one, Tried))
    hears_of = tuple(one for one in rows if isinstance(one, Heard))
    return Report(node, version, tries, hears_of, cables, is_complete, tells, ports)


def seen(*reports: Report) -> Graph:
    return graph(merge({}, reports), BOTH, BOTH)


UNTRIED = tried(outcome=Outcome.UNTRIED, state=None)
NEVER = tried(outcome=Outcome.TIMED_OUT, state=None)
LOST = tried(outcome=Outcome.TIMED_OUT, state=S.DOWN)
# One burst of a link that stands was lost.
MISSED = replace(tried(outcome=Outcome.TIMED_OUT), errno=110, failure_count=1)
ONE_SIDED = frozenset({Mark.ONE_SIDED})

# What A says of its own probes to B, what B says that it hears of A: the state of the link from A to B, and its marks.
EVIDENCE: dict[str, tuple[Tried | None, Heard | None, LinkState | None, frozenset[Mark]]] = {
    "both": (tried(), hears(), S.UP, frozenset()),
    "neither": (None, None, None, frozenset()),
    "an address that was never tried is no link": (UNTRIED, None, None, frozenset()),
    "one that never answered is none": (NEVER, None, None, frozenset()),
    "whatever the peer hears": (NEVER, hears(), None, frozenset()),
    "the peer cannot dial, and cannot prove what it hears": (tried(), None, S.UP, frozenset()),
    "one's own report is lost": (None, hears(), S.UP, ONE_SIDED),
    "one's own topology has just started": (UNTRIED, hears(), S.UP, ONE_SIDED),
    "somebody said that name to the echo": (None, hears(is_proven=False), None, frozenset()),
    "the peer cannot dial, and hears": (tried(), hears(is_proven=False), S.UP, frozenset()),
    "it does not answer any more": (LOST, None, S.DOWN, frozenset()),
    "it is slow": (tried(state=S.DEGRADED), hears(), S.DEGRADED, frozenset()),
    "the peer hears it slowly": (None, hears(state=S.DEGRADED), S.DEGRADED, ONE_SIDED),
}


@pytest.mark.parametrize(("row", "heard", "state", "marks"), EVIDENCE.values(), ids=EVIDENCE.keys())
def test_a_link_by_what_its_two_nodes_say(
    row: Tried | None, heard: Heard | None, state: LinkState | None, marks: frozenset[Mark]
) -> None:
    reports = [report(A, *([row] if row else [])), report(B, *([heard] if heard else []))]
    links = seen(*reports).links
    assert [one.state for one in links] == ([state] if state else [])
    assert all(one.marks == marks and (one.from_node, one.to_node, one.address) == (A, B, B_CABLE) for one in links)
    assert all(one.medium is TB for one in links)


@pytest.mark.parametrize("others", [[], [report(B, is_complete=False)]], ids=["no report", "not all of it"])
def test_a_link_of_which_the_peer_does_not_speak_is_one_sided(others: list[Report]) -> None:
    assert [one.marks for one in seen(report(A, tried()), *others).links] == [ONE_SIDED]


def test_one_direction_that_works_is_all_that_there_is() -> None:
    """B can be dialled and cannot dial."""
    back = tried(B, A, A_CABLE, state=None, outcome=Outcome.TIMED_OUT, local_address="")
    found = seen(report(A, tried()), report(B, back, hears(is_proven=False)))
    assert [(one.from_node, one.to_node) for one in found.links] == [(A, B)]
    assert [(one.from_node, one.outcome) for one in found.tried] == [(A, Outcome.ANSWERED), (B, Outcome.TIMED_OUT)]


def test_a_topology_that_is_away_takes_no_link_down() -> None:
    """A's last word stands; B hears nothing any more."""
    found = seen(report(A, tried()), report(B))
    assert [one.state for one in found.links] == [S.UP]


def test_what_is_said_of_nodes_that_are_gone_is_over() -> None:
    reports = merge({}, [report(A, tried(), tried(to_node=C)), report(C, tried(C, A, "10.0.0.1"))])
    found = graph(reports, BOTH, BOTH)
    assert {one.to_node for one in found.links} == {B}
    assert {one.from_node for one in found.tried} == {A}
    assert [node for node, _ in found.seen] == [A]


def test_a_graph_tells_whose_links_it_does_not_know_yet() -> None:
    assert graph({}, BOTH, BOTH).incomplete == BOTH
    assert seen(report(A, is_complete=False), report(B)).incomplete == (A,)
    assert seen(report(A), report(B)).incomplete == ()


def test_a_way_back_over_another_interface_is_marked() -> None:
    path = replace(straight(TB), returns=end(VPN), comes_back=end(VPN))
    [link] = seen(report(A, replace(tried(), path=path)), report(B, hears())).links
    assert link.marks == {Mark.ASYMMETRIC_ROUTE}
    assert link.medium is VPN and link.local_interface == "en5" and link.remote_interface == "en5"


def test_a_medium_without_a_limit_is_not_degraded() -> None:
    """The way there is a cable; the peer's own probes come by a VPN."""
    slow = replace(tried(state=S.DEGRADED, rtt_us=30_000), path=replace(straight(TB), comes_back=end(VPN)))
    [link] = seen(report(A, slow), report(B, hears())).links
    assert (link.medium, link.state) == (VPN, S.UP)
    [link] = seen(report(A, replace(slow, path=straight(TB))), report(B, hears())).links
    assert (link.medium, link.state) == (TB, S.DEGRADED)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(report(A, tried(address="x")), id="of no address"),
        pytest.param(report(B, hears(address="x")), id="heard at no address"),
        pytest.param(report(B, tried()), id="of another node's tries"),
        pytest.param(report(A, hears()), id="of what another node hears"),
        pytest.param(report(A, tried(to_node=A)), id="of links to itself"),
    ],
)
def test_a_report_that_cannot_be_is_not_believed(wrong: Report) -> None:
    found = seen(wrong)
    assert not found.links and not found.tried


# Merging: reports drawn at random, also wrong ones that share a version.
NODE = st.sampled_from([A, B, C])
TRIED = st.builds(
    tried,
    NODE,
    NODE,
    st.sampled_from([B_CABLE, B_LAN]),
    st.sampled_from([None, *S]),
    st.sampled_from(Outcome),
    st.integers(10, 20),
    st.sampled_from([TB, ETH]),
)
HEARD = st.builds(hears, NODE, NODE, st.sampled_from([B_CABLE, B_LAN]), is_proven=st.booleans())
REPORT = st.builds(
    Report,
    NODE,
    st.builds(Version, st.integers(1, 2), st.integers(1, 3)),
    st.lists(TRIED, max_size=3).map(tuple),
    st.lists(HEARD, max_size=3).map(tuple),
    st.just(()),
    st.booleans(),
    st.just(()),
    st.lists(
        st.builds(port, st.sampled_from(["a1", "a2", "b1"]), st.just("en5"), st.sampled_from(["a1", "b1", ""])),
        max_size=2,
    ).map(tuple),
)
MANY = st.lists(REPORT, max_size=6)


def both(one: Reports, other: Reports) -> Reports:
    return merge(one, other.values())


@given(MANY, MANY, MANY)
def test_merging_is_commutative_associative_and_idempotent(
    first: list[Report], then: list[Report], last: list[Report]
) -> None:
    one, two, three = merge({}, first), merge({}, then), merge({}, last)
    assert both(one, two) == both(two, one)
    assert both(both(one, two), three) == both(one, both(two, three))
    assert both(one, one) == one


@given(MANY, st.randoms(use_true_random=False))
def test_every_node_comes_to_the_same_graph(reports: list[Report], chance: random.Random) -> None:
    """In any order, with repeats, by way of others."""
    mixed = [*reports, *reports[::2]]
    chance.shuffle(mixed)
    half = len(mixed) // 2
    relayed = both(merge({}, mixed[half:]), merge({}, mixed[:half]))
    found = graph(merge({}, reports), (A, B, C), (A, B))
    assert graph(relayed, (C, B, A), (B, A)) == found
    assert list(found.links) == sorted(found.links, key=lambda one: one.id)


@given(MANY)
def test_nothing_that_is_newer_is_forgotten(reports: list[Report]) -> None:
    after = merge({}, reports)
    for one in reports:
        assert after[one.node].version >= one.version
        assert merge(after, [one]) == after


def test_a_newer_start_replaces_a_higher_number() -> None:
    old, new = report(A, tried(), version=Version(1, 99)), report(A, version=Version(2, 1))
    for order in itertools.permutations([old, new]):
        assert merge({}, order) == {A: new}


A4, B2 = port("a4", "en5", "b2"), port("b2", "en5")
V2, V3 = Version(1, 2), Version(1, 3)
# A's reports of itself and of C, what B is known to have: which of them A sends to B.
RELAYS: dict[str, tuple[tuple[Report, ...], dict[NodeId, Version], tuple[NodeId, ...]]] = {
    "a new stream: all": ((report(A), report(C)), {}, (A, C)),
    "never B's own": ((report(A), report(B)), {}, (A,)),
    "but when B tells an older one": ((report(B, version=V3),), {B: V1}, (B,)),
    "nothing twice": ((report(A), report(C)), {A: V1, C: V1}, ()),
    "what is newer": ((report(A, version=V2), report(C, version=V2)), {A: V1, C: V3}, (A,)),
    "of a newer start": ((report(A, version=Version(2, 1)),), {A: V3}, (A,)),
    "not what C tells B itself": ((report(A, tells=(B, C)), report(C, tells=(A, B))), {}, (A,)),
    "what C does not tell B any more": ((report(C, version=V2, tells=(A,)),), {C: V1}, (C,)),
}


@pytest.mark.parametrize(("reports", "held", "expected"), RELAYS.values(), ids=RELAYS.keys())
def test_a_stream_carries(
    reports: tuple[Report, ...], held: dict[NodeId, Version], expected: tuple[NodeId, ...]
) -> None:
    assert tuple(one.node for one in to_send(merge({}, reports), held, A, B)) == expected


# What is told, what is known now: whether it is news.
NEWS: dict[str, tuple[Report, Report, bool]] = {
    "nothing": (report(A, tried()), report(A, tried()), False),
    "a little faster": (report(A, tried(rtt_us=1000)), report(A, tried(rtt_us=850)), False),
    "noise": (report(A, tried(rtt_us=50)), report(A, tried(rtt_us=120)), False),
    "a fifth slower": (report(A, tried(rtt_us=1000)), report(A, tried(rtt_us=1200)), True),
    "much faster": (report(A, tried(rtt_us=1000)), report(A, tried(rtt_us=700)), True),
    "a little slower": (report(A, tried(rtt_us=9_500)), report(A, tried(rtt_us=10_500)), False),
    "a little slower, so that a DEGRADED cable counts as Wi-Fi": (
        report(A, tried(state=S.DEGRADED, rtt_us=9_500)),
        report(A, tried(state=S.DEGRADED, rtt_us=10_500)),
        True,
    ),
    "another state": (report(A, tried()), report(A, LOST), True),
    "another interface": (report(A, tried()), report(A, tried(medium=ETH)), True),
    "another choice": (report(A, tried()), report(A, replace(tried(), is_chosen=True)), True),
    "an address more": (report(A, tried()), report(A, tried(), UNTRIED), True),
    "an address less": (report(A, tried()), report(A), True),
    "a peer that is heard": (report(A), report(A, hears(B, A, A_CABLE)), True),
    "another errno": (report(A, NEVER), report(A, replace(NEVER, errno=113)), True),
    "all is known": (report(A, is_complete=False), report(A), True),
    "a cable": (report(A), report(A, cables=(cable(CableEnd(A, "en5"), CableEnd(B, "en5")),)), True),
    "a stream": (report(A), report(A, tells=(B,)), True),
    "a port": (report(A), report(A, ports=(A4,)), True),
    "an RDMA device that is ACTIVE": (
        report(A, ports=(A4,)),
        report(A, ports=(replace(A4, rdma_port=RdmaPortState.ACTIVE),)),
        True,
    ),
}


@pytest.mark.parametrize(("last", "now", "is_news"), NEWS.values(), ids=NEWS.keys())
def test_a_report_is_told_when_it_decides_something(last: Report, now: Report, is_news: bool) -> None:
    found = next_report(last, now)
    assert found == (replace(now, version=Version(1, 2)) if is_news else last)


def test_a_graph_made_from_what_was_made_before_is_the_same() -> None:
    made: Made = {}
    first = merge({}, [report(A, tried()), report(B, hears(A, B, B_LAN))])
    heard_more = merge(first, [report(B, hears(A, B, B_CABLE), version=Version(1, 2))])
    slower = merge(heard_more, [report(A, tried(rtt_us=900), version=Version(1, 2))])
    for reports in (first, heard_more, slower, first):
        for present in (BOTH, (A,), BOTH):
            assert graph(reports, present, present, made=made) == graph(reports, present, present)
    assert graph(slower, BOTH, BOTH).links != graph(first, BOTH, BOTH).links


def test_who_trades_places_with_its_like_hurries_nobody() -> None:
    """Of two LANs now the one is chosen, then the other; a cable for a LAN is news at once."""

    def chosen(number: int, *all_: Tried) -> Report:
        return report(A, *(replace(one, is_chosen=place == number) for place, one in enumerate(all_)))

    lans = tried(address="10.0.0.2", medium=ETH), tried(address="10.0.1.2", medium=ETH)
    assert not is_urgent(chosen(0, *lans), chosen(1, *lans))
    assert next_report(chosen(0, *lans), chosen(1, *lans)).tried == chosen(1, *lans).tried
    of_two_kinds = tried(), tried(address="10.0.1.2", medium=ETH)
    assert is_urgent(chosen(0, *of_two_kinds), chosen(1, *of_two_kinds))


def test_nobody_waits_for_what_a_port_tells() -> None:
    assert is_urgent(report(A, tried()), report(A, tried(), ports=(A4,)))


def test_a_lost_burst_of_a_link_that_stands_is_told_without_hurry() -> None:
    up, missed, lost = report(A, tried()), report(A, MISSED), report(A, LOST)
    assert next_report(up, missed) is not up
    assert not is_urgent(up, missed) and not is_urgent(missed, up)
    assert is_urgent(missed, lost) and is_urgent(lost, missed)


def test_a_slow_drift_is_told_in_the_end() -> None:
    last, tellings = report(A, tried(rtt_us=1000)), 0
    for rtt_us in range(1000, 2000, 10):
        after = next_report(last, report(A, tried(rtt_us=rtt_us)))
        tellings += after is not last
        last = after
    assert 3 <= tellings <= 5 and last.version.number == 1 + tellings


def test_what_is_known_becomes_a_report() -> None:
    cable_row = answered(Row(B, B_CABLE), 50, A_CABLE, Path(end(TB), end(TB), end(TB)))
    lan_row = Row(B, B_LAN)
    for outcome, errno in ((Outcome.TIMED_OUT, 110), (Outcome.TIMED_OUT, 110), (Outcome.REFUSED, 111)):
        lan_row = failed(lan_row, outcome, errno)
    rows = {row.key: row for row in (cable_row, lan_row)}
    arrivals = heard({}, Echoed(B, A_CABLE, B_CABLE, End("en6", TB), end(TB), 60, 0.0))
    arrivals = heard(arrivals, Echoed(B, A_LAN, B_LAN, end(ETH), end(ETH), 60, 0.0))
    found = told(A, V1, rows, arrivals, (), knows_peers=True)
    assert [(one.address, one.state, one.failure_count, one.errno) for one in found.tried] == [
        (B_LAN, None, 2, 111),
        (B_CABLE, S.UP, 0, 0),
    ]
    # B's own probes come back by another interface than A's leave by.
    assert found.tried[1].path.comes_back == End("en6", TB) and found.tried[1].path.is_asymmetric
    # Of B_LAN nothing came back: anybody may have said B's name.
    assert {one.from_address: one.is_proven for one in found.heard} == {B_CABLE: True}
    assert found.is_complete
    assert told(A, V1, rows, arrivals, (), knows_peers=True, ports=[A4]) == replace(found, ports=(A4,))
    assert not told(A, V1, rows, arrivals, (), knows_peers=False).is_complete
    # One lost burst of a link that stands leaves all known.
    missed = failed(cable_row, Outcome.TIMED_OUT, 110)
    assert told(A, V1, {missed.key: missed}, {}, (), knows_peers=True).is_complete
    assert not told(A, V1, {(B, B_LAN): Row(B, B_LAN)}, {}, (), knows_peers=True).is_complete


def test_who_says_a_members_name_to_the_echo_makes_no_news() -> None:
    cable_row = answered(Row(B, B_CABLE), 50, A_CABLE, straight(TB))
    before = told(A, V1, {cable_row.key: cable_row}, {}, (), knows_peers=True)
    arrivals = heard({}, Echoed(B, A_LAN, "10.0.0.66", end(ETH), end(ETH), 60, 0.0))
    rows = rows_for({cable_row.key: cable_row}, {B: [B_CABLE]}, arrivals)
    assert len(rows) == 2
    assert told(A, V1, rows, arrivals, (), knows_peers=True) == before
    named = rows[B, "10.0.0.66"]
    rows[named.key] = failed(named, Outcome.TIMED_OUT, 110)
    assert told(A, V1, rows, arrivals, (), knows_peers=True) == before
    # What has crossed once is told, and stays told; but whoever says B's name can answer to it too.
    rows[named.key] = failed(answered(named, 60, A_LAN, straight(ETH)), Outcome.TIMED_OUT, 110)
    crossed = told(A, V1, rows, arrivals, (), knows_peers=True)
    assert [one.is_advertised for one in crossed.tried] == [False, True]
    assert [one.marks >= {Mark.UNADVERTISED} for one in seen(crossed, report(B)).between(A, B)] == [True, False]
    assert rows_for(rows, {B: [B_CABLE, "10.0.0.66"]}, arrivals)[named.key].is_advertised


def test_a_graph_covers_another_when_it_knows_at_least_as_much_of_every_node() -> None:
    old = seen(report(A), report(B, version=Version(1, 5)))
    new = seen(report(A, version=Version(2, 1)), report(B, version=Version(1, 5)))
    assert is_covered(old, new) and is_covered(old, old) and not is_covered(new, old)
    assert not is_covered(old, seen(report(A))) and is_covered(seen(), old)


CABLES = (cable(CableEnd(A, "en5"), CableEnd(B, "en5")),)
BACK = tried(B, A, A_CABLE, local_address=B_CABLE)
LAN = tried(address=B_LAN, medium=ETH, local_address=A_LAN)
# What A and B report: the directed pairs for which a placement waits.
SETTLED: dict[str, tuple[Report, Report, list[tuple[NodeId, NodeId]]]] = {
    "nothing is known": (report(A), report(B), [(A, B), (B, A)]),
    "one way is": (report(A, tried()), report(B), [(B, A)]),
    "both are": (report(A, tried()), report(B, BACK), []),
    "an address that has failed twice": (report(A, NEVER, LAN), report(B, BACK), []),
    "one that has failed once": (report(A, LAN, replace(NEVER, failure_count=1)), report(B, BACK), [(A, B)]),
    "UP, one miss: settled": (report(A, MISSED), report(B, BACK), []),
    "DEGRADED, one miss: settled": (report(A, replace(MISSED, state=S.DEGRADED)), report(B, BACK), []),
    "DOWN, one miss since the peer is back": (
        report(A, LAN, replace(LOST, failure_count=1)),
        report(B, BACK),
        [(A, B)],
    ),
    "one that is not tried yet": (report(A, LAN, UNTRIED), report(B, BACK), [(A, B)]),
    "a cable that is not back yet": (report(A, LAN, cables=CABLES), report(B, BACK), [(A, B)]),
    "a cable that is": (report(A, LAN, tried(), cables=CABLES), report(B, BACK), []),
    "a cable that is DOWN": (report(A, LAN, LOST, cables=CABLES), report(B, BACK), [(A, B)]),
    "a rail whose cable carries nothing yet": (report(A, LAN, ports=(A4,)), report(B, BACK, ports=(B2,)), [(A, B)]),
    "a rail": (report(A, LAN, tried(), ports=(A4,)), report(B, BACK, ports=(B2,)), []),
    "a port that sees a Mac that is no node": (report(A, LAN, ports=(A4,)), report(B, BACK), []),
}


@pytest.mark.parametrize(("a", "b", "waits"), SETTLED.values(), ids=SETTLED.keys())
def test_a_placement_waits_for(a: Report, b: Report, waits: list[tuple[NodeId, NodeId]]) -> None:
    assert list(unsettled(seen(a, b), BOTH)) == waits


def test_a_graph_has_the_ports_of_all_who_are_there_and_their_rails() -> None:
    reports = [report(A, ports=(A4,)), report(B, ports=(B2,)), report(C, ports=(port("c1", "en1"),))]
    found = seen(*reports)
    assert found.ports == ((A, (A4,)), (B, (B2,)))
    [rail] = found.rails
    assert (rail.one.port_uuid, rail.other.port_uuid, rail.is_one_sided) == ("a4", "b2", True)
    assert graph(merge({}, reports), (A, C), (A, C)).rails == ()
    # Whose ports those of twins are nobody knows.
    assert graph(merge({}, reports), BOTH, BOTH, twins=[B]).rails == ()


def test_a_cable_that_two_nodes_remember_is_one_and_has_todays_names() -> None:
    known = cable(CableEnd(A, "en9", "a4", "4"), CableEnd(B, "en5", "b2", "2"))
    reports = [report(A, cables=(known,), ports=(A4,)), report(B, cables=CABLES)]
    assert seen(*reports).cables == (cable(CableEnd(A, "en5", "a4", "4"), CableEnd(B, "en5", "b2", "2")),)


def test_a_node_alone_waits_for_nobody() -> None:
    assert unsettled(seen(), [A]) == ()


@pytest.mark.parametrize(
    ("errno", "expected"),
    [
        (111, Outcome.REFUSED),
        (110, Outcome.TIMED_OUT),
        (113, Outcome.UNREACHABLE),
        (101, Outcome.UNREACHABLE),
        (99, Outcome.UNREACHABLE),
        (104, Outcome.FAILED),
        (0, Outcome.FAILED),
    ],
)
def test_an_error_of_linux_is(errno: int, expected: Outcome) -> None:
    assert outcome_of(errno) is expected
