"""`thunderline events` tells why a rank ended: of a child of its runner, and of one that was adopted.

Every way to end, with its phase: tests/runner/test_causes_of_real_ranks.py.
"""

import json
import os
import signal
from dataclasses import dataclass
from typing import Any

import pytest

import endings
from faults import hooked_rank
from installation import Installation, until

CHILD, ADOPTED = "child", "adopted"


@dataclass(frozen=True)
class Row:
    """`how`: a signal to an idle rank, or the name of an ending in the step of a request."""

    how: signal.Signals | str
    child: str
    # Nobody is told an adopted one's status.
    adopted: str


SEGFAULT = "SIGNAL SIGSEGV while READY"
THROWN = "SIGNAL SIGABRT while READY"
ROWS = {
    "killed": Row(signal.SIGKILL, "SIGNAL SIGKILL while READY", "KILLED"),
    "crashed": Row(signal.SIGSEGV, SEGFAULT, SEGFAULT),
    "exited": Row("exits", f"exit code {endings.CODE}", endings.LAST_WORDS),
    "left by sys.exit": Row("leaves", f"SystemExit: {endings.CODE}", f"SystemExit: {endings.CODE}"),
    "no memory in C++": Row("has_no_memory_in_cpp", THROWN, THROWN),
}
CASES = [(name, kind) for name in ROWS for kind in (CHILD, ADOPTED)]
if not os.environ.get("PROVE"):
    CASES = [("no memory in C++", ADOPTED)]


def ended(up: Installation, pid: int) -> dict[str, Any] | None:
    """The event that tells of this process."""
    told = [json.loads(line) for line in up.run("events", "--json", timeout_s=20).stdout.splitlines()]
    return next((one for one in told if one["kind"] == "EPOCH_ENDED" and f"pid {pid}" in one["text"]), None)


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[" ".join(case) for case in CASES])
def test_events_tell_why_a_rank_ended(hooked: Installation, name: str, kind: str, evidence: dict[str, Any]) -> None:
    row = ROWS[name]
    until("a good answer", hooked.answers, 60)
    pid = hooked.pid("rank")
    if kind == ADOPTED:
        runner = hooked.pid("runner")
        os.kill(runner, signal.SIGKILL)
        hooked.pid("runner", other_than=runner)
        until("a good answer", hooked.answers, 60)
        assert hooked.pid("rank") == pid, "it was adopted"
    if isinstance(row.how, signal.Signals):
        os.kill(pid, row.how)
    else:
        hooked_rank.tell(hooked.home, row.how)
        # It meets the end, and goes on in the next epoch.
        assert hooked.answers()
    event = until("its event", lambda: ended(hooked, pid), 30)
    assert (row.child if kind == CHILD else row.adopted) in event["text"], event
    assert "while READY" in event["text"], event
    assert event["done"].startswith("the next epoch"), event
    assert event.get("request_count", 0) == (0 if isinstance(row.how, signal.Signals) else 1), event
    evidence[f"{name}, {kind}, told"] = event["text"]
    until("a good answer", hooked.answers, 60)
