"""Who may send bytes to the echo, how often and how long."""

import pytest

from thunderline.cluster.errors import Full
from thunderline.topology.permits import MEASUREMENT_S, STREAM_COUNT, USED_WITHIN_S, Permits


def test_a_permit_is_good_for_its_streams_and_then_no_more() -> None:
    permits = Permits()
    permit = permits.give(0.0)
    assert [permits.take(permit, 1.0) for _ in range(STREAM_COUNT + 1)] == [*[True] * STREAM_COUNT, False]


def test_a_permit_is_good_for_some_seconds() -> None:
    permits = Permits()
    permit = permits.give(0.0)
    assert not permits.take(permit, USED_WITHIN_S + 0.1)


@pytest.mark.parametrize("other", [b"", bytes(16), bytes(17)])
def test_another_permit_is_none(other: bytes) -> None:
    permits = Permits()
    assert not permits.take(other, 0.0)
    permits.give(0.0)
    assert not permits.take(other, 0.0)


def test_one_measurement_at_a_time() -> None:
    permits = Permits()
    permit = permits.give(0.0)
    with pytest.raises(Full):
        permits.give(1.0)
    for _ in range(STREAM_COUNT):
        assert permits.take(permit, 1.0)
    with pytest.raises(Full):
        permits.give(USED_WITHIN_S + 1)
    for _ in range(STREAM_COUNT):
        permits.give_back(permit)
    assert permits.give(USED_WITHIN_S + 1) != permit


def test_a_permit_that_nobody_uses_is_in_nobodys_way() -> None:
    permits = Permits()
    permits.give(0.0)
    assert permits.give(USED_WITHIN_S)


def test_a_measurement_that_never_ends_is_not_waited_for() -> None:
    permits = Permits()
    permit = permits.give(0.0)
    permits.take(permit, 0.0)
    assert permits.give(MEASUREMENT_S)
    # Its last stream ends late: the next one's are not counted down.
    permits.give_back(permit)
    with pytest.raises(Full):
        permits.give(MEASUREMENT_S + 1)
