"""A rank that stands still is found, named, and replaced. tests/prove/test_no_hangs.py has what is no hang."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from faults.followers import follow
from installation import Installation, installed, until
from thunderline.runner.hang import UNTAKEN_S

CANARY_EVERY_S = 3.0
# A step of these streams takes some tenths of a second: 10 s, and ten times that.
STEP_DEADLINE_S = 13.0
FOUND_WITHIN_S = 2.0


@pytest.fixture(scope="module")
def up(new_home: Callable[[str], Path]) -> Iterator[Installation]:
    """With a canary that sings often."""
    with installed(new_home("hangs"), "--demo", THUNDERLINE_LIMITS_CANARY_EVERY_S=str(CANARY_EVERY_S)) as installation:
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
