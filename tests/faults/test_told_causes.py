"""`thunderline events` tells why a rank ended: of a child of its runner, and of one that was adopted.

Every way to end, with its phase: tests/runner/test_causes_of_real_ranks.py.
"""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

import endings
from faults import hooked_rank
from faults.stopped import halt
from installation import Installation, until

CHILD, ADOPTED = "child", "adopted"


@dataclass(frozen=True)
class Row:
    """`how`: a signal to an idle rank, or the name of an ending in a step: of a request, or of the warm-up."""

    how: signal.Signals | str
    # The causes' names, and words of what is told of them.
    child: tuple[str, str]
    # Nobody is told an adopted one's status.
    adopted: tuple[str, str]
    phase: str = "READY"

    @property
    def meets_a_request(self) -> bool:
        return self.phase == "READY" and not isinstance(self.how, signal.Signals)


SHOT = ("SIGNAL SIGKILL", "killed from outside")
KILLED = ("KILLED", "ended without a word while READY")
CRASHED = ("SIGNAL SIGSEGV", "Fatal Python error: Segmentation fault")
ABORTED = ("SIGNAL SIGABRT", "Fatal Python error: Aborted")
THROWN = ("SIGNAL SIGABRT", "std::bad_alloc")
EXITED = ("EXIT_CODE", f"exit code {endings.CODE}: {endings.LAST_WORDS}")
LEFT = ("ENGINE_EXCEPTION", f"SystemExit: {endings.CODE}")
RAISED = ("ENGINE_EXCEPTION", f"RuntimeError: {endings.INJECTED}")
NO_MEMORY = ("ENGINE_EXCEPTION", "MemoryError")
HUNG = ("RANK_HUNG", "its own timer ended it")
STANDS = "stands"
ROWS = {
    "killed": Row(signal.SIGKILL, SHOT, KILLED),
    "crashed": Row(signal.SIGSEGV, CRASHED, CRASHED),
    "aborted": Row(signal.SIGABRT, ABORTED, ABORTED),
    "exited": Row("exits", EXITED, ("KILLED", endings.LAST_WORDS)),
    "left by sys.exit": Row("leaves", LEFT, LEFT),
    "no memory in C++": Row("has_no_memory_in_cpp", THROWN, THROWN),
    # In the step of a request these two are no end: the engine is made anew.
    "raised": Row("raises", RAISED, RAISED, phase="WARMING"),
    "no memory": Row("has_no_memory", NO_MEMORY, NO_MEMORY, phase="WARMING"),
    "its own timer": Row(STANDS, HUNG, HUNG),
}
CASES = [(name, kind) for name in ROWS for kind in (CHILD, ADOPTED)]
if not os.environ.get("PROVE"):
    CASES = [("no memory in C++", ADOPTED)]
# Its step deadline, and the timer's second alarm.
TIMER_S = 60.0
# As many steps as make a step's deadline known.
STEPS_ANSWERS = 5


def ended(up: Installation, pid: int) -> dict[str, Any] | None:
    """The event that tells of this process."""
    told = [json.loads(line) for line in up.run("events", "--json", timeout_s=20).stdout.splitlines()]
    return next((one for one in told if one["kind"] == "EPOCH_ENDED" and f"pid {pid}" in one["text"]), None)


def new_runner(up: Installation) -> None:
    runner = up.pid("runner")
    os.kill(runner, signal.SIGKILL)
    up.pid("runner", other_than=runner)


def end_as_it_warms_up(up: Installation, pid: int, row: Row, kind: str) -> int:
    """The next rank; that one stands still until it has another runner, if it is to be adopted."""
    os.kill(pid, signal.SIGKILL)
    hooked_rank.tell(up.home, str(row.how))
    following = up.pid("rank", other_than=pid)
    if kind == ADOPTED:
        halt(following)
        new_runner(up)
        os.kill(following, signal.SIGCONT)
    return following


def end_by_its_timer(up: Installation, pid: int) -> None:
    """It stands in C under a request, and its runner is stopped: nobody but itself can end it."""
    assert all(up.answers() for _ in range(STEPS_ANSWERS))
    hooked_rank.tell(up.home, STANDS)
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(up.answers)
        until("the step", lambda: not (up.home / hooked_rank.FOLDER / "end").exists(), 10)
        runner = up.pid("runner")
        halt(runner)
        try:
            until("its end", lambda: pid not in up.processes(), TIMER_S)
        finally:
            os.kill(runner, signal.SIGCONT)
        # It goes on in the next epoch.
        assert answered.result()


def end_it(up: Installation, pid: int, row: Row) -> None:
    if isinstance(row.how, signal.Signals):
        os.kill(pid, row.how)
    elif row.how == STANDS:
        end_by_its_timer(up, pid)
    else:
        hooked_rank.tell(up.home, row.how)
        # It meets the end, and goes on in the next epoch.
        assert up.answers()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "kind"), CASES, ids=[" ".join(case) for case in CASES])
def test_events_tell_why_a_rank_ended(hooked: Installation, name: str, kind: str, evidence: dict[str, Any]) -> None:
    row = ROWS[name]
    until("a good answer", hooked.answers, 60)
    pid = hooked.pid("rank")
    if row.phase == "WARMING":
        pid = end_as_it_warms_up(hooked, pid, row, kind)
    else:
        if kind == ADOPTED:
            new_runner(hooked)
            until("a good answer", hooked.answers, 60)
            assert hooked.pid("rank") == pid, "it was adopted"
        end_it(hooked, pid, row)
    event = until("its event", lambda: ended(hooked, pid), 30)
    cause, words = row.child if kind == CHILD else row.adopted
    assert f"{cause} while {row.phase} (pid {pid}" in event["text"], event
    assert words in event["text"], event
    assert event["done"].startswith("the next epoch"), event
    assert event.get("request_count", 0) == (1 if row.meets_a_request else 0), event
    evidence[f"{name}, {kind}, told"] = event["text"]
    until("a good answer", hooked.answers, 60)
