"""Why a rank ended, by name."""

from dataclasses import replace
from typing import Any

import pytest

from thunderline.cluster.rank_map import RankMark
from thunderline.cluster.ranks import RankState
from thunderline.runner.exit_cause import FATAL_SIGNALS, Ended, ExitCause, is_overdue, last_words, name_cause, phase

TOLD = ExitCause("LOAD_FAILED", "no such architecture", RankState.LOADING, 7, 1.0, permanent=True)
CRASH = """terminate called after throwing an instance of 'std::runtime_error'
  what():  [METAL] Command buffer execution failed: Insufficient Memory
Fatal Python error: Aborted

Thread 0x00007f (most recent call first):
  File "engine.py", line 1 in step

Current thread 0x00008f (most recent call first):
  <no Python frame>

Extension modules: mlx.core, psutil._psutil_linux (total: 2)
"""
SEGFAULT = "Fatal Python error: Segmentation fault\n\nThread 0x00007f (most recent call first):\n  no frame\n"
MEMORY = "want of memory"
STACKS = '  File "engine.py", line 1 in step\n  at mlx::core::Event::wait() in libmlx.dylib\n'
TIMEOUT = "what(): Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)\n"
BUFFERS = "RuntimeError: [metal::malloc] Resource limit (499000) exceeded."
OWN = Ended(status=None, asked=False, log="", state=RankState.LOADING, pid=7, uptime_s=1.0)


def child(status: int, log: str = "", **more: Any) -> Ended:
    return replace(OWN, status=status, log=log, **more)


def adopted(log: str = "", **more: Any) -> Ended:
    return replace(OWN, log=log, **more)


# what is left, what it said -> name, words in the detail, permanent
CASES: dict[str, tuple[Ended, ExitCause | None, str, str, bool]] = {
    "what_it_said_of_itself_wins": (child(3, "noise"), TOLD, "LOAD_FAILED", "no such architecture", True),
    "also_of_an_adopted_one": (adopted(CRASH), TOLD, "LOAD_FAILED", "no such architecture", True),
    "it_wins_over_being_told_to_end_too": (child(0, asked=True), TOLD, "LOAD_FAILED", "no such architecture", True),
    "told_to_end_and_it_did": (child(0, asked=True), None, "STOPPED", "told", False),
    "told_to_end_and_killed_in_the_end": (child(-9, asked=True), None, "STOPPED", "told", False),
    "an_adopted_one_that_was_told_to_end": (adopted(asked=True), None, "STOPPED", "told", False),
    "killed_by_nobody_of_us": (child(-9), None, "SIGNAL", "SIGKILL: killed from outside", False),
    "it_may_have_been_the_system": (child(-9, "words"), None, "SIGNAL", f"{MEMORY}: words", False),
    "a_segfault_has_its_name": (child(-11, SEGFAULT), None, "SIGNAL", "SIGSEGV: Fatal Python error: Seg", False),
    "a_crash_has_what_was_said_before_it": (child(-6, CRASH), None, "SIGNAL", "Insufficient Memory Fatal", False),
    "a_signal_without_a_name_has_its_number": (child(-63), None, "SIGNAL", "signal 63", False),
    "its_timer_after_its_deadline": (child(-14, is_overdue=True), None, "RANK_HUNG", "its own timer", False),
    "an_alarm_before_its_deadline": (child(-14), None, "SIGNAL", "SIGALRM", False),
    "killed_after_its_deadline_is_killed": (child(-9, is_overdue=True), None, "SIGNAL", "SIGKILL", False),
    "a_load_that_failed_is_permanent": (child(3, "bad weights"), None, "LOAD_FAILED", "bad weights", True),
    "an_exception_is_not": (child(4, "ValueError: x"), None, "ENGINE_EXCEPTION", "ValueError: x", False),
    "without_a_runner": (child(5), None, "RUNNER_GONE", "runner", False),
    "an_end_that_nobody_asked_for": (child(0), None, "EXIT_CODE", "by itself", False),
    "any_other_code": (child(41), None, "EXIT_CODE", "41", False),
    "a_failure_while_being_told_to_end_keeps_its_name": (
        child(4, "x", asked=True),
        None,
        "ENGINE_EXCEPTION",
        "x",
        False,
    ),
    "an_adopted_one_that_left_its_code": (child(4, "ValueError"), None, "ENGINE_EXCEPTION", "ValueError", False),
    "an_adopted_one_that_crashed": (adopted(CRASH), None, "SIGNAL", "SIGABRT: terminate called", False),
    "and_one_that_crashed_otherwise": (adopted(SEGFAULT), None, "SIGNAL", "SIGSEGV: Fatal", False),
    "and_one_that_python_ended": (adopted("Fatal Python error: none_dealloc: x\n"), None, "SIGNAL", "SIGABRT", False),
    "a_crash_after_the_deadline_is_a_crash": (adopted(SEGFAULT, is_overdue=True), None, "SIGNAL", "SIGSEGV", False),
    "an_adopted_one_after_its_deadline": (adopted("words", is_overdue=True), None, "RANK_HUNG", "words", False),
    "an_adopted_one_without_a_word": (adopted(), None, "KILLED", "without a word while LOADING: killed from", False),
    "it_too_may_have_been_the_system": (adopted("words"), None, "KILLED", f"{MEMORY}: words", False),
    "the_machine_was_restarted_under_it": (adopted("words", rebooted=True), None, "REBOOTED", "restarted", False),
}


@pytest.mark.parametrize("case", CASES)
def test_causes(case: str) -> None:
    ended, said, name, part, permanent = CASES[case]
    cause = name_cause(ended, said)
    assert (cause.name, cause.permanent, cause.state) == (name, permanent, RankState.LOADING)
    assert part in cause.detail


@pytest.mark.parametrize("text", FATAL_SIGNALS)
def test_every_signal_that_faulthandler_writes_of_has_its_name(text: str) -> None:
    assert name_cause(adopted(f"Fatal Python error: {text}\n"), None).detail.startswith(FATAL_SIGNALS[text].name)


def test_long_last_words_are_cut_from_the_front() -> None:
    cause = name_cause(child(1, "a" * 5000 + "the end"), None)
    assert len(cause.detail) < 600
    assert cause.detail.endswith("the end")


def test_last_words_are_the_last_five_lines_or_those_before_a_crash() -> None:
    assert last_words("".join(f"{n}\n" for n in range(9))) == "4 5 6 7 8"
    assert last_words(CRASH).startswith("terminate called")
    assert last_words(CRASH).endswith("Fatal Python error: Aborted")
    assert last_words("") == ""


@pytest.mark.parametrize(
    ("mark", "overdue"),
    [
        pytest.param(RankMark(boot_id="b", deadline_s=99.0), True, id="passed"),
        pytest.param(RankMark(boot_id="b", deadline_s=101.0), False, id="to come"),
        pytest.param(RankMark(boot_id="b"), False, id="none"),
        pytest.param(RankMark(boot_id="a", deadline_s=99.0), False, id="of the clock before a reboot"),
        pytest.param(None, False, id="no map"),
    ],
)
def test_a_deadline_counts_by_the_clock_that_it_was_written_with(mark: RankMark | None, overdue: bool) -> None:
    assert is_overdue(mark, "b", 100.0) is overdue


@pytest.mark.parametrize(
    ("written", "known", "expected"),
    [
        pytest.param(RankState.READY, RankState.LOADING, RankState.READY, id="its own word is newer"),
        pytest.param(RankState.READY, RankState.STOPPING, RankState.READY, id="being told to end is no phase"),
        pytest.param(RankState.FAILED, RankState.LOADING, RankState.LOADING, id="nor is to have failed"),
        pytest.param(None, RankState.LOADING, RankState.LOADING, id="without a map"),
    ],
)
def test_phase(written: RankState | None, known: RankState, expected: RankState) -> None:
    assert phase(None if written is None else RankMark(state=written), known) is expected


def test_what_a_rank_says_as_it_gets_ready_is_no_last_word() -> None:
    ready = '{"time": "2026-11-21T16:33:36.903Z", "level": "info", "role": "rank", "text": "ready"}'
    assert last_words(f"{ready}\n") == ""
    assert last_words(f"{ready}\nout of memory\n") == "out of memory"


# what is left, what it said -> words of its likely cause; "" is none
RECOGNISED: dict[str, tuple[Ended, ExitCause | None, str]] = {
    "in its last words": (child(-6, TIMEOUT + "Fatal Python error: Aborted\n"), None, "mlx#3830"),
    "also of an adopted one": (adopted(TIMEOUT + "Fatal Python error: Aborted\n"), None, "mlx#3830"),
    "in the stacks of its crash": (child(-6, f"Fatal Python error: Aborted\n\n{STACKS}"), None, "exo#1804"),
    "of the crash only, not of a stack before it": (child(-9, STACKS + "1\n2\n3\n4\n5\n"), None, ""),
    "in the engine's exception": (child(4, BUFFERS), None, "too many live Metal buffers (mlx-lm#831"),
    "in what it has said of itself": (child(4), replace(TOLD, detail=BUFFERS), "mlx-lm#831"),
    "not of one that was told to end": (child(0, BUFFERS, asked=True), None, ""),
    "not of one whose machine was restarted": (adopted(BUFFERS, rebooted=True), None, ""),
    "none": (child(-11, SEGFAULT), None, ""),
    "none of what it said of itself": (child(3), TOLD, ""),
}


@pytest.mark.parametrize(("ended", "said", "words"), RECOGNISED.values(), ids=RECOGNISED.keys())
def test_an_end_that_others_have_met_is_recognised(ended: Ended, said: ExitCause | None, words: str) -> None:
    cause = name_cause(ended, said)
    assert words in cause.signature
    assert (bool(cause.signature), bool(cause.remedy)) == (bool(words), bool(words))
