"""A log line is one JSON object, whatever it is about."""

import json
import logging
import sys
from typing import Any

from thunderline.process.logs import JsonFormatter


def logged(text: str, *arguments: object, extra: dict[str, Any] | None = None, broken: bool = False) -> dict[str, Any]:
    error = sys.exc_info() if broken else None
    record = logging.getLogger("thunderline.runner.ranks").makeRecord(
        "thunderline.runner.ranks", logging.INFO, "ranks.py", 1, text, arguments, error, extra=extra
    )
    line = JsonFormatter("runner").format(record)
    assert "\n" not in line
    read: dict[str, Any] = json.loads(line)
    return read


def test_a_line_says_when_who_and_what() -> None:
    line = logged("rank %d ended", 0)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "role": "runner", "logger": "runner.ranks", "text": "rank 0 ended"}


def test_facts_stand_beside_the_text() -> None:
    line = logged("ended", extra={"rank": 0, "cause": "KILLED"})
    assert (line["text"], line["rank"], line["cause"]) == ("ended", 0, "KILLED")


def test_lines_and_letters_of_others_stay_in_their_line() -> None:
    assert logged("two\nlines, größer")["text"] == "two\nlines, größer"


def test_a_fact_of_any_kind_is_written() -> None:
    assert logged("odd", extra={"what": set})["what"] == "<class 'set'>"


def test_an_exception_is_written_with_its_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = logged("failed", broken=True)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: broken")
