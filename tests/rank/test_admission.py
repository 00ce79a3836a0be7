from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.rank.admission import SEQUENCE_COUNT_MAX, admitted_count


@pytest.mark.parametrize(
    ("waiting", "running_tokens", "running_count", "admitted"),
    [
        pytest.param([], 0, 0, 0, id="nobody waits"),
        pytest.param([400, 600], 0, 0, 2, id="two that fill the budget exactly"),
        pytest.param([400, 601], 0, 0, 1, id="the second would be one token too many"),
        pytest.param([900], 200, 1, 0, id="no room beside those who run"),
        pytest.param([900, 10, 10], 200, 1, 0, id="short ones do not overtake a long one"),
        pytest.param([1, 1, 1], 0, SEQUENCE_COUNT_MAX - 1, 1, id="the batch has one place left"),
        pytest.param([1], 0, SEQUENCE_COUNT_MAX, 0, id="the batch is full"),
    ],
)
def test_admitted(waiting: Sequence[int], running_tokens: int, running_count: int, admitted: int) -> None:
    assert admitted_count(waiting, running_tokens, running_count, budget_tokens=1000) == admitted


@given(waiting=st.lists(st.integers(1, 1200), max_size=60), running=st.integers(0, 1000), count=st.integers(0, 32))
def test_as_many_as_fit_and_not_one_more(waiting: list[int], running: int, count: int) -> None:
    admitted = admitted_count(waiting, running, count, budget_tokens=1000)
    assert running + sum(waiting[:admitted]) <= 1000
    assert count + admitted <= max(count, SEQUENCE_COUNT_MAX)
    if admitted < len(waiting) and count + admitted < SEQUENCE_COUNT_MAX:
        assert running + sum(waiting[: admitted + 1]) > 1000


@given(waiting=st.lists(st.integers(1, 1000), min_size=1, max_size=30))
def test_everybody_is_admitted_in_order_as_others_end(waiting: list[int]) -> None:
    left, order = list(enumerate(waiting)), []
    while left:
        # All who ran have ended.
        admitted = admitted_count([tokens for _, tokens in left], 0, 0, budget_tokens=1000)
        assert admitted > 0
        order += [number for number, _ in left[:admitted]]
        left = left[admitted:]
    assert order == list(range(len(waiting)))
