"""The roster: stories of silence, restarts, twins, strangers, sleep, and what a watch gets."""

import itertools
import random
from dataclasses import replace

import pytest

from discovery.little_cards import OWN, begun, card, state, states, ticked
from thunderline.cluster import NodeId
from thunderline.cluster.members import MemberState
from thunderline.discovery import roster as rosters
from thunderline.discovery.roster import LEFT_KEPT_S, STRANGER_COUNT_MAX, STRANGER_KEPT_S, VERSIONS_PER_START, Roster
from thunderline.discovery.values import Card, Life, Stranger

S = MemberState
A, B = card("a"), card("b")


def heard(*cards: Card, at_s: float = 0.0, roster: Roster | None = None) -> Roster:
    roster = roster or begun()
    for one in cards:
        roster = rosters.hear(roster, one, at_s)
    return roster


# Silence.


@pytest.mark.parametrize(
    ("silent_s", "expected"), [(1.75, S.ALIVE), (2.0, S.SUSPECT), (3.75, S.SUSPECT), (4.0, S.DEAD), (60.0, S.DEAD)]
)
def test_a_silent_member_is(silent_s: float, expected: MemberState) -> None:
    assert state(ticked(heard(A), silent_s), "a") is expected


def test_a_member_that_is_heard_stays_alive_and_the_node_itself_needs_nobody() -> None:
    roster = ticked(heard(A), 60.0, heard=[A])
    assert states(roster) == {"a": "ALIVE"}
    assert state(roster, "m") is S.ALIVE


def test_a_dead_member_comes_back_with_its_next_card() -> None:
    roster = rosters.hear(ticked(heard(A), 10.0), A, 10.1)
    member = roster.members[A.node_id]
    assert (member.state, member.since_s) == (S.ALIVE, 10.1)


# Lives.


def test_a_restarted_node_replaces_its_former_self_at_once() -> None:
    roster = heard(A, card("a", 2))
    assert [member.card.life.incarnation for member in roster.members.values()] == [1, 2]
    assert states(roster) == {"a": "ALIVE"}


@pytest.mark.parametrize("before", [S.ALIVE, S.SUSPECT, S.DEAD, S.LEFT], ids=lambda one: one.name)
def test_a_newer_life_is_alive_whatever_the_former_one_was(before: MemberState) -> None:
    roster = ticked(heard(A), {S.SUSPECT: 3.0, S.DEAD: 5.0}.get(before, 0.0))
    if before is S.LEFT:
        roster = rosters.leave(roster, A.node_id, A.life, 0.0)
    assert state(roster, "a") is before
    after = rosters.hear(roster, card("a", 2), roster.clock.read_s)
    assert (state(after, "a"), after.members[A.node_id].card.life.incarnation) == (S.ALIVE, 2)


def test_a_late_card_of_the_former_life_changes_nothing() -> None:
    roster = heard(card("a", 2))
    after = heard(A, at_s=1.0, roster=roster)
    assert after.members == roster.members
    assert after.version == roster.version
    assert not rosters.twins(ticked(after, 3.0, heard=[card("a", 2)]))


def test_a_late_card_does_not_keep_a_dead_node_alive() -> None:
    assert state(ticked(heard(card("a", 2)), 4.0, heard=[A]), "a") is S.DEAD


def test_cards_of_one_life_may_pass_each_other() -> None:
    newer = card("a", revision=2)
    assert heard(newer, card("a", revision=1)).members[A.node_id].card == newer
    assert heard(card("a", revision=1), newer).members[A.node_id].card == newer


def test_a_node_that_lost_its_count_is_believed_when_its_former_self_is_dead() -> None:
    roster = ticked(heard(card("a", 57)), 3.75, heard=[A])
    assert roster.members[A.node_id].card.life.incarnation == 57
    roster = ticked(roster, 5.0, heard=[A])
    assert (state(roster, "a"), roster.members[A.node_id].card.life.incarnation) == (S.ALIVE, 1)
    assert not rosters.twins(roster)


def test_of_a_node_that_left_and_lost_its_count_the_same_holds() -> None:
    roster = rosters.leave(heard(card("a", 57)), A.node_id, card("a", 57).life, 0.0)
    roster = ticked(roster, 5.0, heard=[A])
    assert (state(roster, "a"), roster.members[A.node_id].card.life.incarnation) == (S.ALIVE, 1)
    # Those who have not heard it yet still tell of the life that left.
    told = rosters.leave(roster, A.node_id, card("a", 57).life, 5.0)
    assert state(told, "a") is S.ALIVE


# Twins.


@pytest.mark.parametrize(
    ("first", "second", "after_s"),
    [
        pytest.param(card("a", 3, "x"), card("a", 3, "y"), 0.5, id="one incarnation: at once"),
        pytest.param(card("a", 3, "y"), card("a", 3, "x"), 0.5, id="in whatever order"),
        pytest.param(card("a", 3), card("a", 5), 4.5, id="an older one, when no card of it can still be on its way"),
        pytest.param(card("a", 5), card("a", 3), 4.5, id="also when the older one is heard second"),
    ],
)
def test_two_that_live_with_one_id_are_reported_and_not_merged(first: Card, second: Card, after_s: float) -> None:
    roster = ticked(begun(), after_s + 0.25, heard=[first, second])
    (twin,) = rosters.twins(roster)
    assert {twin.shown, twin.other} == {first, second}
    assert twin.shown == max(first, second, key=lambda one: one.life)
    assert roster.members[first.node_id].card == twin.shown
    assert rosters.view(roster).twins == (twin,)


def test_a_twin_that_goes_is_no_longer_reported() -> None:
    x, y = card("a", 3, "x"), card("a", 3, "y")
    both = ticked(begun(), 2.0, heard=[x, y])
    assert rosters.twins(both)
    for one in (x, y):
        alone = ticked(both, 7.0, heard=[one])
        assert not rosters.twins(alone)
        assert (state(alone, "a"), alone.members[x.node_id].card) == (S.ALIVE, one)


@pytest.mark.parametrize("incarnation", [1, 2, 9])
def test_our_own_twin_never_takes_our_place(incarnation: int) -> None:
    twin = card("m", incarnation, "copy")
    roster = ticked(begun(), 6.0, heard=[twin])
    assert roster.own == OWN
    assert [(one.shown, one.other) for one in rosters.twins(roster)] == [(OWN, twin)]


def test_our_own_card_that_comes_back_to_us_is_nobody() -> None:
    roster = ticked(begun(), 6.0, heard=[OWN])
    assert (list(roster.members), rosters.twins(roster)) == (["m"], ())


def test_a_late_card_of_our_former_self_is_no_twin() -> None:
    roster = rosters.start(card("m", 2), (), 0.0)
    assert not rosters.twins(ticked(ticked(roster, 2.0, heard=[OWN]), 4.0))


# Farewells.


def test_who_left_stays_so_whatever_of_it_is_still_on_its_way() -> None:
    roster = rosters.leave(heard(A), A.node_id, A.life, 1.0)
    assert state(ticked(roster, 10.0, heard=[A]), "a") is S.LEFT


# State before, the life that is told of -> state after. Life 2 is known.
FAREWELLS: dict[str, tuple[S, int, S]] = {
    "its_own": (S.ALIVE, 2, S.LEFT),
    "of_an_older_life": (S.ALIVE, 1, S.ALIVE),
    "of_a_newer_life_while_it_is_heard": (S.ALIVE, 3, S.ALIVE),
    "of_a_newer_life_that_we_never_heard": (S.DEAD, 3, S.LEFT),
    "of_an_older_life_that_is_dead": (S.DEAD, 1, S.DEAD),
}


@pytest.mark.parametrize("case", FAREWELLS)
def test_a_farewell_is_taken(case: str) -> None:
    before, incarnation, after = FAREWELLS[case]
    roster = ticked(heard(card("a", 2)), 5.0 if before is S.DEAD else 0.0)
    assert state(roster, "a") is before
    life = card("a", incarnation).life
    told = rosters.leave(roster, A.node_id, life, 5.0)
    assert state(told, "a") is after
    # A late card of the life that left brings nothing back.
    again = rosters.hear(told, card("a", incarnation), 5.5)
    assert state(again, "a") is (S.ALIVE if after is S.ALIVE else after)


def test_whom_only_others_say_to_have_left_is_back_with_its_next_card() -> None:
    newest = card("a", revision=3)
    roster = rosters.leave(ticked(heard(newest), 5.0), A.node_id, card("a", 9).life, 5.0, is_hearsay=True)
    assert states(roster) == {"a": "LEFT"}
    assert rosters.to_remember(roster) == ()
    # Be it one that was late: what it says is older.
    again = rosters.hear(roster, A, 5.5)
    member = again.members[A.node_id]
    assert (member.state, member.card, member.is_hearsay, member.since_s) == (S.ALIVE, newest, False, 5.5)
    assert again.version > roster.version


def test_hearsay_that_is_confirmed_is_none_any_more() -> None:
    roster = rosters.leave(ticked(heard(A), 5.0), A.node_id, A.life, 5.0, is_hearsay=True)
    roster = rosters.leave(roster, A.node_id, A.life, 6.0)
    assert state(rosters.hear(roster, A, 6.5), "a") is S.LEFT


def test_a_farewell_of_nobody_is_nothing() -> None:
    assert rosters.leave(begun(), A.node_id, A.life, 0.0) == begun()


def test_who_left_is_forgotten_after_a_day_in_which_it_was_told_again() -> None:
    roster = rosters.leave(heard(A), A.node_id, A.life, 0.0)
    aged = replace(roster, clock=replace(roster.clock, awake_s=LEFT_KEPT_S - 0.3))
    aged = rosters.leave(aged, A.node_id, A.life, 0.0)
    assert "a" in rosters.tick(aged, 0.25).members
    assert "a" not in rosters.tick(aged, 0.5).members


# Who was taken out: s is the scheduler node, and says so on its card.

TAKEN = card("s", revision=1, departed=["a", "b"])


@pytest.mark.parametrize("before", [S.ALIVE, S.SUSPECT, S.DEAD, S.LEFT], ids=lambda one: one.name)
def test_who_was_taken_out_has_left_whatever_it_was_and_comes_back_in_no_life(before: MemberState) -> None:
    seconds = {S.SUSPECT: 3.0, S.DEAD: 5.0}.get(before, 0.0)
    roster = ticked(heard(card("s"), A), seconds, heard=[card("s")])
    if before is S.LEFT:
        roster = rosters.leave(roster, A.node_id, A.life, 0.0)
    assert state(roster, "a") is before
    roster = rosters.hear(roster, TAKEN, seconds)
    assert states(roster) == {"s": "ALIVE", "a": "LEFT"}
    for life in (A, card("a", 2), card("a", 9, "copy")):
        later = ticked(roster, seconds + 6.0, heard=[TAKEN, life])
        assert states(later) == {"s": "ALIVE", "a": "LEFT"}
        # The life that left may hear so; any other is told why it is not heard.
        assert rosters.is_out(later, life) is (life is not A)


def test_who_was_never_heard_is_not_heard_once_it_was_taken_out() -> None:
    roster = heard(TAKEN, B)
    assert states(roster) == {"s": "ALIVE"}
    assert rosters.is_out(roster, B)
    assert not rosters.is_out(roster, card("c"))


def test_who_was_let_in_again_is_a_member_with_its_next_card() -> None:
    roster = heard(A, TAKEN)
    later = rosters.hear(roster, card("s", revision=2, departed=["b"]), 1.0)
    again = rosters.hear(later, card("a", 2), 1.5)
    assert states(again) == {"s": "ALIVE", "a": "ALIVE"}
    # Of the life that left cards may still be on their way.
    assert state(rosters.hear(later, A, 1.5), "a") is S.LEFT


def test_only_the_scheduler_nodes_card_takes_anybody_out() -> None:
    assert states(heard(A, card("z", departed=["a"]))) == {"a": "ALIVE", "z": "ALIVE"}


def test_a_node_never_takes_itself_out() -> None:
    roster = heard(card("s", departed=["m"]))
    assert state(roster, "m") is S.ALIVE
    assert not rosters.is_out(roster, OWN)


def test_the_scheduler_nodes_own_card_takes_out_there_too() -> None:
    roster = heard(A, roster=begun(scheduler="m"))
    roster = rosters.renew(roster, replace(OWN, revision=1, departed=frozenset({A.node_id})), 1.0)
    assert states(roster) == {"a": "LEFT"}


def test_a_restart_does_not_bring_back_who_was_taken_out() -> None:
    roster = begun(TAKEN, A, card("c"))
    assert states(roster) == {"s": "SUSPECT", "a": "LEFT", "c": "SUSPECT"}
    assert states(rosters.hear(roster, card("a", 2), 0.5))["a"] == "LEFT"


def test_hearsay_becomes_more_when_the_scheduler_node_says_so_too() -> None:
    roster = rosters.leave(ticked(heard(A), 5.0), A.node_id, A.life, 5.0, is_hearsay=True)
    roster = rosters.hear(roster, TAKEN, 5.5)
    assert state(rosters.hear(roster, A, 6.0), "a") is S.LEFT


# Other clusters.


def test_another_clusters_node_is_shown_and_never_joined() -> None:
    stranger = card("z", cluster_name="theirs")
    roster = heard(stranger)
    assert list(roster.members) == ["m"]
    assert rosters.view(roster).strangers == (Stranger(stranger.node_id, "theirs", "z.local", ("z:7401",)),)


def test_a_member_that_is_heard_under_another_name_is_dead_here() -> None:
    roster = ticked(heard(A), 5.0, heard=[card("a", 2, cluster_name="theirs")])
    assert states(roster) == {"a": "DEAD"}
    assert [one.cluster_name for one in roster.strangers.values()] == ["theirs"]


def test_a_stranger_is_forgotten_after_a_while() -> None:
    roster = rosters.notice(begun(), Stranger(NodeId("z"), "theirs"), 0.0)
    assert ticked(roster, STRANGER_KEPT_S - 0.25).strangers
    assert not ticked(roster, STRANGER_KEPT_S).strangers


def test_of_many_strangers_the_last_are_kept() -> None:
    roster = begun()
    for number in range(STRANGER_COUNT_MAX + 5):
        roster = rosters.notice(roster, Stranger(NodeId(f"z{number}"), "theirs"), 0.0)
    assert len(roster.strangers) == len(roster.strangers_heard_s) == STRANGER_COUNT_MAX
    assert (NodeId("z68"), "theirs") in roster.strangers


# Sleep, and clocks that leap.


@pytest.mark.parametrize("moved_s", [2.0, 3.9, 4.0, 60.0, 30_000.0, -5.0, -1e6])
def test_nobody_is_declared_dead_by_a_sleep_or_a_leap(moved_s: float) -> None:
    roster = ticked(heard(A, B), 3.0, heard=[A, B])
    woken = 3.0 + moved_s
    roster = rosters.tick(roster, woken)
    assert states(roster) == {"a": "ALIVE", "b": "ALIVE"}
    # A second later one was heard and the other not.
    roster = rosters.hear(ticked(roster, woken + 0.75), A, woken + 0.9)
    assert states(roster) == {"a": "ALIVE", "b": "ALIVE"}
    assert states(ticked(roster, woken + 6.0, heard=[A])) == {"a": "ALIVE", "b": "DEAD"}


def test_who_was_silent_before_a_short_starvation_gets_a_heartbeat() -> None:
    roster = rosters.tick(ticked(heard(A), 3.5), 6.0)
    assert state(roster, "a") is S.SUSPECT
    assert state(ticked(roster, 6.75), "a") is S.SUSPECT
    assert state(ticked(roster, 7.0), "a") is S.DEAD


def test_after_a_sleep_it_is_complete_when_everybody_had_a_dead_time_to_be_heard() -> None:
    roster = ticked(heard(A), 5.0, heard=[A])
    assert roster.complete
    roster = rosters.tick(roster, 65.0)
    assert (roster.complete, state(roster, "a")) == (False, S.ALIVE)
    assert not ticked(roster, 68.75).complete
    later = ticked(roster, 69.0)
    assert (later.complete, state(later, "a")) == (True, S.DEAD)


def test_a_card_that_is_read_before_the_first_tick_after_a_sleep_counts() -> None:
    roster = rosters.hear(ticked(heard(A), 3.5), A, 100.0)
    assert (state(roster, "a"), roster.complete) == (S.ALIVE, False)
    assert roster.version > heard(A).version


def test_a_watcher_that_is_starved_again_and_again_judges_all_the_same() -> None:
    roster = heard(A)
    now_s = 0.0
    for _ in range(6):
        now_s += 2.5
        roster = ticked(rosters.tick(roster, now_s), now_s + 1.5)
        now_s += 1.5
    assert state(roster, "a") is S.DEAD


# Completeness and memory.


def test_it_is_complete_one_dead_time_after_its_start() -> None:
    assert not ticked(begun(), 3.75).complete
    assert ticked(begun(), 4.0).complete


def test_a_node_that_cannot_have_peers_is_complete_at_once() -> None:
    assert begun(alone=True).complete
    assert rosters.tick(begun(alone=True), 3_600.0).complete


def test_who_is_remembered_has_a_dead_time_to_be_heard() -> None:
    roster = begun(A, B)
    assert states(roster) == {"a": "SUSPECT", "b": "SUSPECT"}
    roster = ticked(roster, 3.75, heard=[A])
    assert (states(roster), roster.complete) == ({"a": "ALIVE", "b": "SUSPECT"}, False)
    roster = ticked(roster, 4.0, heard=[A])
    assert (states(roster), roster.complete) == ({"a": "ALIVE", "b": "DEAD"}, True)


def test_members_are_remembered_until_they_leave() -> None:
    roster = ticked(heard(A, B, card("c"), card("z", cluster_name="theirs")), 5.0, heard=[A, card("c")])
    roster = rosters.leave(roster, NodeId("c"), card("c").life, 5.0)
    assert rosters.to_remember(roster) == (A, B)


def test_of_a_former_cluster_nobody_is_remembered() -> None:
    assert list(begun(card("a", cluster_name="former")).members) == ["m"]


# Versions, and what a watch gets.


def test_versions_grow_with_what_is_shown_and_with_nothing_else() -> None:
    roster = heard(A)
    assert heard(A, roster=roster, at_s=0.5).version == roster.version
    assert rosters.tick(roster, 0.5).version == roster.version
    changes = {
        "a new member": heard(B, roster=roster),
        "a restart": heard(card("a", 2), roster=roster),
        "a changed card": heard(card("a", revision=1), roster=roster),
        "our own card": rosters.renew(roster, replace(OWN, revision=1), 0.0),
        "a silence": ticked(roster, 2.0),
        "completeness": ticked(roster, 4.0, heard=[A]),
        "a farewell": rosters.leave(roster, A.node_id, A.life, 0.0),
        "a stranger": rosters.notice(roster, Stranger(NodeId("z"), "theirs"), 0.0),
        "a twin": ticked(roster, 0.5, heard=[card("a", 1, "copy"), A]),
    }
    assert [name for name, after in changes.items() if after.version <= roster.version] == []


def test_versions_grow_over_restarts() -> None:
    old = ticked(heard(A, B), 60.0)
    new = rosters.start(card("m", 2), (), 0.0)
    assert old.version < new.version < 3 * VERSIONS_PER_START
    # int64 on the wire.
    assert rosters.start(card("m", 2**31 - 1), (), 0.0).version < 2**63


def test_a_watch_gets_the_whole_roster_first_whatever_it_is() -> None:
    first = rosters.to_send(None, begun(A))
    assert first is not None
    assert ([one.card.node_id for one in first.members], first.complete) == (["a", "m"], False)


def test_then_the_newest_whole_after_every_change_and_nothing_between() -> None:
    roster = heard(A)
    assert rosters.to_send(roster.version, roster) is None
    assert rosters.to_send(roster.version, heard(A, roster=roster, at_s=0.5)) is None
    # Two changes: the watcher is slow and gets what they came to.
    later = heard(B, card("a", 2), roster=roster)
    sent = rosters.to_send(roster.version, later)
    assert sent == rosters.view(later)
    assert sent is not None and sent.version == later.version


def test_the_order_in_which_cards_are_heard_does_not_matter() -> None:
    cards = [A, card("a", 2), card("a", 2, "copy"), B, card("b", revision=1)]
    views = set()
    for order in itertools.permutations(cards):
        shown = rosters.view(heard(*order))
        views.add(tuple((member.card, member.state) for member in shown.members))
    assert len(views) == 1


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_heard_an_id_has_one_member_and_lives_are_one_of_those_heard(seed: int) -> None:
    chance = random.Random(seed)
    roster, said = begun(), {OWN.life}
    now_s = 0.0
    for _ in range(200):
        now_s += chance.choice((0.1, 0.25, 1.0, 5.0, -1.0))
        one = card(chance.choice("abm"), chance.randint(1, 3), chance.choice(("", "x", "y")))
        before = roster.version
        if chance.random() < 0.7:
            roster = rosters.hear(roster, one, now_s)
            said.add(one.life)
        elif chance.random() < 0.5:
            roster = rosters.leave(roster, one.node_id, one.life, now_s)
            said.add(one.life)
        roster = rosters.tick(roster, now_s)
        assert roster.version >= before
        assert all(one == member.card.node_id for one, member in roster.members.items())
        assert {member.card.life for member in roster.members.values()} <= said
        assert roster.own == OWN
        assert len(roster.heard_s) == len(roster.members)


def test_a_life_is_newer_by_its_incarnation_first() -> None:
    assert Life(2, "a") > Life(1, "z")
    assert Life(1, "z") > Life(1, "a")
