"""What takes too long for `make test`: a machine that slept, and a long prompt, are no hang."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import httpx
import pytest

from faults.followers import follow, undisturbed_answers
from installation import DEMO, Installation, until

SLEPT_S = 15.0
PROMPT_TOKENS = 6000


@pytest.fixture(scope="module")
def undisturbed(fresh: Installation) -> list[object]:
    return undisturbed_answers(fresh)


def test_a_machine_that_slept_fails_nothing(
    fresh: Installation, undisturbed: list[object], evidence: dict[str, Any]
) -> None:
    until("a good answer", fresh.answers, 60)
    before = fresh.processes()

    def wake() -> None:
        for pid in before:
            os.kill(pid, signal.SIGCONT)

    def sleep() -> None:
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        threading.Timer(SLEPT_S, wake).start()

    followers, slept_s = asyncio.run(follow(fresh, sleep, 0.5))
    assert [follower.answer for follower in followers] == undisturbed
    paused_s = max(follower.pause_s(slept_s) for follower in followers)
    assert paused_s > SLEPT_S - 1, "the fault had no effect"
    assert fresh.processes() == before
    assert [one["state"] for one in fresh.deployments()] == ["DEPLOYMENT_STATE_READY"], DEMO
    evidence["machine_slept_s"] = SLEPT_S
    evidence["machine_slept_pause_s"] = round(paused_s, 2)
    evidence["machine_slept_streams_equal"] = len(followers)


@pytest.mark.timeout(900)
def test_a_long_prompt_beside_two_busy_loops_is_no_hang(fresh: Installation, evidence: dict[str, Any]) -> None:
    pid = fresh.pid("rank")
    begun_s = time.monotonic()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        answer = httpx.post(
            f"{fresh.url}/v1/completions",
            json={"model": DEMO, "prompt": [1000 + n % 5000 for n in range(PROMPT_TOKENS)], "max_tokens": 2},
            timeout=600,
        )
    finally:
        for one in busy:
            one.kill()
            one.wait()
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == PROMPT_TOKENS
    assert fresh.pid("rank") == pid
    evidence["long_prompt_tokens"] = PROMPT_TOKENS
    evidence["long_prompt_beside_two_busy_loops_s"] = round(time.monotonic() - begun_s, 1)
