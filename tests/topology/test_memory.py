"""What outlives the role: the count of its starts, and the cables."""

import json
import time
from pathlib import Path

import pytest

from thunderline.cluster.graph import START_MAX, CableEnd, cable
from thunderline.process.entry import CannotStart
from thunderline.topology.memory import CABLES, STARTS, keep_cables, keep_start, kept_cables, next_start
from topology.scenes import A, B, C

ONE = cable(CableEnd(A, "en5", "uuid-1", "2"), CableEnd(B, "en4"))
OTHER = cable(CableEnd(A, "en6"), CableEnd(C, "en5"))


def test_starts_are_counted_from_now(tmp_path: Path) -> None:
    before_s = int(time.time())
    first = next_start(tmp_path)
    assert before_s <= first <= time.time()
    assert [next_start(tmp_path), next_start(tmp_path)] == [first + 1, first + 2]
    keep_start(tmp_path, 40)
    assert next_start(tmp_path) == 41


BROKEN = ["", "{", "[]", '{"start": "many"}', '{"begin": 1}', '{"start": null}', '{"start": 1e999}', '{"start": -7}']


@pytest.mark.parametrize("text", [*BROKEN, json.dumps({"start": START_MAX})])
def test_a_count_that_cannot_be_used_goes_on_from_the_time(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / STARTS).write_text(text)
    before_s = int(time.time())
    first = next_start(tmp_path)
    assert before_s <= first <= time.time()
    assert "the count of starts" in caplog.text
    assert next_start(tmp_path) == first + 1


def test_a_count_that_cannot_be_kept_is_a_reason_not_to_start(tmp_path: Path) -> None:
    (tmp_path / STARTS).mkdir()
    with pytest.raises(CannotStart, match=STARTS):
        next_start(tmp_path)


def test_cables_are_kept(tmp_path: Path) -> None:
    assert kept_cables(tmp_path) == {}
    keep_cables(tmp_path, {ONE: 1e9, OTHER: 2e9})
    assert kept_cables(tmp_path) == {ONE: 1e9, OTHER: 2e9}
    assert (tmp_path / CABLES).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cables": [1]}', '{"cables": [{"one": {}}]}', '{"cables": 7}'])
def test_a_file_of_cables_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / CABLES).write_text(text)
    assert kept_cables(tmp_path) == {}
