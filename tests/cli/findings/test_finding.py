"""How findings are told: by severity, within the width, commands whole."""

from dataclasses import replace

import pytest

from thunderline.cli.findings.finding import (
    Finding,
    as_tree,
    is_working,
    joined,
    note,
    summary,
    told,
    warning,
    wrapped,
    wrong,
)

BAD = wrong("scheduler does not answer", "nothing listens at 127.0.0.1:7403", "`thunderline up`")
POOR = warning("little memory is left", "0.5 of 16.0 GiB are available", "`thunderline undeploy NAME` ends a model")
FINE = note("disk of /home", "90 GB are free")

SUMMARIES = {
    "nothing": ([], "nothing is wrong", True),
    "notes only": ([FINE], "nothing is wrong", True),
    "a warning": ([POOR], "nothing is wrong, 1 warning", True),
    "one thing": ([BAD, FINE], "1 thing is wrong", False),
    "many": ([BAD, BAD, POOR, POOR, FINE], "2 things are wrong, 2 warnings", False),
}


@pytest.mark.parametrize(("findings", "expected", "works"), SUMMARIES.values(), ids=SUMMARIES.keys())
def test_warnings_alone_keep_nothing_from_working(findings: list[Finding], expected: str, works: bool) -> None:
    assert summary(findings) == expected
    assert is_working(findings) is works


def test_it_reads_from_the_worst_to_the_best_and_each_thing_once() -> None:
    assert told([FINE, POOR, BAD, POOR], 80) == [
        "wrong: keeps this node from working",
        "  scheduler does not answer",
        "    why:    nothing listens at 127.0.0.1:7403",
        "    remedy: `thunderline up`",
        "",
        "warnings",
        "  little memory is left",
        "    why:    0.5 of 16.0 GiB are available",
        "    remedy: `thunderline undeploy NAME` ends a model",
        "",
        "noted",
        "  disk of /home: 90 GB are free",
        "",
        "1 thing is wrong, 1 warning",
    ]


LONG = "the relay between them is slow, and `thunderline links --all --json` shows every address that was tried here"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_stay_within_the_width_and_commands_whole(width: int) -> None:
    lines = wrapped(LONG, "    remedy: ", "            ", width)
    assert max(map(len, lines)) <= width
    assert sum("`thunderline links --all --json`" in line for line in lines) == 1
    assert " ".join(line.strip() for line in lines) == f"remedy: {LONG}"
    assert all(line.startswith("            ") for line in lines[1:])


def test_in_a_pipe_nothing_is_wrapped() -> None:
    assert len(wrapped(LONG * 5, "", "", 2000)) == 1


def test_a_line_break_in_a_reason_breaks_nothing() -> None:
    assert told([note("a", "b\nc")], 80)[1] == "  a: b c"


def test_what_was_seen_and_what_is_not_known_have_lines_of_their_own() -> None:
    lines = told([replace(BAD, seen="`ss -l`: nothing", unknown="whether it has ever run", node="ada")], 80)
    assert lines[1:6] == [
        "  ada: scheduler does not answer",
        "    seen:   `ss -l`: nothing",
        "    why:    nothing listens at 127.0.0.1:7403",
        "    remedy: `thunderline up`",
        "    unsure: whether it has ever run",
    ]


def test_a_note_stays_one_line() -> None:
    full = replace(FINE, seen="`df /home`: 90", unknown="whether that is enough", node="ada")
    assert told([full], 80)[1] == "  ada: disk of /home: 90 GB are free (unsure: whether that is enough)"


def test_as_json_every_field_is_there() -> None:
    assert as_tree(replace(FINE, seen="`df /home`: 90", unknown="whether that is enough", node="ada")) == {
        "severity": "note",
        "node": "ada",
        "what": "disk of /home",
        "seen": "`df /home`: 90",
        "why": "90 GB are free",
        "remedy": "",
        "unknown": "whether that is enough",
    }


JOINED = {(): "", ("a",): "a", ("a", "b"): "a and b", ("a", "b", "c"): "a, b and c"}


@pytest.mark.parametrize(("names", "expected"), JOINED.items(), ids=JOINED.values())
def test_names_are_joined_as_people_do(names: tuple[str, ...], expected: str) -> None:
    assert joined(names) == expected
