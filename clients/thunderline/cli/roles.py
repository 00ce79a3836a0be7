"""Starts a role: imports its `__main__`, and nothing of the others."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

ROLES = ("discovery", "topology", "scheduler", "runner", "gateway", "rank")


def run(role: str, argv: Sequence[str]) -> int:
    """The role's exit code."""
    return int(import_module(f"thunderline.{role}.__main__").main(argv))


def copied_store() -> Any:
    """The scheduler's own module for a store that was copied here: for when no scheduler runs."""
    return import_module("thunderline.scheduler.copied_store")
