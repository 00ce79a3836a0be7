"""Logs of other processes: small, and never without their end."""

from pathlib import Path

import pytest

from thunderline.process import log_files

# What the log holds, what was moved aside, the bound; what they are afterwards.
CASES: dict[str, tuple[bytes, bytes | None, int, bytes, bytes | None]] = {
    "a small one stays": (b"abc", None, 3, b"abc", None),
    "a larger one is moved aside": (b"abcd", None, 3, b"", b"bcd"),
    "what was moved aside before goes": (b"abcd", b"old", 4 - 1, b"", b"bcd"),
    "an empty one stays": (b"", b"old", 3, b"", b"old"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_log_is_bounded(tmp_path: Path, case: str) -> None:
    before, former, bytes_max, after, moved = CASES[case]
    log, aside = tmp_path / "a.log", tmp_path / "a.log.1"
    log.write_bytes(before)
    if former is not None:
        aside.write_bytes(former)
    log_files.keep_small(log, bytes_max)
    assert log.read_bytes() == after
    assert (aside.read_bytes() if aside.exists() else None) == moved


def test_a_log_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    log_files.keep_small(tmp_path / "a.log")
    assert log_files.tail(tmp_path / "a.log", 10) == ""


def test_who_writes_goes_on_at_the_new_end(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first\n" * 100)
        log_files.keep_small(log, 60)
        writer.write(b"second\n")
    assert log.read_bytes() == b"second\n"
    assert log_files.tail(log, 13) == "first\nsecond\n"


def test_a_forgotten_log_is_gone_with_what_was_moved_aside(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"abcd")
    log_files.keep_small(log, 2)
    log_files.forget(log)
    assert not list(tmp_path.iterdir())
