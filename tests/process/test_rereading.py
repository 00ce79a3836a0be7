"""Reads that fail now and then: they end nothing, and are told seldom."""

import errno
import itertools

import pytest

from thunderline.process.rereading import LOG_EVERY_S, Rereading


def gone() -> str:
    raise OSError(errno.ENXIO, "Device not configured")


async def test_a_read_that_fails_is_none_and_the_next_one_counts() -> None:
    reads = itertools.count()
    reading = Rereading("the card", lambda: "card" if next(reads) else gone())
    assert [await reading.look(), await reading.look()] == [None, "card"]


async def test_it_is_told_at_most_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    times_s = (0.0, 1.0, LOG_EVERY_S - 1, LOG_EVERY_S, LOG_EVERY_S + 1)
    clock = iter(times_s)
    reading = Rereading("the card", gone, lambda: next(clock))
    told = []
    for _ in times_s:
        await reading.look()
        told.append(len(caplog.records))
    assert told == [1, 1, 1, 2, 2]
    assert caplog.records[0].getMessage() == "the card cannot be read; tried again"


async def test_what_is_no_fault_of_the_system_is_raised() -> None:
    def bug() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Rereading("the card", bug).look()
