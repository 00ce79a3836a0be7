"""A rank that stands still is found, named, and replaced; a machine that slept, and a long prompt, are no hang."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from faults.followers import follow
from installation import DEMO, Installation, installed, until
from thunderline.runner.hang import UNTAKEN_S

CANARY_EVERY_S = 3.0
# A step of these streams takes some tenths of a second: 10 s, and ten times that.
STEP_DEADLINE_S = 13.0
FOUND_WITHIN_S = 2.0
SLEPT_S = 15.0
PROMPT_TOKENS = 6000 if os.environ.get("PROVE") else 600


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """With a canary that sings often."""
    home: Path = tmp_path_factory.mktemp("hangs") / "home"
    with installed(home, "--demo", THUNDERLINE_LIMITS_CANARY_EVERY_S=str(CANARY_EVERY_S)) as installation:
        yield installation


@pytest.fixture(scope="module")
def undisturbed(up: Installation) -> list[object]:
    followers, _ = asyncio.run(follow(up, None))
    assert not any(follower.error for follower in followers)
    return [follower.answer for follower in followers]


def hung(up: Installation, pid: int) -> dict[str, Any] | None:
    """The event that tells of this process."""
    told = up.run("events", "--json", "--count", "200", timeout_s=20).stdout.splitlines()
    events = [json.loads(line) for line in told]
    return next((one for one in events if one["kind"] == "EPOCH_ENDED" and f"pid {pid}" in one["text"]), None)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    until("a stopped process", lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 2, every_s=0.01)


def test_a_rank_that_is_stopped_under_streams_is_found_and_they_go_on(
    up: Installation, undisturbed: list[object]
) -> None:
    pid = up.pid("rank")
    followers, stopped_s = asyncio.run(follow(up, lambda: stop(pid), 1.5))
    assert [follower.answer for follower in followers] == undisturbed
    assert up.pid("rank", other_than=pid) != pid and not psutil.pid_exists(pid)
    event = until("its event", lambda: hung(up, pid), 10)
    assert "RANK_HUNG" in event["text"], event
    paused_s = max(follower.pause_s(stopped_s) for follower in followers)
    assert paused_s > UNTAKEN_S, "the fault had no effect"


def test_an_idle_rank_that_is_stopped_is_found_by_its_canary(up: Installation) -> None:
    until("a good answer", up.answers, 60)
    pid = up.pid("rank")
    stop(pid)
    stopped_s = time.monotonic()
    up.pid("rank", other_than=pid, timeout_s=CANARY_EVERY_S + STEP_DEADLINE_S + FOUND_WITHIN_S)
    assert time.monotonic() - stopped_s > CANARY_EVERY_S
    assert "RANK_HUNG" in until("its event", lambda: hung(up, pid), 10)["text"]
    until("a good answer", up.answers, 60)


def test_a_machine_that_slept_fails_nothing(up: Installation, undisturbed: list[object]) -> None:
    until("a good answer", up.answers, 60)
    before = up.processes()

    def wake() -> None:
        for pid in before:
            os.kill(pid, signal.SIGCONT)

    def sleep() -> None:
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        threading.Timer(SLEPT_S, wake).start()

    followers, slept_s = asyncio.run(follow(up, sleep, 0.5))
    assert [follower.answer for follower in followers] == undisturbed
    assert max(follower.pause_s(slept_s) for follower in followers) > SLEPT_S - 1, "the fault had no effect"
    assert up.processes() == before
    assert [one["state"] for one in up.deployments()] == ["DEPLOYMENT_STATE_READY"], DEMO


@pytest.mark.timeout(900)
def test_a_long_prompt_beside_two_busy_loops_is_no_hang(up: Installation) -> None:
    """Its steps are chunks; the whole of it takes minutes in `make prove`."""
    pid = up.pid("rank")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        answer = httpx.post(
            f"{up.url}/v1/completions",
            json={"model": DEMO, "prompt": [1000 + n % 5000 for n in range(PROMPT_TOKENS)], "max_tokens": 2},
            timeout=600,
        )
    finally:
        for one in busy:
            one.kill()
            one.wait()
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == PROMPT_TOKENS
    assert up.pid("rank") == pid
