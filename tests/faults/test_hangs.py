"""A rank that stands still is found, named, and replaced. tests/prove/test_no_hangs.py has what is no hang."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from faults.followers import follow, undisturbed_answers
from faults.stopped import FOUND_WITHIN_S, Stopped, stop
from installation import Installation, installed, until
from patience import PATIENCE
from thunderline.runner.hang import UNTAKEN_S

CANARY_EVERY_S = 3.0
# Its epoch ends within a quarter of it; the next process follows.
NEXT_WITHIN_S = 5.0 * PATIENCE


@pytest.fixture(scope="module")
def up(new_home: Callable[[str], Path]) -> Iterator[Installation]:
    """With a canary that sings often."""
    with installed(new_home("hangs"), "--demo", THUNDERLINE_LIMITS_CANARY_EVERY_S=str(CANARY_EVERY_S)) as installation:
        yield installation


@pytest.fixture(scope="module")
def undisturbed(up: Installation) -> list[object]:
    return undisturbed_answers(up)


def end_of(up: Installation, pid: int) -> dict[str, Any] | None:
    """The event that tells of this process."""
    told = up.run("events", "--json", "--count", "200", timeout_s=20).stdout.splitlines()
    events = [json.loads(line) for line in told]
    return next((one for one in events if one["kind"] == "EPOCH_ENDED" and f"pid {pid}" in one["text"]), None)


def found_after_s(up: Installation, stopped: Stopped) -> float:
    """From the stop to the end of its epoch, whose cause names the phase and where it stood."""
    event = until("its event", lambda: end_of(up, stopped.pid), 10)
    assert "RANK_HUNG while READY" in event["text"], event
    assert stopped.words in event["text"], (stopped, event)
    moment = Timestamp()
    moment.FromJsonString(event["time"])
    return moment.ToNanoseconds() / 1e9 - stopped.time_s


def test_a_rank_that_is_stopped_under_streams_is_found_and_they_go_on(
    up: Installation, undisturbed: list[object], evidence: dict[str, Any]
) -> None:
    pid, stops = up.pid("rank"), list[Stopped]()
    followers, stopped_s = asyncio.run(follow(up, lambda: stops.append(stop(up, pid)), 1.5))
    (stopped,) = stops
    assert [follower.answer for follower in followers] == undisturbed
    assert up.pid("rank", other_than=pid) != pid and not psutil.pid_exists(pid)
    found_s = found_after_s(up, stopped)
    assert found_s <= stopped.allowed_s + FOUND_WITHIN_S, stopped
    paused_s = max(follower.pause_s(stopped_s) for follower in followers)
    assert paused_s > UNTAKEN_S, "the fault had no effect"
    evidence["stopped_under_streams_deadline_s"] = round(stopped.allowed_s, 2)
    evidence["stopped_under_streams_found_after_s"] = round(found_s, 2)
    evidence["stopped_under_streams_pause_s"] = round(paused_s, 2)
    evidence["stopped_under_streams_equal"] = len(followers)


def test_an_idle_rank_that_is_stopped_is_found_by_its_canary(up: Installation, evidence: dict[str, Any]) -> None:
    until("a good answer", up.answers, 60)
    stopped = stop(up, up.pid("rank"))
    # Of one that was just at its canary's step the map says it.
    allowed_s = stopped.allowed_s if stopped.is_in_a_step else CANARY_EVERY_S + stopped.allowed_s
    up.pid("rank", other_than=stopped.pid, timeout_s=allowed_s + FOUND_WITHIN_S + NEXT_WITHIN_S)
    found_s = found_after_s(up, stopped)
    assert UNTAKEN_S - 1 < found_s <= allowed_s + FOUND_WITHIN_S, stopped
    until("a good answer", up.answers, 60)
    evidence["stopped_idle_deadline_with_canary_s"] = round(allowed_s, 2)
    evidence["stopped_idle_found_after_s"] = round(found_s, 2)
