"""Figures and names of a plan, for people. Pure."""

from collections.abc import Iterable


def gib(bytes_: int) -> str:
    return f"{bytes_ / 2**30:.2f} GiB"


def listed(words: Iterable[str]) -> str:
    """ "a, b and c"."""
    all_ = list(words)
    return f"{', '.join(all_[:-1])} and {all_[-1]}" if len(all_) > 1 else "".join(all_)


def counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
