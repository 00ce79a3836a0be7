"""The life of a rank as a table, and how it is pushed to end."""

import itertools

import pytest

from thunderline.cluster.limits import DEFAULTS
from thunderline.cluster.ranks import NEXT, RankState
from thunderline.runner.rank_life import LIFE, SAYS, Push, Signal, allowed_s, push

S = RankState


def later(state: S) -> set[S]:
    """All that may follow, at once or after others: the news between may have been lost with a stream."""
    found, new = set[S](), {state}
    while new:
        found |= new
        new = {after for one in new for after in NEXT[one]} - found
    return found


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(S, Signal)))
def test_every_state_answers_every_signal_with_a_state_that_may_follow(state: S, signal: Signal) -> None:
    assert LIFE[state][signal] in later(state)


PHASES = (S.STARTING, S.PREPARED, S.CONNECTING, S.VERIFYING, S.LOADING, S.WARMING, S.READY)


@pytest.mark.parametrize(("before", "said"), list(itertools.product(PHASES, PHASES[1:])))
def test_what_a_rank_says_of_itself_counts_forward_over_any_number_of_phases(before: S, said: S) -> None:
    forward = PHASES.index(said) > PHASES.index(before)
    assert LIFE[before][SAYS[said]] is (said if forward else before)


@pytest.mark.parametrize("state", [state for state in S if state is not S.ABSENT])
def test_a_rank_without_a_process_is_absent(state: S) -> None:
    assert LIFE[state][Signal.GONE] is S.ABSENT


@pytest.mark.parametrize("signal", Signal)
def test_nothing_brings_an_absent_rank_back(signal: Signal) -> None:
    assert LIFE[S.ABSENT][signal] is S.ABSENT


def test_one_rank_alone_goes_from_prepared_to_loading() -> None:
    state = S.STARTING
    for said in (S.PREPARED, S.LOADING, S.WARMING, S.READY):
        state = LIFE[state][SAYS[said]]
        assert state is said


STORIES: dict[str, tuple[S, Signal, S]] = {
    "a_late_echo_of_loading_does_not_take_ready_back": (S.READY, Signal.SAYS_LOADING, S.READY),
    "a_prepared_rank_waits_without_a_deadline": (S.PREPARED, Signal.DEADLINE, S.PREPARED),
    "a_load_that_stalls_fails": (S.LOADING, Signal.DEADLINE, S.FAILED),
    "a_ready_rank_that_makes_no_step_fails": (S.READY, Signal.HUNG, S.FAILED),
    "a_stopping_rank_that_hangs_is_stopping": (S.STOPPING, Signal.HUNG, S.STOPPING),
    "a_failed_rank_that_is_told_to_end_stops": (S.FAILED, Signal.TOLD_TO_END, S.STOPPING),
    "a_stopping_rank_that_says_it_failed_is_still_stopping": (S.STOPPING, Signal.SAYS_FAILED, S.STOPPING),
    "a_stopping_rank_that_says_ready_is_still_stopping": (S.STOPPING, Signal.SAYS_READY, S.STOPPING),
}


@pytest.mark.parametrize("story", STORIES)
def test_signals(story: str) -> None:
    before, signal, after = STORIES[story]
    assert LIFE[before][signal] is after


def test_only_the_phases_with_an_end_of_their_own_have_a_deadline() -> None:
    limited = {state for state in S if allowed_s(state, DEFAULTS) is not None}
    assert limited == {S.STARTING, S.LOADING, S.WARMING}


# state, seconds in it, seconds since SIGTERM, our verdict -> push; the grace is 5 s.
PUSHES: dict[str, tuple[S, float, float | None, bool, Push]] = {
    "a_ready_rank_is_left_alone": (S.READY, 1000, None, False, Push.NONE),
    "a_stopping_rank_is_terminated_at_once": (S.STOPPING, 0, None, False, Push.TERMINATE),
    "a_terminated_rank_gets_the_grace": (S.STOPPING, 4, 4, False, Push.NONE),
    "after_the_grace_it_is_killed": (S.STOPPING, 5, 5, False, Push.KILL),
    "a_rank_that_said_it_failed_may_say_its_last_words": (S.FAILED, 4, None, False, Push.NONE),
    "and_is_terminated_after_the_grace": (S.FAILED, 5, None, False, Push.TERMINATE),
    "a_rank_that_we_failed_is_terminated_at_once": (S.FAILED, 0, None, True, Push.TERMINATE),
}


@pytest.mark.parametrize("case", PUSHES)
def test_pushes(case: str) -> None:
    state, in_state_s, terminated_s, unheard, expected = PUSHES[case]
    assert push(state, in_state_s, terminated_s, unheard, grace_s=5) is expected


@pytest.mark.parametrize(("state", "pushed"), [(S.FAILED, Push.KILL), (S.STOPPING, Push.KILL), (S.READY, Push.NONE)])
def test_a_rank_that_hangs_would_not_hear_sigterm(state: S, pushed: Push) -> None:
    assert push(state, 0, None, True, 5, hung=True) is pushed
