"""Whom a rank's end has touched: those under way, and those that it lost a moment ago."""

import asyncio

import pytest

from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.errors import EngineReset, InstanceFailed, InvalidRequest, Unreachable
from thunderline.scheduler.carried import Carried

RANK = RankId(InstanceId("i"), 4, 0)


def carry(carried: Carried, error: BaseException | None = None) -> None:
    """One request, and how its block ended."""
    try:
        with carried.on(RANK, "request"):
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error


@pytest.mark.parametrize(
    ("ends", "count"),
    [
        ([None], 0),
        ([InstanceFailed("")], 1),
        ([Unreachable("")], 1),
        ([InvalidRequest("")], 0),
        ([EngineReset("")], 0),
        ([Unreachable(""), None], 0),
        ([Unreachable(""), asyncio.CancelledError()], 0),
        ([Unreachable(""), GeneratorExit()], 0),
        ([Unreachable(""), InstanceFailed("")], 1),
    ],
    ids=[
        "an answered one is none",
        "one that broke with the rank",
        "one whose runner broke",
        "one that was wrong",
        "one whose engine was made anew: the rank lives",
        "one that came back and was answered",
        "one that came back, and whose client left",
        "one that came back, and whose reader left",
        "one that came back and broke again is one",
    ],
)
def test_how_many_an_end_has_touched(ends: list[BaseException | None], count: int) -> None:
    carried = Carried()
    for end in ends:
        carry(carried, end)
    assert carried.counts().get(RANK, 0) == count


def test_one_that_is_under_way_counts() -> None:
    carried = Carried()
    with carried.on(RANK, "request"):
        assert carried.counts() == {RANK: 1}
    assert carried.counts() == {}
