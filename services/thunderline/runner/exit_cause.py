"""Why a rank ended, by name. Pure."""

import re
import signal
from dataclasses import dataclass, replace

from thunderline.cluster.rank_map import RankMark
from thunderline.cluster.ranks import RankState
from thunderline.runner import signatures

# Exit codes of a rank process: services/thunderline/rank/__main__.py.
EXIT_STOPPED, EXIT_LOAD_FAILED, EXIT_EXCEPTION, EXIT_RUNNER_GONE = 0, 3, 4, 5
DETAIL_LENGTH_MAX = 500
LAST_LINE_COUNT = 5
KILLED = "killed from outside, perhaps by the system for want of memory"
RANK_HUNG = "RANK_HUNG"

# What faulthandler writes of a signal that ends the process. Python itself ends by SIGABRT, with a reason of its own.
FATAL = re.compile(r"^Fatal Python error: (.*)$", re.MULTILINE)
# A line of our own log that tells of nothing wrong.
ROUTINE = re.compile(r'^\{"time": "[^"]*", "level": "info",')
FATAL_SIGNALS = {
    "Segmentation fault": signal.SIGSEGV,
    "Bus error": signal.SIGBUS,
    "Floating point exception": signal.SIGFPE,
    "Floating-point exception": signal.SIGFPE,
    "Illegal instruction": signal.SIGILL,
}
# Phases that a rank is in before it ends, as against what is said of it then.
_NO_PHASES = {RankState.FAILED, RankState.STOPPING, RankState.ABSENT, RankState.UNKNOWN}


@dataclass(frozen=True, slots=True)
class ExitCause:
    """`permanent`: trying the same again cannot help. `signature`: its likely cause, where others have met it too."""

    name: str
    detail: str
    state: RankState
    pid: int
    uptime_s: float
    permanent: bool = False
    signature: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that is gone, and what is left of it.

    `status` is Popen's: an exit code, or minus a signal; None for an adopted one that left no code in its map.
    `asked`: we told it to end. `log` is the end of what it printed. `is_overdue`: the deadline in its map has passed.
    `rebooted`: its map is of an earlier start of the machine.
    """

    status: int | None
    asked: bool
    log: str
    state: RankState
    pid: int
    uptime_s: float
    is_overdue: bool = False
    rebooted: bool = False

    def caused(self, name: str, *parts: str, permanent: bool = False) -> ExitCause:
        detail = ": ".join(part for part in parts if part)
        return ExitCause(name, detail, self.state, self.pid, self.uptime_s, permanent)


def phase(mark: RankMark | None, known: RankState) -> RankState:
    """The last one that it was in: its own word, which may never have reached its runner."""
    return known if mark is None or mark.state in _NO_PHASES else mark.state


def is_overdue(mark: RankMark | None, boot_id: str, now_s: float) -> bool:
    """Whether its timer must have ended it. `now_s` is of the machine's monotonic clock, that of this boot."""
    return mark is not None and mark.boot_id == boot_id and 0 < mark.deadline_s <= now_s


def name_cause(ended: Ended, reported: ExitCause | None) -> ExitCause:
    """The cause of an ended process. What was said of it while it lived wins."""
    if reported is not None:
        return recognised(reported)
    if ended.asked and (ended.status is None or ended.status <= 0):
        return ended.caused("STOPPED", "told to end")
    return recognised(_name(ended), ended.log[_crash_end(ended.log) :])


def recognised(cause: ExitCause, stacks: str = "") -> ExitCause:
    """With its signature, if it has one: in what is said of it, or in the stacks that a crash has left."""
    found = signatures.match(f"{cause.detail}\n{stacks}")
    return replace(cause, signature=found.likely, remedy=found.remedy) if found else cause


def _name(ended: Ended) -> ExitCause:
    status, words = ended.status, last_words(ended.log)
    if status is None:
        return _adopted(ended, words)
    if status == -signal.SIGALRM and ended.is_overdue:
        return ended.caused(RANK_HUNG, "its own timer ended it", words)
    if status == -signal.SIGKILL:
        return ended.caused("SIGNAL", "SIGKILL", KILLED, words)
    if status < 0:
        return ended.caused("SIGNAL", _signal_name(-status), words)
    name, text = {
        EXIT_STOPPED: ("EXIT_CODE", "it ended by itself"),
        EXIT_LOAD_FAILED: ("LOAD_FAILED", "the model could not be loaded"),
        EXIT_EXCEPTION: ("ENGINE_EXCEPTION", "the engine raised"),
        EXIT_RUNNER_GONE: ("RUNNER_GONE", "it had no runner"),
    }.get(status, ("EXIT_CODE", f"exit code {status}"))
    return ended.caused(name, text, words, permanent=status == EXIT_LOAD_FAILED)


def _adopted(ended: Ended, words: str) -> ExitCause:
    """Nobody can be asked for its status: from its last words, its deadline, or nothing."""
    if ended.rebooted:
        return ended.caused("REBOOTED", f"the machine was restarted while it was {ended.state.name}")
    if fatal := FATAL.findall(ended.log):
        return ended.caused("SIGNAL", FATAL_SIGNALS.get(fatal[-1], signal.SIGABRT).name, words)
    if ended.is_overdue:
        return ended.caused(RANK_HUNG, "its own timer ended it", words)
    return ended.caused("KILLED", f"ended without a word while {ended.state.name}", KILLED, words)


def last_words(log: str) -> str:
    """In one line: of a crash what was printed before it and its name, not the stacks that follow."""
    lines = [line for line in log[: _crash_end(log)].splitlines() if not ROUTINE.match(line)]
    return " ".join(" ".join(lines[-LAST_LINE_COUNT:]).split())[-DETAIL_LENGTH_MAX:]


def _crash_end(log: str) -> int:
    """Where the stacks of the last crash begin; the end, if there is none."""
    found = [match.end() for match in FATAL.finditer(log)]
    return found[-1] if found else len(log)


def _signal_name(number: int) -> str:
    known = number in {member.value for member in signal.Signals}
    return signal.Signals(number).name if known else f"signal {number}"
