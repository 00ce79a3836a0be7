import pytest

from thunderline.rank.step_deadline import BASE_S, FACTOR, KNOWN_COUNT, REMEMBERED_COUNT, UNKNOWN_S, StepTimes


def times(*steps: tuple[float, int]) -> StepTimes:
    found = StepTimes()
    for duration_s, prefill_tokens in steps:
        found.note(duration_s, prefill_tokens)
    return found


@pytest.mark.parametrize(
    ("steps", "prefill_s", "allowed_s"),
    [
        pytest.param([], 0.0, UNKNOWN_S, id="nothing is known of the first step"),
        pytest.param([(0.1, 0)] * (KNOWN_COUNT - 1), 0.0, UNKNOWN_S, id="nor of the tenth"),
        pytest.param([(0.1, 0)] * KNOWN_COUNT, 0.0, BASE_S + FACTOR * 0.1, id="then ten times a step"),
        pytest.param([(0.1, 0)] * KNOWN_COUNT, 0.6, BASE_S + FACTOR * 0.7, id="and its prompt tokens"),
        pytest.param([(0.1, 0)] * 9 + [(2.0, 0)], 0.0, BASE_S + FACTOR * 2.0, id="the slowest counts"),
        pytest.param(
            [(2.0, 0)] + [(0.1, 0)] * REMEMBERED_COUNT, 0.0, BASE_S + FACTOR * 0.1, id="until it is forgotten"
        ),
        pytest.param([(9.0, 64)] * 10, 0.0, BASE_S, id="a step with prompt tokens says nothing of decoding"),
    ],
)
def test_how_long_a_step_may_take(steps: list[tuple[float, int]], prefill_s: float, allowed_s: float) -> None:
    assert times(*steps).allowed_s(prefill_s) == pytest.approx(allowed_s)
