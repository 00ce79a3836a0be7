"""Figures and names of a plan, for people. Pure."""

from collections.abc import Iterable


def gib(bytes_: int) -> str:
    return f"{bytes_ / 2**30:.2f} GiB"


def listed(words: Iterable[str]) -> str:
    """ "a, b and c"."""
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
