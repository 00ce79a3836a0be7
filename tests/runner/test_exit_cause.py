"""Why a rank ended, by name."""

import pytest

from thunderline.cluster.ranks import RankState
from thunderline.runner.exit_cause import ExitCause, name_cause

TOLD = ExitCause("LOAD_FAILED", "no such architecture", RankState.LOADING, 7, 1.0, permanent=True)

# status, told to end, what it said, last words -> name, words in the detail, permanent
CASES: dict[str, tuple[int | None, bool, ExitCause | None, str, str, str, bool]] = {
    "what_it_said_of_itself_wins": (3, False, TOLD, "noise", "LOAD_FAILED", "no such architecture", True),
    "it_wins_over_being_told_to_end_too": (0, True, TOLD, "", "LOAD_FAILED", "no such architecture", True),
    "told_to_end_and_it_did": (0, True, None, "", "STOPPED", "told", False),
    "told_to_end_and_killed_in_the_end": (-9, True, None, "", "STOPPED", "told", False),
    "killed_by_a_signal_has_its_name": (-9, False, None, "", "SIGNAL", "SIGKILL", False),
    "a_crash_has_its_last_words": (-11, False, None, "Fatal Python error", "SIGNAL", "SIGSEGV: Fatal", False),
    "a_signal_without_a_name_has_its_number": (-63, False, None, "", "SIGNAL", "signal 63", False),
    "a_load_that_failed_is_permanent": (3, False, None, "bad weights", "LOAD_FAILED", "bad weights", True),
    "an_exception_is_not": (4, False, None, "ValueError: x", "ENGINE_EXCEPTION", "ValueError: x", False),
    "without_a_runner": (5, False, None, "", "RUNNER_GONE", "runner", False),
    "an_end_that_nobody_asked_for": (0, False, None, "", "EXIT_CODE", "by itself", False),
    "any_other_code": (41, False, None, "", "EXIT_CODE", "41", False),
    "a_failure_while_being_told_to_end_keeps_its_name": (4, True, None, "x", "ENGINE_EXCEPTION", "x", False),
}


@pytest.mark.parametrize("case", CASES)
def test_causes(case: str) -> None:
    status, told, said, words, name, part, permanent = CASES[case]
    cause = name_cause(status, told, said, words, RankState.LOADING, 7, 1.0)
    assert (cause.name, cause.permanent) == (name, permanent)
    assert part in cause.detail


def test_long_last_words_are_cut_from_the_front() -> None:
    cause = name_cause(1, False, None, "a" * 5000 + "the end", RankState.READY, 7, 1.0)
    assert len(cause.detail) < 600
    assert cause.detail.endswith("the end")
