import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.rank.prefill import (
    BUDGET_S,
    CHUNK_TOKENS_MAX,
    CHUNK_TOKENS_MIN,
    DECODE_SHARE_MAX,
    PROMPT_COUNT_MAX,
    Pace,
)


@pytest.mark.parametrize(
    ("pace", "prompts", "chunk"),
    [
        pytest.param(Pace(150, 0.0), 1, 90, id="one prompt alone gets the whole budget"),
        pytest.param(Pace(150, 0.1), 1, 75, id="decoding comes out of the budget"),
        pytest.param(Pace(150, 0.1), 2, 37, id="two prompts share it"),
        pytest.param(Pace(150, 0.1), 9, 37, id="a third prompt takes nothing, because two at most are processed"),
        pytest.param(Pace(100, 5.0), 1, 24, id="decoding that fills the budget leaves prompts a share"),
        pytest.param(Pace(1.0, 0.0), 1, CHUNK_TOKENS_MIN, id="a very slow machine still moves"),
        pytest.param(Pace(1e6, 0.0), 1, CHUNK_TOKENS_MAX, id="a fast machine is cut at the longest chunk"),
        pytest.param(Pace(150, 0.0), 0, CHUNK_TOKENS_MAX, id="with no prompt the size does not matter"),
    ],
)
def test_chunk(pace: Pace, prompts: int, chunk: int) -> None:
    assert pace.chunk_tokens(prompts) == chunk


@given(rate=st.floats(0.1, 1e6), decode_s=st.floats(0, 10), prompts=st.integers(1, 40))
def test_a_step_keeps_its_budget_if_the_smallest_chunk_does(rate: float, decode_s: float, prompts: int) -> None:
    chunk = Pace(rate, decode_s).chunk_tokens(prompts)
    assert CHUNK_TOKENS_MIN <= chunk <= CHUNK_TOKENS_MAX
    prefill_s = chunk * min(prompts, PROMPT_COUNT_MAX) / rate
    if chunk > CHUNK_TOKENS_MIN:
        assert min(decode_s, DECODE_SHARE_MAX * BUDGET_S) + prefill_s <= BUDGET_S * 1.0001


@pytest.mark.parametrize(
    ("tokens", "seconds", "rate"),
    [
        pytest.param(100, 1.0, 100.0, id="the same rate again changes nothing"),
        pytest.param(120, 1.0, 110.0, id="half way to a new measurement"),
        pytest.param(100_000, 1.0, 150.0, id="one absurdly fast step raises it by half at most"),
        pytest.param(8, 100.0, 60.0, id="one stalled step lowers it to six tenths at most"),
        pytest.param(7, 1.0, 100.0, id="a handful of tokens measures overhead, not the rate"),
        pytest.param(100, 0.0, 100.0, id="a clock that stood still says nothing"),
    ],
)
def test_measured_rate(tokens: int, seconds: float, rate: float) -> None:
    assert Pace(100.0).measured(tokens, seconds, 0.0).rate_tokens_per_s == pytest.approx(rate)


def test_decode_time_rises_at_once_and_falls_slowly() -> None:
    pace = Pace(100.0, decode_s=0.1)
    assert pace.measured(0, 0.0, 0.3).decode_s == 0.3
    assert pace.measured(0, 0.0, 0.01).decode_s == pytest.approx(0.09)


@given(true_rate=st.floats(5, 50_000))
def test_the_rate_is_found_from_any_start(true_rate: float) -> None:
    pace = Pace()
    for _ in range(60):
        tokens = pace.chunk_tokens(1)
        pace = pace.measured(tokens, tokens / true_rate, 0.0)
    assert pace.rate_tokens_per_s == pytest.approx(true_rate, rel=0.01)
