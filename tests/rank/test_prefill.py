import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.rank.prefill import (
    BUDGET_ALONE_S,
    BUDGET_S,
    BUDGET_TO_END_S,
    CHUNK_TOKENS_MAX,
    CHUNK_TOKENS_MIN,
    DECODE_SHARE_MAX,
    PROMPT_COUNT_MAX,
    Pace,
    Plan,
)

# At 150 tokens/s and nobody decoding there is room for 120 tokens, at 0.1 s of decoding for 75.
SLOW, BUSY = Pace(150, 0.0), Pace(150, 0.1)
LONG = 1000


@pytest.mark.parametrize(
    ("pace", "begun", "waiting", "decoding", "count_max", "plan"),
    [
        pytest.param(SLOW, [], [], False, 8, Plan((), 120), id="with no prompt there is nothing to take"),
        pytest.param(SLOW, [], [LONG], False, 8, Plan((0,), 120), id="a prompt alone gets the whole budget"),
        pytest.param(BUSY, [], [LONG], True, 8, Plan((0,), 75), id="decoding comes out of a smaller budget"),
        pytest.param(BUSY, [], [LONG], False, 8, Plan((0,), 120), id="decoding that is over does not"),
        pytest.param(BUSY, [], [LONG] * 8, True, 8, Plan((0,), 75), id="a second long prompt waits"),
        pytest.param(BUSY, [LONG - 1], [LONG], True, 8, Plan((), 75), id="also when the first has begun"),
        pytest.param(BUSY, [LONG], [LONG - 1], True, 8, Plan((0,), 37), id="one that will end first shares"),
        pytest.param(BUSY, [], [LONG, 200], True, 8, Plan((0, 1), 37), id="also when both begin"),
        pytest.param(BUSY, [LONG, 200], [100], True, 8, Plan((), 37), id="a third never"),
        pytest.param(BUSY, [LONG], [LONG, LONG, 9], True, 8, Plan((2,), 37), id="a short one passes a long one"),
        pytest.param(
            SLOW, [], [50] * 9, False, 8, Plan(tuple(range(8)), 15), id="short ones go together, eight at most"
        ),
        pytest.param(Pace(1000), [], [260, 260, 260], False, 8, Plan((0, 1, 2), 260), id="short is what a share holds"),
        pytest.param(Pace(1000), [], [301] * 6, False, 8, Plan((0, 1, 2), 266), id="and one that no share holds"),
        pytest.param(
            Pace(30), [], [50] * 8, False, 8, Plan((0, 1, 2), 8), id="not more than the smallest chunk allows"
        ),
        pytest.param(SLOW, [], [50] * 8, False, 1, Plan((0,), 50), id="one at a time where the audit says so"),
        pytest.param(SLOW, [50], [50], False, 1, Plan((), 50), id="and no second beside it"),
        pytest.param(SLOW, [LONG, LONG], [0], False, 8, Plan((0,), 40), id="a prompt that was found whole is short"),
        pytest.param(Pace(100, 5.0), [], [LONG], True, 8, Plan((0,), 24), id="decoding that fills it leaves a share"),
        pytest.param(Pace(1.0), [], [LONG, 9], False, 8, Plan((0,), CHUNK_TOKENS_MIN), id="a very slow machine moves"),
        pytest.param(BUSY, [20, 14, 20], [20, 20, 20], True, 8, Plan((0, 1, 2), 20), id="a little more ends them all"),
        pytest.param(BUSY, [20, 14, 21], [20, 20, 20], True, 8, Plan((0, 1, 2), 12), id="too much more does not"),
        pytest.param(BUSY, [66, 1, 1], [], True, 8, Plan((), 25), id="for one that is longest the others are padded"),
        pytest.param(
            Pace(1e6), [], [LONG], False, 8, Plan((0,), CHUNK_TOKENS_MAX), id="a fast one is cut at the longest"
        ),
    ],
)
def test_plan(pace: Pace, begun: list[int], waiting: list[int], decoding: bool, count_max: int, plan: Plan) -> None:
    assert pace.plan(begun, waiting, decoding, count_max) == plan


def test_short_ones_that_come_all_the_time_do_not_keep_a_long_one_from_beginning() -> None:
    pace, begun, waiting, begins = Pace(400), [LONG, LONG - 1], [LONG], False
    for _ in range(100):
        waiting += [50, 50, 50]
        plan = pace.plan(begun, waiting, False, 8)
        begins = begins or (waiting[0] == LONG and 0 in plan.taken)
        begun = [
            left for tokens in [*begun, *(waiting[i] for i in plan.taken)] if (left := tokens - plan.chunk_tokens) > 0
        ]
        waiting = [tokens for i, tokens in enumerate(waiting) if i not in plan.taken]
    assert begins


@given(
    # Mostly such that neither the smallest chunk nor the largest decides.
    rate=st.floats(20, 2000) | st.floats(20, 2000) | st.floats(0.1, 1e6),
    decode_s=st.floats(0, 0.5) | st.floats(0, 10),
    begun=st.lists(st.integers(1, 2000), max_size=PROMPT_COUNT_MAX),
    waiting=st.lists(st.integers(0, 2000), max_size=40),
    decoding=st.booleans(),
    count_max=st.integers(1, 40),
)
def test_a_step_keeps_its_budget_if_the_smallest_chunk_does(
    rate: float, decode_s: float, begun: list[int], waiting: list[int], decoding: bool, count_max: int
) -> None:
    plan = Pace(rate, decode_s).plan(begun, waiting, decoding, count_max)
    count = len(begun) + len(plan.taken)
    assert CHUNK_TOKENS_MIN <= plan.chunk_tokens <= CHUNK_TOKENS_MAX
    assert list(plan.taken) == sorted(set(plan.taken) & set(range(len(waiting))))
    # Those who have begun stay, also when the machine has become slower since.
    assert count <= max(len(begun), min(count_max, PROMPT_COUNT_MAX))
    assert begun or not waiting or plan.taken[0] == 0
    prefill_s = plan.chunk_tokens * count / rate
    # Nobody is taken beside others where even the smallest chunks would be too much.
    if plan.chunk_tokens > CHUNK_TOKENS_MIN or (plan.taken and count > 1):
        decoded_s = min(decode_s, DECODE_SHARE_MAX * BUDGET_S) if decoding else 0
        ends = plan.chunk_tokens >= max([*begun, *(waiting[place] for place in plan.taken)], default=0)
        budget_s = BUDGET_S if decoding else BUDGET_ALONE_S
        assert decoded_s + prefill_s <= (BUDGET_TO_END_S if ends else budget_s) * 1.0001


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
    assert Pace(100.0, is_measured=True).measured(tokens, seconds, 0.0).rate_tokens_per_s == pytest.approx(rate)


def test_the_first_measurement_is_believed() -> None:
    pace = Pace().measured(24, 6.0, 0.0)
    assert (pace.rate_tokens_per_s, pace.is_measured) == (4.0, True)
    assert Pace().measured(7, 6.0, 0.0).is_measured is False


def test_decode_time_rises_at_once_and_falls_slowly() -> None:
    pace = Pace(100.0, decode_s=0.1)
    assert pace.measured(0, 0.0, 0.3).decode_s == 0.3
    assert pace.measured(0, 0.0, 0.01).decode_s == pytest.approx(0.09)


@given(true_rate=st.floats(5, 50_000))
def test_the_rate_is_found_from_any_start(true_rate: float) -> None:
    pace = Pace()
    for _ in range(60):
        tokens = pace.plan([], [LONG], False, 1).chunk_tokens
        pace = pace.measured(tokens, tokens / true_rate, 0.0)
    assert pace.rate_tokens_per_s == pytest.approx(true_rate, rel=0.01)
