from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.rank.admission import fits, padded_tokens


@pytest.mark.parametrize(
    ("running", "tokens", "held", "expected"),
    [
        pytest.param([], 1000, 0, True, id="one that fills the budget exactly"),
        pytest.param([], 1001, 0, False, id="one token too many"),
        pytest.param([500], 500, 0, True, id="two of the same length"),
        pytest.param([501], 400, 0, False, id="a short one is padded to the long one's length"),
        pytest.param([10] * 9, 200, 0, False, id="and short ones that run are padded to a long newcomer's"),
        pytest.param([100] * 9, 100, 0, True, id="ten of the same length"),
        pytest.param([100], 100, 801, False, id="what is parked takes its room"),
    ],
)
def test_fits(running: Sequence[int], tokens: int, held: int, expected: bool) -> None:
    assert fits(running, tokens, held, budget_tokens=1000) is expected


@given(st.lists(st.integers(1, 1200), max_size=32), st.integers(1, 1200), st.integers(0, 1000))
def test_never_more_than_the_budget(running: list[int], tokens: int, held: int) -> None:
    if fits(running, tokens, held, budget_tokens=1000):
        assert padded_tokens([*running, tokens]) + held <= 1000
        assert sum(running) + tokens <= 1000


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30))
def test_each_that_fits_the_budget_at_all_gets_its_turn(waiting: list[int]) -> None:
    assert all(fits([], tokens, 0, budget_tokens=1000) for tokens in waiting)
