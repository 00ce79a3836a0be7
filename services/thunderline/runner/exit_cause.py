"""Why a rank ended, by name. Pure."""

import signal
from dataclasses import dataclass

from thunderline.cluster.ranks import RankState

# Exit codes of a rank process: services/thunderline/rank/__main__.py.
EXIT_STOPPED, EXIT_LOAD_FAILED, EXIT_EXCEPTION, EXIT_RUNNER_GONE = 0, 3, 4, 5
DETAIL_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True)
class ExitCause:
    """`permanent`: trying the same again cannot help."""

    name: str
    detail: str
    state: RankState
    pid: int
    uptime_s: float
    permanent: bool = False


def name_cause(
    status: int | None,
    asked: bool,
    reported: ExitCause | None,
    last_words: str,
    state: RankState,
    pid: int,
    uptime_s: float,
) -> ExitCause:
    """The cause of an ended process.

    `status` is Popen's: an exit code, or minus a signal; None when it could not be learnt. What the rank said of
    itself wins; `asked` means that we told it to end.
    """
    if reported is not None:
        return reported
    words = " ".join(last_words.split())[-DETAIL_LENGTH_MAX:]
    if asked and (status is None or status <= 0):
        return ExitCause("STOPPED", "told to end", state, pid, uptime_s)
    if status is None:
        return ExitCause("KILLED", words or "ended without a word", state, pid, uptime_s)
    if status < 0:
        number = -status
        known = number in {member.value for member in signal.Signals}
        name = signal.Signals(number).name if known else f"signal {number}"
        return ExitCause("SIGNAL", f"{name}: {words}" if words else name, state, pid, uptime_s)
    name, text = {
        EXIT_STOPPED: ("EXIT_CODE", "it ended by itself"),
        EXIT_LOAD_FAILED: ("LOAD_FAILED", "the model could not be loaded"),
        EXIT_EXCEPTION: ("ENGINE_EXCEPTION", "the engine raised"),
        EXIT_RUNNER_GONE: ("RUNNER_GONE", "it had no runner"),
    }.get(status, ("EXIT_CODE", f"exit code {status}"))
    return ExitCause(name, f"{text}: {words}" if words else text, state, pid, uptime_s, status == EXIT_LOAD_FAILED)
