"""A finding, and how findings are told. Pure."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

COMMAND = re.compile(r"`[^`]*`")
# textwrap does not break at it.
HARD_SPACE = "\N{NO-BREAK SPACE}"


class Severity(Enum):
    """From worst to best."""

    WRONG = "wrong"  # Keeps this node from working, or from working with others.
    WARNING = "warning"  # It works, but worse than it could, or not for long.
    NOTE = "note"  # Worth knowing; nothing has to be done.


HEADINGS = {
    Severity.WRONG: "wrong: keeps this node from working",
    Severity.WARNING: "warnings",
    Severity.NOTE: "noted",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What is so, why it is so or matters, and the command, setting or step that mends it ("" only in a NOTE)."""

    severity: Severity
    what: str
    why: str
    remedy: str = ""
    # The command that was asked and its line, where one was.
    seen: str = ""
    # What cannot be told from here: "whether it is the cable or the dock".
    unknown: str = ""
    # The name of the node that it is about, where several are looked at; "": this one, or `what` names them.
    node: str = ""


def wrong(what: str, why: str, remedy: str, seen: str = "", unknown: str = "") -> Finding:
    return Finding(Severity.WRONG, what, why, remedy, seen, unknown)


def warning(what: str, why: str, remedy: str, seen: str = "", unknown: str = "") -> Finding:
    return Finding(Severity.WARNING, what, why, remedy, seen, unknown)


def note(what: str, why: str, seen: str = "", unknown: str = "") -> Finding:
    return Finding(Severity.NOTE, what, why, "", seen, unknown)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, each once; among equals as they were found."""
    return sorted(dict.fromkeys(findings), key=lambda one: list(Severity).index(one.severity))


def as_tree(one: Finding) -> dict[str, str]:
    """For JSON, with every field."""
    return {
        "severity": one.severity.value,
        "node": one.node,
        "what": one.what,
        "seen": one.seen,
        "why": one.why,
        "remedy": one.remedy,
        "unknown": one.unknown,
    }


def is_working(findings: Iterable[Finding]) -> bool:
    return all(one.severity is not Severity.WRONG for one in findings)


def told(findings: Iterable[Finding], width: int) -> list[str]:
    """Lines for people, none longer than `width` unless a single word or command is."""
    ordered = in_order(findings)
    lines = []
    for severity, heading in HEADINGS.items():
        group = [one for one in ordered if one.severity is severity]
        if not group:
            continue
        lines.append(heading)
        for one in group:
            lines += _lines(one, width)
        lines.append("")
    return [*lines, summary(ordered)]


def summary(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(one.severity is severity for one in findings) for severity in Severity}
    wrongs, warnings = counts[Severity.WRONG], counts[Severity.WARNING]
    parts = [{0: "nothing is wrong", 1: "1 thing is wrong"}.get(wrongs, f"{wrongs} things are wrong")]
    if warnings:
        parts.append("1 warning" if warnings == 1 else f"{warnings} warnings")
    return ", ".join(parts)


def _lines(one: Finding, width: int) -> list[str]:
    what = f"{one.node}: {one.what}" if one.node else one.what
    if one.severity is Severity.NOTE:
        # What was seen is in the JSON: a note is one line.
        unsure = f" (unsure: {one.unknown})" if one.unknown else ""
        return wrapped(f"{what}: {one.why}{unsure}", "  ", "    ", width)
    lines = wrapped(what, "  ", "    ", width)
    for label, text in (("seen", one.seen), ("why", one.why), ("remedy", one.remedy), ("unsure", one.unknown)):
        if text:
            lines += wrapped(text, f"    {f'{label}:':<8}", " " * 12, width)
    return lines


def wrapped(text: str, first: str, later: str, width: int) -> list[str]:
    """Commands in `backticks` stay on one line: they are copied."""
    held = COMMAND.sub(lambda match: match[0].replace(" ", HARD_SPACE), " ".join(text.split()))
    found = textwrap.wrap(
        held, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(HARD_SPACE, " ") for line in found]


def joined(names: Sequence[str]) -> str:
    """As in: a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
