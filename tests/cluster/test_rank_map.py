"""The map file of a rank: what is written is read, and nothing else is."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.cluster.rank_map import MAGIC, SIZE_BYTES, RankMark, Stand, decode, encode
from thunderline.cluster.ranks import RankState

BOOT_ID = "b4ad1c1f-5ad0-4b0e-9d2b-2f5c4a0e7f11"
MARK = RankMark(4711, 1732175000.25, BOOT_ID, RankState.READY, Stand.COMPUTE, 12345678901, 99.5, 160.25)

TIMES = st.floats(min_value=0, max_value=1e12)
MARKS = st.builds(
    RankMark,
    pid=st.integers(0, 2**22),
    process_start_s=TIMES,
    boot_id=st.one_of(st.just(""), st.uuids().map(str)),
    state=st.sampled_from(RankState),
    stand=st.sampled_from(Stand),
    step=st.integers(0, 2**64 - 1),
    entered_s=TIMES,
    deadline_s=TIMES,
    exit_code=st.one_of(st.none(), st.integers(0, 255)),
)


@given(MARKS, st.integers(0, 2**32).map(lambda n: 2 * n))
def test_what_is_written_is_read(mark: RankMark, sequence: int) -> None:
    data = encode(mark, sequence)
    assert len(data) == SIZE_BYTES
    assert decode(data) == mark


@pytest.mark.parametrize(
    ("state", "stand"),
    list(itertools.product(RankState, Stand)),
    ids=lambda one: one.name,
)
def test_every_state_and_stand_survives(state: RankState, stand: Stand) -> None:
    read = decode(encode(RankMark(state=state, stand=stand), 2))
    assert read is not None
    assert (read.state, read.stand) == (state, stand)


@given(MARKS, st.integers(0, 2**32).map(lambda n: 2 * n + 1))
def test_a_record_that_is_being_written_is_not_read(mark: RankMark, sequence: int) -> None:
    assert decode(encode(mark, sequence)) is None


UNREADABLE = {
    "a file as the runner makes it, before the rank wrote": bytes(SIZE_BYTES),
    "an empty file": b"",
    "a file that was cut within the record": encode(MARK, 2)[:100],
    "another program's file": b"\x7fELF" + encode(MARK, 2)[4:],
    "the map of another version": MAGIC[:-1] + b"2" + encode(MARK, 2)[8:],
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_no_record_is_nothing(data: bytes) -> None:
    assert decode(data) is None


def test_what_lies_behind_the_record_changes_nothing() -> None:
    data = encode(MARK, 2)
    assert decode(data + bytes(4096)) == MARK
    assert decode(data[:200]) == MARK


def test_a_boot_id_that_is_too_long_is_cut() -> None:
    read = decode(encode(RankMark(boot_id=BOOT_ID + "-and-more"), 2))
    assert read is not None
    assert read.boot_id == BOOT_ID


def test_times_keep_microseconds() -> None:
    read = decode(encode(RankMark(entered_s=1234567.000001), 2))
    assert read is not None
    assert math.isclose(read.entered_s, 1234567.000001, abs_tol=1e-9)
