"""Text of a machine, within its bounds."""

import pytest

from thunderline.process.macos.outputs import (
    LINE_COUNT_MAX,
    LINE_LENGTH_MAX,
    NAME_LENGTH_MAX,
    lines,
    name,
    quoted,
    whole_number,
)

NAMES: dict[str, tuple[str, str]] = {
    "plain": ("Mac Studio", "Mac Studio"),
    "in another script": ("Łukasz’ Mac 五", "Łukasz’ Mac 五"),
    "space around and within": ("  Mac \t Studio\n", "Mac Studio"),
    "what controls a terminal": ("a\x1b[2Jb\x00c", "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c"),
    "half of a pair": ("a\ud83db", "a\N{REPLACEMENT CHARACTER}b"),
    "a separator of lines": ("a\u2028b\x85c", "a b c"),
    "too long": ("ab" * NAME_LENGTH_MAX, "ab" * (NAME_LENGTH_MAX // 2)),
    "space where it is cut": ("a" * (NAME_LENGTH_MAX - 1) + " b", "a" * (NAME_LENGTH_MAX - 1)),
}


@pytest.mark.parametrize(("text", "expected"), NAMES.values(), ids=NAMES.keys())
def test_a_name(text: str, expected: str) -> None:
    assert name(text) == expected
    assert name(expected) == expected


QUOTED: dict[str, tuple[object, str]] = {
    "text": ("fast", '"fast"'),
    "long text": ("x" * 100, f'"{"x" * 48}..."'),
    "an object": ({"a": 1}, "an object"),
    "a list": ([1], "a list"),
    "a truth": (False, "true or false"),
    "null": (None, "null"),
    "no number": (float("nan"), "a number"),
}


@pytest.mark.parametrize(("value", "expected"), QUOTED.values(), ids=QUOTED.keys())
def test_what_stands_in_the_place_of_something(value: object, expected: str) -> None:
    assert quoted(value) == expected


NUMBERS: dict[str, tuple[str, int | None]] = {
    "a number": ("480000", 480000),
    "zero": ("0", 0),
    "less than zero": ("-1", None),
    "a fraction": ("1.5", None),
    "nothing": ("", None),
    "digits of another script": ("٤", None),
    "19 digits": ("1" * 19, None),
    "with a space": (" 1", None),
}


@pytest.mark.parametrize(("text", "expected"), NUMBERS.values(), ids=NUMBERS.keys())
def test_a_whole_number(text: str, expected: int | None) -> None:
    assert whole_number(text) == expected


def test_lines_end_as_on_any_system_and_hold_what_a_name_may() -> None:
    assert lines("\N{ZERO WIDTH NO-BREAK SPACE}a \r\nb\u2028c\x1cd\n") == ["a ", "b\u2028c\x1cd", ""]


def test_there_are_not_too_many_lines_and_none_is_too_long() -> None:
    found = lines("a" * 10 * LINE_LENGTH_MAX + "\n" * 10 * LINE_COUNT_MAX)
    assert (len(found), len(found[0])) == (LINE_COUNT_MAX, LINE_LENGTH_MAX)
