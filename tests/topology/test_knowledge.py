"""What a node knows and tells: versions that only grow, choices that hold, cables, members that come and go."""

from dataclasses import replace

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.graph import START_MAX, Outcome, Tried, Version
from thunderline.cluster.links import LinkState
from thunderline.cluster.media import Medium
from thunderline.cluster.members import MemberState
from thunderline.topology import probes, wire
from thunderline.topology.knowledge import EARLY_COUNT_MAX, RTT_PERIOD_COUNT, Knowledge, News
from thunderline.topology.members import Members, Peer
from thunderline.topology.probes import Row, Rows
from thunderline.topology.reports import Report
from topology.scenes import ADDRESSES, A, B, C, port, straight

TB, ETH, VPN = Medium.THUNDERBOLT, Medium.ETHERNET, Medium.VPN
PERIOD_S = 2.0
NOON_S = 1e9


def peer(node: NodeId, state: MemberState = MemberState.ALIVE) -> Peer:
    return Peer(node, state, (1, ""), (), 7412, 7402)


def roster(*peers: Peer) -> Members:
    return Members({one.node: one for one in peers}, is_complete=True)


def knowing(*peers: Peer, start: int = 1) -> Knowledge:
    found = Knowledge(A, start, {}, PERIOD_S)
    found.follow(roster(*peers))
    return found


def row(medium: Medium, rtt_us: int = 50, state: LinkState = LinkState.UP) -> Row:
    address, own = ADDRESSES[medium]
    found = probes.answered(Row(B, address), rtt_us, own, straight(medium))
    for _ in range(5 if state is LinkState.DOWN else 0):
        found = probes.failed(found, Outcome.TIMED_OUT, 110)
    return found


def rows(*found: Row) -> Rows:
    return {one.key: one for one in found}


def told_by(node: NodeId, version: Version, *to: tuple[NodeId, Medium]) -> Report:
    tried = [
        Tried(node, other, ADDRESSES[medium][0], Outcome.ANSWERED, 0, 0, LinkState.UP, 50, "", straight(medium))
        for other, medium in to
    ]
    return Report(node, version, tuple(tried), is_complete=True)


def test_a_change_is_told_at_once_and_nothing_is_told_twice() -> None:
    known = knowing(peer(B))
    assert known.tell(rows(row(TB)), {}, (), 0.0)
    assert known.report.version == Version(1, 1)
    assert not known.tell(rows(row(TB)), {}, (), 0.1)
    assert known.tell(rows(row(TB, state=LinkState.DOWN)), {}, (), 0.2)
    assert known.report.version == Version(1, 2)
    assert known.reports[A] is known.report


def test_a_mere_rtt_waits_for_its_turn() -> None:
    known = knowing(peer(B))
    known.tell(rows(row(VPN, 40_000)), {}, (), 0.0)
    assert not known.tell(rows(row(VPN, 70_000)), {}, (), RTT_PERIOD_COUNT * PERIOD_S - 0.1)
    assert known.tell(rows(row(VPN, 70_000)), {}, (), RTT_PERIOD_COUNT * PERIOD_S)
    assert known.report.tried[0].rtt_us == 70_000


def test_the_graph_has_a_new_version_with_every_change_and_only_then() -> None:
    known = knowing(peer(B))
    known.tell(rows(row(TB)), {}, (), 0.0)
    assert known.renew(NOON_S)
    assert (known.version, known.best(B)) == (Version(1, 1), ADDRESSES[TB][0])
    assert not known.renew(NOON_S)
    known.take([told_by(B, Version(1, 1), (A, TB))])
    assert known.renew(NOON_S)
    assert known.version == Version(1, 2)
    known.touch()
    assert known.version == Version(1, 3)


def test_a_link_in_use_is_kept_until_another_is_clearly_better() -> None:
    known = knowing(peer(B))
    first, other = row(ETH, 800), Row(B, "192.168.1.9")
    held, faster = first.address, other.address
    for now_s, (rtt_us, expected) in enumerate([(1200, held), (750, held), (300, faster), (790, faster)]):
        rival = probes.answered(other, rtt_us, "192.168.1.1", straight(ETH))
        known.tell(rows(first, rival), {}, (), RTT_PERIOD_COUNT * PERIOD_S * now_s)
        known.renew(NOON_S)
        assert known.best(B) == expected, rtt_us


def test_a_choice_is_told_once() -> None:
    known = knowing(peer(B))
    both = rows(row(TB), row(ETH, 300))
    assert known.tell(both, {}, (), 0.0)
    assert [one.is_chosen for one in known.report.tried] == [False, False]
    known.renew(NOON_S)
    assert known.tell(both, {}, (), 0.1)
    assert {one.address for one in known.report.tried if one.is_chosen} == {ADDRESSES[TB][0]} == {known.best(B)}
    known.renew(NOON_S)
    assert not known.tell(both, {}, (), 0.2)


def test_a_choice_of_another_node_is_as_it_tells_whatever_was_there_before() -> None:
    known = knowing(peer(B), peer(C))
    whole = told_by(B, Version(1, 1), (C, ETH), (C, TB))
    lan, cable = whole.tried
    for number, (chosen, expected) in enumerate([(lan, lan), (cable, cable), (lan, lan), (None, cable)]):
        tried = tuple(replace(one, is_chosen=one is chosen) for one in whole.tried)
        assert known.take([replace(whole, version=Version(1, number), tried=tried)]) is News.OF_LINKS
        known.renew(NOON_S)
        assert known.chosen == {(B, C): expected.id}


def test_no_link_that_answers_is_no_choice() -> None:
    known = knowing(peer(B))
    known.tell(rows(row(TB)), {}, (), 0.0)
    known.renew(NOON_S)
    known.tell(rows(row(TB, state=LinkState.DOWN)), {}, (), 5.0)
    known.renew(NOON_S)
    assert (known.best(B), known.chosen) == ("", {})
    assert known.best(C) == ""


def test_cables_with_an_own_end_are_remembered_and_lost_when_the_peer_is_there_without_them() -> None:
    known = knowing(peer(B))
    known.take([told_by(B, Version(1, 1), (A, TB))])
    known.tell(rows(row(TB)), {}, (), 0.0)
    known.renew(NOON_S)
    (cable,) = known.cables
    assert (cable.nodes, known.cables[cable]) == ((A, B), NOON_S)
    # The next report tells of it.
    assert known.tell(rows(row(TB)), {}, (), 1.0)
    assert known.report.cables == (cable,)
    known.take([told_by(B, Version(1, 2), (A, ETH))])
    known.tell(rows(row(TB, state=LinkState.DOWN), row(ETH, 300)), {}, (), 6.0)
    known.renew(NOON_S + 60)
    assert known.graph.lost_cables == (cable,)
    assert known.cables == {cable: NOON_S}


def test_a_cable_between_two_others_is_remembered_by_them() -> None:
    known = knowing(peer(B), peer(C))
    known.take([told_by(B, Version(1, 1), (C, TB)), told_by(C, Version(1, 1), (B, TB))])
    known.renew(NOON_S)
    assert len(known.graph.links) == 2
    assert known.cables == {}


def test_who_has_left_is_forgotten_and_who_is_dead_is_not_shown() -> None:
    known = knowing(peer(B), peer(C))
    known.take([told_by(B, Version(1, 1), (A, TB)), told_by(C, Version(1, 1), (A, ETH))])
    known.renew(NOON_S)
    assert {link.from_node for link in known.graph.links} == {B, C}
    known.follow(roster(peer(B), peer(C, MemberState.DEAD)))
    known.renew(NOON_S)
    assert {link.from_node for link in known.graph.links} == {B}
    assert C in known.reports
    known.follow(roster(peer(B)))
    assert C not in known.reports


def test_a_peers_word_on_a_node_that_discovery_does_not_know_yet_waits() -> None:
    known = knowing(peer(B))
    assert not known.take([told_by(C, Version(1, 1), (A, ETH))])
    assert C not in known.reports
    known.follow(roster(peer(B), peer(C)))
    assert known.reports[C].version == Version(1, 1)


def test_not_every_stranger_is_kept() -> None:
    known = knowing(peer(B))
    strangers = [NodeId(f"stranger-{number}") for number in range(EARLY_COUNT_MAX + 9)]
    known.take(told_by(one, Version(1, 1)) for one in strangers)
    known.follow(roster(*(peer(one) for one in strangers)))
    assert known.reports.keys() == {A, *strangers[-EARLY_COUNT_MAX:]}


def test_a_peer_that_the_roster_loses_and_regains_has_its_report() -> None:
    """Over a stream that stands it does not come again."""
    known = knowing(peer(B), peer(C))
    known.take([told_by(B, Version(1, 1), (A, TB)), told_by(C, Version(1, 1), (A, ETH))])
    known.follow(roster(peer(C)))
    assert B not in known.reports
    known.take([told_by(B, Version(1, 2), (A, ETH)), told_by(B, Version(1, 1), (A, TB))])
    known.follow(roster(peer(B), peer(C)))
    assert known.reports[B] == told_by(B, Version(1, 2), (A, ETH))
    known.follow(roster())
    known.follow(roster(peer(B), peer(C)))
    assert known.reports.keys() == {A, B, C}


@pytest.mark.parametrize("seen", [Version(9, 4), Version(2, 999)], ids=["an older life", "this life's own number"])
def test_a_lost_count_of_starts_goes_on_above_what_others_have(seen: Version) -> None:
    known = knowing(peer(B), start=2)
    assert known.take([told_by(A, seen)])
    assert known.start == seen.start + 1
    assert known.report.version > seen
    assert known.version > Version(2, 0)
    # What others send again of it changes nothing.
    assert not known.take([told_by(A, seen)])


def test_a_count_that_leaves_no_room_is_not_answered() -> None:
    known = knowing(peer(B), start=2)
    assert not known.take([told_by(A, Version(START_MAX, 4))])
    assert known.start == 2
    assert known.take([told_by(A, Version(START_MAX - 1, 4))])
    assert wire.version_from_proto(wire.version_to_proto(known.report.version)) == Version(START_MAX, 0)


def test_a_count_is_raised_once_a_probe_period() -> None:
    known = knowing(peer(B), start=2)
    known.tell(rows(row(TB)), {}, (), 100.0)
    assert known.take([told_by(A, Version(9, 4))])
    assert not known.take([told_by(A, Version(20, 0))])
    known.tell(rows(row(TB)), {}, (), 100.0 + PERIOD_S - 0.1)
    assert known.start == 10
    # What came too early is not forgotten: nobody sends it again.
    assert known.tell(rows(row(TB)), {}, (), 100.0 + PERIOD_S)
    assert (known.start, known.report.version) == (21, Version(21, 0))


def test_of_a_twin_nothing_is_taken_and_nobody_acts_on_its_links() -> None:
    known = knowing(peer(B), peer(C))
    known.take([told_by(B, Version(1, 1), (A, TB)), told_by(C, Version(1, 1), (A, ETH))])
    known.follow(replace(roster(peer(B), peer(C)), twins=frozenset({B})))
    assert not known.take([told_by(B, Version(7, 1), (A, ETH))])
    known.renew(NOON_S)
    assert known.reports[B].version == Version(1, 1)
    assert B in known.graph.incomplete and C not in known.graph.incomplete
    # One of the two has gone: what was told meanwhile counts.
    known.follow(roster(peer(B), peer(C)))
    assert known.reports[B].version == Version(7, 1)


def test_who_is_a_twin_itself_does_not_answer_the_other() -> None:
    known = knowing(peer(B), start=2)
    known.tell(rows(row(TB)), {}, (), 0.0)
    known.follow(replace(roster(peer(B)), twins=frozenset({A})))
    assert not known.take([told_by(A, Version(9, 4))])
    known.tell(rows(row(TB)), {}, (), 10.0)
    known.renew(NOON_S)
    assert known.start == 2
    assert A in known.graph.incomplete
    known.follow(roster(peer(B)))
    assert known.tell(rows(row(TB)), {}, (), 20.0)
    assert known.start == 10


def test_how_much_of_a_hurry_there_is() -> None:
    known = knowing(peer(B))
    first = told_by(B, Version(1, 1), (A, TB))
    (way,) = first.tried
    slower = replace(first, version=Version(1, 2), tried=(replace(way, rtt_us=400),))
    down = replace(first, version=Version(1, 3), tried=(replace(way, state=LinkState.DOWN),))
    found = [known.take([report]) for report in (first, first, slower, down)]
    assert found == [News.OF_LINKS, News.NONE, News.OF_RTTS, News.OF_LINKS]


def test_an_older_report_changes_nothing() -> None:
    known = knowing(peer(B))
    known.take([told_by(B, Version(2, 1), (A, TB))])
    assert not known.take([told_by(B, Version(1, 99))])
    assert known.reports[B].version == Version(2, 1)


A4, B2 = port("a4", "en5", "b2"), port("b2", "en5", "a4")


def test_own_ports_are_told_as_the_own_card_tells_them_and_stay_while_it_does_not() -> None:
    known = knowing(peer(B))
    known.tell({}, {}, (), 0.0)
    known.follow(replace(roster(peer(B)), ports=(A4,)))
    assert known.tell({}, {}, (), 0.1)
    assert known.report.ports == (A4,)
    # Discovery has just started again.
    known.follow(roster(peer(B)))
    assert not known.tell({}, {}, (), 0.2)
    known.follow(replace(roster(peer(B)), ports=()))
    assert known.tell({}, {}, (), 0.3)
    assert not known.report.ports


def test_a_mac_has_not_told_all_until_it_has_looked_at_its_ports() -> None:
    known = knowing(peer(B))
    known.follow(replace(roster(peer(B)), awaits_machine=True))
    known.tell(rows(row(TB)), {}, (), 0.0)
    assert not known.report.is_complete
    known.follow(replace(roster(peer(B)), ports=()))
    known.tell(rows(row(TB)), {}, (), 0.1)
    assert known.report.is_complete


def test_ports_of_both_ends_make_a_rail_and_name_the_cable() -> None:
    known = knowing(peer(B))
    known.follow(replace(roster(peer(B)), ports=(A4,)))
    known.take([replace(told_by(B, Version(1, 1), (A, TB)), ports=(B2,))])
    known.tell(rows(row(TB)), {}, (), 0.0)
    known.renew(NOON_S)
    assert [(one.one.device, one.other.device) for one in known.graph.rails] == [("rdma_en5", "rdma_en5")]
    (cable,) = known.cables
    assert [(end.interface, end.port_uuid, end.receptacle) for end in cable.ends] == [
        ("en5", "a4", "4"),
        ("en5", "b2", "2"),
    ]


def test_a_cable_keeps_its_ports_while_the_role_has_just_started_and_knows_none() -> None:
    known = knowing(peer(B))
    known.follow(replace(roster(peer(B)), ports=(A4,)))
    known.take([replace(told_by(B, Version(1, 1), (A, TB)), ports=(B2,))])
    known.tell(rows(row(TB)), {}, (), 0.0)
    known.renew(NOON_S)
    again = Knowledge(A, 2, known.cables, PERIOD_S)
    again.follow(replace(roster(peer(B)), awaits_machine=True))
    again.take([told_by(B, Version(2, 1), (A, TB))])
    again.tell(rows(row(TB)), {}, (), 0.0)
    again.renew(NOON_S + 5)
    assert again.cables == dict.fromkeys(known.cables, NOON_S + 5)


def test_another_port_of_a_peer_is_urgent_news() -> None:
    known = knowing(peer(B))
    known.take([told_by(B, Version(1, 1), (A, TB))])
    assert known.take([replace(told_by(B, Version(1, 2), (A, TB)), ports=(B2,))]) is News.OF_LINKS
