"""The states of a member as a table, the silences, and the clock that sleeps and leaps."""

import itertools

import pytest

from discovery.little_cards import card
from thunderline.cluster.members import MemberState
from thunderline.discovery.member_life import LIFE, Clock, Signal, Waits, is_farewell, look, silence
from thunderline.discovery.values import Member
from thunderline.v1 import discovery_pb2

S, G = MemberState, Signal

# Every state and signal, in the order of Signal: HEARD, REPLACED, BELIED, ECHO, QUIET, LOST, LEAVES.
TABLE: dict[MemberState, tuple[MemberState, ...]] = {
    S.ALIVE: (S.ALIVE, S.ALIVE, S.ALIVE, S.ALIVE, S.SUSPECT, S.DEAD, S.LEFT),
    S.SUSPECT: (S.ALIVE, S.ALIVE, S.SUSPECT, S.SUSPECT, S.SUSPECT, S.DEAD, S.LEFT),
    S.DEAD: (S.ALIVE, S.ALIVE, S.DEAD, S.DEAD, S.DEAD, S.DEAD, S.LEFT),
    S.LEFT: (S.LEFT, S.ALIVE, S.ALIVE, S.LEFT, S.LEFT, S.LEFT, S.LEFT),
}


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(S, G)))
def test_every_state_answers_every_signal(state: MemberState, signal: Signal) -> None:
    assert LIFE[state][signal] is TABLE[state][list(G).index(signal)]


def test_only_a_card_makes_alive() -> None:
    makes = {signal for state in S for signal in G if LIFE[state][signal] is S.ALIVE and state is not S.ALIVE}
    assert makes == {G.HEARD, G.REPLACED, G.BELIED}


def test_only_another_life_comes_back_from_left_and_who_never_said_so() -> None:
    assert {signal for signal in G if LIFE[S.LEFT][signal] is not S.LEFT} == {G.REPLACED, G.BELIED}


# Incarnation 2 is known. Who says that one has left (itself or the scheduler node, or anybody else), of which
# incarnation -> in which states it counts.
WORDS: dict[str, tuple[bool, int, set[MemberState]]] = {
    "its own, or the scheduler node's": (False, 2, {S.ALIVE, S.SUSPECT, S.DEAD}),
    "the same of a life that we never heard": (False, 3, {S.SUSPECT, S.DEAD, S.LEFT}),
    "the same of a former life": (False, 1, set()),
    "anybody else's": (True, 2, {S.DEAD}),
    "anybody else's of a life that we never heard": (True, 3, {S.DEAD}),
    "anybody else's of a former life": (True, 1, set()),
}


@pytest.mark.parametrize(("is_hearsay", "incarnation", "expected"), WORDS.values(), ids=WORDS.keys())
def test_whose_word_that_a_member_has_left_counts(
    is_hearsay: bool, incarnation: int, expected: set[MemberState]
) -> None:
    known, life = card("a", 2), card("a", incarnation).life
    assert {one for one in S if is_farewell(Member(known, one, 0.0), life, is_hearsay, False)} == expected


def test_hearsay_becomes_more_when_it_is_confirmed() -> None:
    known = Member(card("a"), S.LEFT, 0.0, is_hearsay=True)
    assert is_farewell(known, known.card.life, False, False)
    assert not is_farewell(known, known.card.life, True, False)


def test_a_node_itself_leaves_in_no_other_life_than_its_own() -> None:
    for one in S:
        assert not is_farewell(Member(card("m"), one, 0.0), card("m", 2).life, False, True)


def test_the_numbers_are_those_of_the_proto() -> None:
    named = {name.removeprefix("MEMBER_STATE_"): number for name, number in discovery_pb2.MemberState.items()}
    assert {state.name: state.value for state in S} == {name: one for name, one in named.items() if one}


WAITS = Waits()


@pytest.mark.parametrize(
    ("silent_s", "expected"),
    [(0.0, None), (1.99, None), (2.0, G.QUIET), (3.99, G.QUIET), (4.0, G.LOST), (1e6, G.LOST)],
)
def test_silences(silent_s: float, expected: Signal | None) -> None:
    assert silence(silent_s, WAITS) is expected


# Seconds that the clock moved, awake seconds counted, whether a heartbeat passes before anybody is judged, slept.
LOOKS: dict[str, tuple[float, float, bool, bool]] = {
    "no_time": (0.0, 0.0, False, False),
    "a_tick": (0.25, 0.25, False, False),
    "a_heartbeat_late_is_in_time": (1.25, 1.25, False, False),
    "more_is_late": (1.3, 1.25, True, False),
    "starved_but_not_for_a_dead_time": (3.9, 1.25, True, False),
    "slept_for_a_dead_time": (4.0, 1.25, True, True),
    "slept_for_a_night": (30_000.0, 1.25, True, True),
    "set_back": (-5.0, 0.0, True, False),
    "set_back_by_days": (-1e6, 0.0, True, False),
}


@pytest.mark.parametrize("case", LOOKS)
def test_looks(case: str) -> None:
    moved_s, counted_s, is_late, slept = LOOKS[case]
    clock, found = look(Clock(100.0, 50.0), 100.0 + moved_s, WAITS)
    assert (clock.read_s, clock.awake_s, found) == (100.0 + moved_s, 50.0 + counted_s, slept)
    assert clock.judges is not is_late
    assert clock.judges_s == (clock.awake_s + WAITS.heartbeat_s if is_late else 0.0)


def test_after_a_heartbeat_it_judges_again() -> None:
    clock, _ = look(Clock(0.0), 10.0, WAITS)
    for tick in range(1, 5):
        assert not clock.judges
        clock, _ = look(clock, 10.0 + tick * 0.25, WAITS)
    assert clock.judges


def test_waits_of_a_tenth_keep_their_proportions() -> None:
    """Tests of rare paths run so: a gap that means sleep is then a tenth too."""
    tenth = Waits(0.1, 0.2, 0.4)
    assert tenth.tick_s == pytest.approx(0.025)
    assert tenth.late_s == pytest.approx(0.125)
    assert look(Clock(0.0), 0.4, tenth)[1]
