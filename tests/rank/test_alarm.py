"""A rank that nobody watches ends itself; one that was frozen, and goes on, does not. In a process of its own."""

import signal
import subprocess
import sys

import pytest

# `stand` holds the interpreter's lock in C, as a collective may: no Python handler would run.
BEGIN = """
import ctypes, os, signal, sys, time
from thunderline.rank.alarm import AGAIN_S, arm

def stand():
    ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)

def left_s():
    return signal.getitimer(signal.ITIMER_REAL)[0]
"""

# what it does -> how it ends
CASES: dict[str, tuple[str, int]] = {
    "one_that_is_late_is_given_a_little_more": (
        "arm(0.1); time.sleep(0.3); assert AGAIN_S - 1 < left_s() <= AGAIN_S, left_s()",
        0,
    ),
    "and_is_ended_then_also_in_c": (
        "arm(0.1); time.sleep(0.2); signal.setitimer(signal.ITIMER_REAL, 0.1); stand()",
        -signal.SIGALRM,
    ),
    "the_first_alarm_comes_in_c_too": (
        "arm(0.1); os.fork() or (time.sleep(0.3), os.kill(os.getppid(), signal.SIGALRM), os._exit(0)); stand()",
        -signal.SIGALRM,
    ),
    "each_step_begins_anew": ("for _ in range(3): arm(0.05); time.sleep(0.1)\nassert left_s() > 1", 0),
    "one_that_waits_for_work_has_none": ("arm(0.1); arm(0.0); assert not left_s()", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_timer(case: str) -> None:
    what, code = CASES[case]
    assert subprocess.run([sys.executable, "-c", BEGIN + what], timeout=20, check=False).returncode == code


def test_one_that_was_frozen_beyond_its_deadline_goes_on() -> None:
    command = [sys.executable, "-c", BEGIN + "arm(0.3); print(flush=True); sys.stdin.read(1); arm(0.0)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as frozen:
        assert frozen.stdin is not None and frozen.stdout is not None
        frozen.stdout.readline()
        frozen.send_signal(signal.SIGSTOP)
        # Its timer goes on: the alarm waits for it.
        with pytest.raises(subprocess.TimeoutExpired):
            frozen.wait(0.5)
        frozen.send_signal(signal.SIGCONT)
        # A moment in which it would be ended.
        with pytest.raises(subprocess.TimeoutExpired):
            frozen.wait(0.1)
        frozen.stdin.close()
        assert frozen.wait(10) == 0
