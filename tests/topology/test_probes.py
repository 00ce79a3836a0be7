"""Which addresses are probed when; the probe-back rule; what is known of an address after its tries."""

from collections.abc import Mapping

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Outcome
from thunderline.cluster.links import LinkState
from thunderline.cluster.media import Medium
from thunderline.topology.probes import (
    ARRIVAL_COUNT_MAX,
    ASKED_GAP_S,
    SILENT_PERIOD_COUNT,
    Arrivals,
    Echoed,
    Row,
    Rows,
    answered,
    asked_back,
    begun_again,
    due,
    failed,
    heard,
    rows_for,
    started,
    still_heard,
)
from topology.scenes import ADDRESSES, A, B, C, end, straight

TB, VPN = Medium.THUNDERBOLT, Medium.VPN
PERIOD_S = 2.0
CABLE, OWN = ADDRESSES[TB]
OVERLAY, _ = ADDRESSES[VPN]


def rows(addresses: Mapping[NodeId, list[str]], arrivals: Arrivals | None = None) -> Rows:
    return rows_for({}, addresses, arrivals or {})


def echoed(peer: NodeId = B, peer_address: str = CABLE, rtt_us: int = 50, at_s: float = 0.0) -> Echoed:
    return Echoed(peer, OWN, peer_address, end(TB), end(TB), rtt_us, at_s)


def keys(found: list[Row]) -> list[tuple[NodeId, str]]:
    return [row.key for row in found]


def good(row: Row, rtt_us: int = 50) -> Row:
    return answered(row, rtt_us, OWN, straight(TB))


def test_every_address_of_every_peer_has_a_row_and_is_tried_at_once() -> None:
    found = rows({B: [CABLE, OVERLAY, "fd00::2"], C: [CABLE, "no address"]})
    assert sorted(found) == [(B, OVERLAY), (B, CABLE), (B, "fd00::2"), (C, CABLE)]
    assert len(due(found, 0.0, PERIOD_S)) == 4
    assert {row.outcome for row in found.values()} == {Outcome.UNTRIED}


def test_a_row_stays_while_the_address_does() -> None:
    known = {(B, CABLE): good(Row(B, CABLE))}
    assert rows_for(known, {B: [CABLE, OVERLAY]}, {}) == {**known, (B, OVERLAY): Row(B, OVERLAY)}
    assert rows_for(known, {B: [OVERLAY]}, {}) == {(B, OVERLAY): Row(B, OVERLAY)}
    assert rows_for(known, {}, {}) == {}


def test_an_address_that_a_peer_is_heard_from_has_a_row_though_no_card_tells_of_it() -> None:
    arrivals = heard(heard({}, echoed()), echoed(NodeId("stranger"), "10.0.0.66"))
    assert sorted(rows({B: []}, arrivals)) == [(B, CABLE)]


def test_an_address_is_probed_each_period_and_not_while_a_probe_is_under_way() -> None:
    row = started(Row(B, CABLE), 10.0)
    assert not due({row.key: row}, 99.0, PERIOD_S)
    for after in (good(row), failed(row, Outcome.TIMED_OUT, 110)):
        assert not due({row.key: after}, 11.9, PERIOD_S)
        assert due({row.key: after}, 12.0, PERIOD_S)


def test_who_is_heard_goes_first_then_the_new_then_who_has_waited_longest() -> None:
    found = {
        row.key: row
        for row in (
            Row(B, "10.0.0.1", tried_s=5.0),
            Row(B, "10.0.0.2", tried_s=1.0),
            Row(B, "10.0.0.3"),
            Row(C, "10.0.0.4", tried_s=9.5, is_asked=True),
            Row(C, "10.0.0.5", tried_s=9.5),
        )
    }
    assert keys(due(found, 10.0, PERIOD_S)) == [(C, "10.0.0.4"), (B, "10.0.0.3"), (B, "10.0.0.2"), (B, "10.0.0.1")]


# What was known of the way back: whether it is tried at once when the peer is heard.
BACK: dict[str, tuple[Row, bool]] = {
    "not tried yet": (Row(B, CABLE), True),
    "timed out": (failed(started(Row(B, CABLE), 9.0), Outcome.TIMED_OUT, 110), True),
    "refused": (failed(started(Row(B, CABLE), 9.0), Outcome.REFUSED, 111), True),
    "answered, and failed the last time": (
        failed(started(good(started(Row(B, CABLE), 7.0)), 9.0), Outcome.TIMED_OUT, 110),
        True,
    ),
    "answered the last time": (good(started(Row(B, CABLE), 9.0)), False),
    "failed just now": (failed(started(Row(B, CABLE), 9.9), Outcome.REFUSED, 111), False),
    "under way": (started(Row(B, CABLE), 9.9), False),
}


@pytest.mark.parametrize(("row", "at_once"), BACK.values(), ids=BACK.keys())
def test_the_probe_back_rule(row: Row, at_once: bool) -> None:
    asked = asked_back({row.key: row}, B, CABLE)
    assert bool(due(asked, 10.0, PERIOD_S)) is at_once
    # Once: an arrival is good for one try.
    tried = failed(started(asked[row.key], 10.0), Outcome.TIMED_OUT, 110)
    assert not due({row.key: tried}, 11.0, PERIOD_S)


def test_a_try_that_fails_while_the_peer_is_heard_is_repeated_at_once() -> None:
    """The first one went out before the peer was listening."""
    row = started(Row(B, CABLE), 10.0)
    asked = asked_back({row.key: row}, B, CABLE)
    after = {row.key: failed(asked[row.key], Outcome.REFUSED, 111)}
    assert not due(after, 10.0 + ASKED_GAP_S - 0.01, PERIOD_S)
    assert due(after, 10.0 + ASKED_GAP_S, PERIOD_S)


def test_nobody_is_probed_who_is_no_peer() -> None:
    assert asked_back({}, B, CABLE) == {}


def test_two_nodes_that_both_work_do_not_send_each_other_on() -> None:
    """Each probe of one is heard by the other: two nodes, each with one address of its peer, for 60 s."""
    sides = {A: {(B, CABLE): Row(B, CABLE)}, B: {(A, OWN): Row(A, OWN)}}
    probes = 0
    for tenth in range(600):
        for one, other in ((A, B), (B, A)):
            for row in due(sides[one], tenth / 10, PERIOD_S):
                probes += 1
                sides[one][row.key] = good(started(row, tenth / 10))
                back = OWN if one == A else CABLE
                sides[other] = asked_back(sides[other], one, back)
    assert probes <= 2 * 31


def test_both_directions_of_a_cable_are_there_within_a_period() -> None:
    """A's first try comes before B listens, and is refused; B starts 1.9 s later and knows A's address at once."""
    a_row = failed(started(Row(B, CABLE), 0.0), Outcome.REFUSED, 111)
    b_rows = rows({A: [OWN]})
    assert keys(due(b_rows, 1.9, PERIOD_S)) == [(A, OWN)]
    asked = asked_back({a_row.key: a_row}, B, CABLE)
    assert keys(due(asked, 1.9, PERIOD_S)) == [(B, CABLE)]


def test_the_first_answer_makes_a_link_and_failures_do_not() -> None:
    row = failed(failed(Row(B, CABLE), Outcome.TIMED_OUT, 110), Outcome.UNREACHABLE, 113)
    assert (row.health, row.failure_count, row.outcome, row.errno) == (None, 2, Outcome.UNREACHABLE, 113)
    row = good(row)
    assert row.health is not None and row.health.state is LinkState.UP
    assert (row.failure_count, row.outcome, row.errno, row.medium) == (0, Outcome.ANSWERED, 0, TB)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.TIMED_OUT, LinkState.DOWN),
        (Outcome.UNREACHABLE, LinkState.DOWN),
        (Outcome.WRONG_NODE, LinkState.DOWN),
        (Outcome.FAILED, LinkState.DOWN),
        (Outcome.REFUSED, LinkState.UP),
    ],
    ids=lambda value: value.name,
)
def test_a_link_after_three_failures(outcome: Outcome, expected: LinkState) -> None:
    row = good(Row(B, CABLE))
    for _ in range(3):
        row = failed(row, outcome, 1)
    assert row.health is not None and row.health.state is expected


def test_a_way_that_goes_over_another_medium_now_is_another_link() -> None:
    row = good(Row(B, CABLE))
    for _ in range(3):
        row = good(row, rtt_us=40_000)
    assert row.health is not None and row.health.state is LinkState.DEGRADED
    row = answered(row, 40_000, OWN, straight(Medium.WIFI))
    assert row.health is not None and row.health.state is LinkState.UP and row.health.rtts_us == (40_000,)


def test_a_peer_that_is_back_is_tried_at_once_and_its_failures_count_anew() -> None:
    known = {
        (B, CABLE): failed(failed(started(Row(B, CABLE), 5.0), Outcome.TIMED_OUT, 110), Outcome.TIMED_OUT, 110),
        (C, CABLE): started(Row(C, CABLE), 5.0),
    }
    found = begun_again(known, B)
    assert found[B, CABLE].failure_count == 0
    assert keys(due(found, 5.5, PERIOD_S)) == [(B, CABLE)]
    assert found[C, CABLE] == known[C, CABLE]


def test_an_arrival_is_kept_while_the_peer_is_heard() -> None:
    arrivals = heard({}, echoed(at_s=10.0))
    silent_s = SILENT_PERIOD_COUNT * PERIOD_S
    assert still_heard(arrivals, 10.0 + silent_s, PERIOD_S) == arrivals
    assert still_heard(arrivals, 10.1 + silent_s, PERIOD_S) == {}
    again = heard(arrivals, echoed(at_s=12.0, rtt_us=70))
    assert still_heard(again, 12.0 + silent_s, PERIOD_S) == again
    assert [one.health.rtts_us for one in again.values()] == [(50, 70)]


def test_a_name_that_comes_from_too_many_addresses_is_not_believed() -> None:
    arrivals: Arrivals = {}
    for number in range(ARRIVAL_COUNT_MAX + 10):
        arrivals = heard(arrivals, echoed(peer_address=f"10.0.0.{number}"))
    arrivals = heard(arrivals, echoed(C))
    assert sum(one.last.peer == B for one in arrivals.values()) == ARRIVAL_COUNT_MAX
    assert sum(one.last.peer == C for one in arrivals.values()) == 1
