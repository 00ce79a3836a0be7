"""How long a role that died stays dead."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.cluster.limits import DEFAULTS
from thunderline.supervisor.backoff import Backoff

FRESH = Backoff(wait_min_s=0.2, wait_max_s=10.0, reset_s=10.0)


def waits(*lives_s: float) -> list[float]:
    """The wait after each of these lives."""
    backoff, found = FRESH, []
    for lived_s in lives_s:
        wait_s, backoff = backoff.died(lived_s)
        found.append(wait_s)
    return found


# Seconds that the role lived each time; seconds that it then waits.
CASES: dict[str, tuple[list[float], list[float]]] = {
    "the first death costs the least wait": ([100], [0.2]),
    "a first death after a long life costs no more": ([1], [0.2]),
    "each death doubles the wait, up to the greatest": ([1] * 8, [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]),
    "a life of ten seconds starts over": ([1, 1, 1, 10, 1], [0.2, 0.4, 0.8, 0.2, 0.4]),
    "a life just below does not": ([1, 1, 1, 9.99], [0.2, 0.4, 0.8, 1.6]),
    "a role that never lives long stays at the greatest": (
        [0.0] * 7 + [9.0],
        [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0],
    ),
    "one long life among short ones is enough": ([0.0] * 9 + [3600.0, 0.0], [*waits(*[0] * 9), 0.2, 0.4]),
}


@pytest.mark.parametrize(("lives_s", "expected_s"), CASES.values(), ids=CASES.keys())
def test_waits(lives_s: list[float], expected_s: list[float]) -> None:
    assert waits(*lives_s) == pytest.approx(expected_s)


@given(st.lists(st.floats(0, 1e6), max_size=60))
def test_every_wait_is_within_its_bounds(lives_s: list[float]) -> None:
    assert all(0.2 <= wait_s <= 10.0 for wait_s in waits(*lives_s))


@given(st.lists(st.floats(0, 9.9), max_size=60))
def test_a_row_of_short_lives_never_shortens_the_wait(lives_s: list[float]) -> None:
    found = waits(*lives_s)
    assert all(after >= before for before, after in itertools.pairwise(found))


def test_a_role_that_died_ten_thousand_times_still_waits_the_greatest() -> None:
    assert waits(*[0] * 10_000)[-1] == 10.0


def test_the_state_before_a_death_is_left_as_it_was() -> None:
    FRESH.died(0)
    assert FRESH.died(0)[0] == 0.2


def test_the_limits_are_those_of_the_design() -> None:
    assert (DEFAULTS.restart_wait_min_s, DEFAULTS.restart_wait_max_s, DEFAULTS.restart_reset_s) == (0.2, 10, 10)
