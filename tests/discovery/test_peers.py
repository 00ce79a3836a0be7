"""Whom a node calls, where, and what it tells there."""

from dataclasses import replace

import pytest

from discovery.little_cards import OWN, begun, card, state, ticked
from thunderline.cluster import NodeId
from thunderline.cluster.members import MemberState
from thunderline.discovery import roster as rosters
from thunderline.discovery.peers import (
    LEAD_COUNT_MAX,
    LEAD_KEPT_S,
    Call,
    Greeting,
    Lead,
    Peers,
    answered,
    calls,
    failed,
    greet,
    greeted,
    sighted,
)
from thunderline.discovery.roster import Roster
from thunderline.discovery.values import Card

M = MemberState
# The node itself is m: it begins with those after it.
A, Z = card("a"), card("z")
LEAD_A = Lead(A.node_id, A.addresses)


def called(roster: Roster, peers: Peers, until_s: float) -> tuple[list[tuple[float, Call]], Roster, Peers]:
    """The calls of every tick until then; nobody answers and nobody says so."""
    found = []
    while roster.clock.read_s < until_s:
        roster = rosters.tick(roster, roster.clock.read_s + 0.25)
        due, peers = calls(roster, peers)
        found += [(roster.clock.read_s, call) for call in due]
    return found, roster, peers


def times(roster: Roster, peers: Peers, until_s: float) -> list[float]:
    return [at_s for at_s, _ in called(roster, peers, until_s)[0]]


def hearing(*cards: Card) -> Roster:
    roster = begun()
    for one in cards:
        roster = rosters.hear(roster, one, 0.0)
    return roster


# When.


def test_the_one_with_the_smaller_id_begins_and_the_other_only_when_nothing_came() -> None:
    assert times(hearing(Z), Peers(), 3.5) == [1.0, 2.0, 3.0]
    assert times(hearing(A), Peers(), 3.5) == [1.5, 3.0]


def test_who_was_heard_just_now_is_not_called() -> None:
    roster = ticked(hearing(A, Z), 10.0, heard=[A, Z])
    assert calls(roster, Peers())[0] == ()


def test_who_is_remembered_is_called_at_once_and_then_each_heartbeat() -> None:
    assert times(begun(Z), Peers(), 2.25) == [0.25, 1.25, 2.25]


def test_a_dead_member_is_called_each_probe_period() -> None:
    roster = ticked(hearing(Z), 10.0)
    assert state(roster, "z") is MemberState.DEAD
    assert times(roster, Peers(), 15.0) == [10.25, 12.25, 14.25]


def test_who_left_is_not_called_unless_somebody_hears_it_again() -> None:
    roster = rosters.leave(hearing(A), A.node_id, A.life, 0.0)
    assert times(roster, Peers(), 10.0) == []
    assert times(roster, sighted(roster, Peers(), [LEAD_A]), 3.0) == [0.25, 2.25]


def test_a_lead_is_tried_for_a_minute() -> None:
    found = times(begun(), sighted(begun(), Peers(), [LEAD_A]), 2 * LEAD_KEPT_S)
    assert found[:2] == [0.25, 2.25]
    assert LEAD_KEPT_S - 2.5 < found[-1] < LEAD_KEPT_S


SEED = Call(None, ("s:1",))


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        pytest.param(None, [0.25, 2.25, 4.25, 6.25, 8.25], id="nobody: each probe period"),
        pytest.param(OWN, [], id="ourselves: never again"),
        pytest.param(card("x", cluster_name="theirs"), [30.0], id="another cluster: each half minute"),
        pytest.param(card("m", 1, "copy"), [0.25, 2.25, 4.25, 6.25, 8.25], id="a twin: as long as it is there"),
    ],
)
def test_a_seed_is_called(who: Card | None, expected: list[float]) -> None:
    roster, peers = begun(), Peers(("s:1",), tried_s={"s:1": 0.0})
    if who is not None:
        roster, peers = answered(roster, peers, SEED, "s:1", Greeting(who), 0.0)
    if who is None or who.node_id == OWN.node_id:
        peers = replace(peers, tried_s={})
    assert times(roster, peers, 31.0 if expected == [30.0] else 9.0) == expected


def test_a_seed_that_is_a_member_is_called_as_one_until_it_is_dead() -> None:
    roster, peers = answered(begun(), Peers(("s:1",)), SEED, "s:1", Greeting(Z), 0.0)
    found, _, _ = called(roster, peers, 4.25)
    assert [(at_s, call.node_id) for at_s, call in found] == [
        (1.0, "z"),
        (2.0, "z"),
        (3.0, "z"),
        # Somebody else may be there now.
        (4.0, None),
    ]


# Where.


def test_who_answers_is_called_there_alone_and_after_a_failure_everywhere() -> None:
    many = replace(Z, addresses=("z:1", "z:2"))
    roster, call = hearing(many), Call(Z.node_id, ("z:1", "z:2"))
    roster, peers = answered(roster, Peers(), call, "z:2", Greeting(many), 0.0)
    [(_, narrow)], roster, peers = called(roster, peers, 1.0)
    assert narrow == Call(Z.node_id, ("z:2",))
    [(_, wide)], *_ = called(roster, failed(peers, narrow), 2.0)
    assert wide == call


def test_the_best_link_goes_before_the_address_that_answered() -> None:
    roster, peers = answered(hearing(Z), Peers(), Call(Z.node_id, ("z:1",)), "z:1", Greeting(Z), 0.0)
    roster = ticked(roster, 1.0)
    assert calls(roster, peers, {Z.node_id: "z:9"})[0] == (Call(Z.node_id, ("z:9",)),)


def test_an_address_that_another_node_answers_is_no_longer_the_way() -> None:
    at_z = Call(Z.node_id, ("z:7401",))
    roster, peers = answered(hearing(Z), Peers(), at_z, "z:7401", Greeting(Z), 0.0)
    roster, peers = answered(roster, peers, at_z, "z:7401", Greeting(A), 0.5)
    assert peers.answers_at == {A.node_id: "z:7401"}


# Seconds since z was heard -> where it is called, that others have seen at new:1 before.
LOOKED_FOR: dict[str, tuple[float, tuple[str, ...]]] = {
    "one that is heard: there may be its twin": (1.0, ("z:7401",)),
    "one that is silent": (3.0, ("z:7401", "new:1")),
    "one that is dead": (5.0, ("z:7401", "new:1")),
}


@pytest.mark.parametrize(("silent_s", "expected"), LOOKED_FOR.values(), ids=LOOKED_FOR.keys())
def test_a_member_is_looked_for_where_others_have_seen_it(silent_s: float, expected: tuple[str, ...]) -> None:
    peers = sighted(begun(), Peers(), [Lead(Z.node_id, ("new:1", "z:7401"))])
    assert calls(ticked(hearing(Z), silent_s), peers)[0] == (Call(Z.node_id, expected),)


def test_our_own_addresses_are_never_called() -> None:
    peers = sighted(begun(), Peers(), [Lead(A.node_id, ("m:7401", "a:1")), Lead(NodeId("b"), ("m:7401",))])
    assert calls(begun(), peers)[0] == (Call(A.node_id, ("a:1",)),)


def test_our_id_at_another_address_is_called_for_it_is_a_twin() -> None:
    peers = sighted(begun(), Peers(), [Lead(OWN.node_id, ("copy:1",))])
    assert calls(begun(), peers)[0] == (Call(OWN.node_id, ("copy:1",)),)
    assert sighted(begun(), Peers(), [Lead(OWN.node_id, OWN.addresses)]) == Peers()


# What is told.


def test_members_are_told_of_those_whom_we_hear_ourselves() -> None:
    dead, away = card("d"), card("l")
    roster = rosters.leave(ticked(hearing(A, Z, dead, away), 5.0, heard=[A, Z]), away.node_id, away.life, 5.0)
    greeting, _ = greet(roster, Peers(), Z)
    assert greeting.card == OWN
    assert {lead.node_id for lead in greeting.peers} == {"a", "z"}
    assert greeting.left == ((away.node_id, away.life),)


@pytest.mark.parametrize("to", [None, card("x", cluster_name="theirs")], ids=["nobody we know", "another cluster"])
def test_others_are_told_nothing(to: Card | None) -> None:
    assert greet(hearing(A, Z), Peers(), to)[0] == Greeting(OWN)


def test_what_was_told_is_told_again_after_five_heartbeats() -> None:
    roster = ticked(hearing(A, Z), 10.0, heard=[A, Z])
    whole, peers = greet(roster, Peers(), Z)
    assert greet(ticked(roster, 14.75, heard=[A, Z]), peers, Z)[0] == Greeting(OWN)
    assert greet(ticked(roster, 15.0, heard=[A, Z]), peers, Z)[0] == whole


def test_what_was_told_is_left_out_until_something_changes() -> None:
    roster = hearing(A, Z)
    whole, peers = greet(roster, Peers(), Z)
    assert whole.peers
    assert greet(roster, peers, Z)[0] == Greeting(OWN)
    assert greet(roster, peers, A)[0] == whole
    # It has restarted, or it is a twin.
    assert greet(roster, peers, card("z", 2))[0] == whole
    assert greet(rosters.hear(roster, card("b"), 0.0), peers, Z)[0].peers != whole.peers
    assert greet(roster, failed(peers, Call(Z.node_id, ())), Z)[0] == whole


def test_nobody_becomes_a_member_by_the_word_of_others() -> None:
    roster, peers = greeted(begun(), Peers(), Greeting(Z, (LEAD_A,)), 0.0)
    assert sorted(roster.members) == ["m", "z"]
    assert calls(rosters.tick(roster, 0.25), peers)[0] == (Call(A.node_id, A.addresses),)


def test_who_is_heard_needs_no_lead() -> None:
    _, peers = greeted(hearing(A), Peers(), Greeting(Z, (LEAD_A,)), 0.0)
    assert peers.leads == {}


# Who says that a has left, what a is here -> what it is then, and whether its next card brings it back. s is the
# scheduler node.
WORDS: dict[str, tuple[Card, MemberState, MemberState, bool]] = {
    "itself": (A, M.ALIVE, M.LEFT, False),
    "the scheduler node": (card("s"), M.ALIVE, M.LEFT, False),
    "the scheduler node, of one that is away": (card("s"), M.DEAD, M.LEFT, False),
    "another member": (Z, M.ALIVE, M.ALIVE, True),
    "another member, of one that is silent": (Z, M.SUSPECT, M.SUSPECT, True),
    "another member, of one that is away": (Z, M.DEAD, M.LEFT, True),
}


@pytest.mark.parametrize(("teller", "before", "after", "comes_back"), WORDS.values(), ids=WORDS.keys())
def test_a_farewell_is_taken(teller: Card, before: MemberState, after: MemberState, comes_back: bool) -> None:
    silent_s = {M.SUSPECT: 3.0, M.DEAD: 5.0}.get(before, 0.0)
    roster = ticked(hearing(A, teller), silent_s, heard=[teller])
    assert state(roster, "a") is before
    roster, _ = greeted(roster, Peers(), Greeting(teller, left=((A.node_id, A.life),)), silent_s)
    assert state(roster, "a") is after
    assert (state(rosters.hear(roster, A, silent_s), "a") is MemberState.ALIVE) is comes_back


@pytest.mark.parametrize("other", ["m", "s"], ids=["this node itself", "the scheduler node"])
def test_no_plain_member_throws_out(other: str) -> None:
    roster = hearing(card("s"), Z)
    life = roster.members[NodeId(other)].card.life
    for told in (life, card(other, 9).life):
        roster, _ = greeted(roster, Peers(), Greeting(Z, left=((NodeId(other), told),)), 0.5)
    assert state(roster, other) is MemberState.ALIVE
    if other == "m":
        roster, _ = greeted(roster, Peers(), Greeting(card("s"), left=((NodeId(other), life),)), 0.5)
        assert state(roster, other) is MemberState.LEFT


@pytest.mark.parametrize(("scheduler", "tells"), [("s", True), ("m", False)], ids=["a member", "the scheduler node"])
def test_hearsay_is_passed_on_by(scheduler: str, tells: bool) -> None:
    """The scheduler node's word counts as that of who left."""
    roster = rosters.start(OWN, (), 0.0, scheduler=NodeId(scheduler))
    roster = ticked(rosters.hear(rosters.hear(roster, A, 0.0), Z, 0.0), 5.0, heard=[Z])
    roster = rosters.leave(roster, A.node_id, A.life, 5.0, is_hearsay=True)
    assert bool(greet(roster, Peers(), Z)[0].left) is tells
    roster = rosters.leave(roster, A.node_id, A.life, 5.0)
    assert greet(roster, Peers(), Z)[0].left == ((A.node_id, A.life),)


def test_its_own_farewell_a_node_says_each_time() -> None:
    roster = rosters.leave(hearing(Z), OWN.node_id, OWN.life, 0.0)
    first, peers = greet(roster, Peers(), Z)
    again, _ = greet(roster, peers, Z)
    assert first.left == again.left == ((OWN.node_id, OWN.life),)


def test_who_was_taken_out_is_not_looked_for() -> None:
    roster = rosters.hear(hearing(A), card("s", departed=["a", "b"]), 0.0)
    assert sighted(roster, Peers(), [LEAD_A, Lead(NodeId("b"), ("b:1",))]).leads == {}


@pytest.mark.parametrize(
    "teller",
    [
        pytest.param(card("x", cluster_name="theirs"), id="another cluster's node"),
        pytest.param(card("z", 1), id="the former life of a member"),
        pytest.param(card("m", 9, "copy"), id="our own twin"),
    ],
)
def test_of_others_no_word_is_taken(teller: Card) -> None:
    roster = hearing(A, card("z", 2))
    told = Greeting(teller, (Lead(NodeId("b"), ("b:1",)),), ((A.node_id, A.life),))
    roster, peers = greeted(roster, Peers(), told, 0.5)
    assert state(roster, "a") is MemberState.ALIVE
    assert peers.leads == {}


def test_leads_are_bounded() -> None:
    many = [Lead(NodeId(f"n{number}"), (f"n{number}:1",)) for number in range(LEAD_COUNT_MAX + 9)]
    peers = sighted(begun(), Peers(), many)
    assert len(peers.leads) == LEAD_COUNT_MAX
    assert many[-1].node_id in peers.leads
