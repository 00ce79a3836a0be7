"""A model that crashes each time: the circuit opens after five, everybody says the same, and a human closes it."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from faults import hooked_rank
from installation import DEMO, Installation, end, until

OPEN_WITHIN_S = 120.0
DISAGREE_MAX_S = 1.0


@pytest.fixture(scope="module")
def up(new_home: Callable[[str], Path]) -> Iterator[Installation]:
    """A test build; nobody waits for READY, so that a chat tells at once where the deployment stands."""
    home = new_home("crashes")
    limits = {"THUNDERLINE_LIMITS_QUEUE_WAIT_S": "0.05", "THUNDERLINE_LIMITS_EPOCH_WAIT_MAX_S": "2"}
    installation = Installation(home, bin=hooked_rank.build(home.parent / "build"), environment=limits)
    installation.start("--demo")
    try:
        installation.wait_ready()
        yield installation
    finally:
        end(installation)


class Onlooker(threading.Thread):
    """Asks for status and for a chat, again and again: (when, state, status of the chat, its message)."""

    def __init__(self, up: Installation) -> None:
        super().__init__(daemon=True)
        self.up = up
        self.over = threading.Event()
        self.seen: list[tuple[float, str, int, str]] = []

    def run(self) -> None:
        body = {"model": DEMO, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        with httpx.Client(base_url=self.up.url, timeout=30) as client:
            while not self.over.wait(0.5):
                begun_s = time.monotonic()
                found = client.get("/readyz").json()["deployments"][0]
                answer = client.post("/v1/chat/completions", json=body)
                # A chat that a crash met on its way goes on until the next epoch: it tells nothing of this moment.
                if time.monotonic() - begun_s < 1.0:
                    message = "" if answer.status_code == 200 else answer.json()["error"]["message"]
                    self.seen.append((begun_s, found["state"], answer.status_code, message))

    def longest_disagreement_s(self) -> float:
        longest_s, since_s = 0.0, None
        for at_s, state, status, _ in self.seen:
            if (state == "READY") == (status == 200):
                since_s = None
            else:
                since_s = at_s if since_s is None else since_s
                longest_s = max(longest_s, at_s - since_s)
        return longest_s


def crash(up: Installation, how: str) -> None:
    """The first of the crashes."""
    (up.home / hooked_rank.FOLDER / how).touch()
    if how == hooked_rank.ABORT_IN_LOAD:
        # What has loaded goes on.
        os.kill(up.pid("rank"), signal.SIGKILL)
    elif how == hooked_rank.ABORT:
        # Idle ranks make no step: this request meets it.
        httpx.post(f"{up.url}/v1/completions", json={"model": DEMO, "prompt": "Once", "max_tokens": 1}, timeout=120)


def is_open(up: Installation, how: str) -> bool:
    if how == hooked_rank.ABORT_AT_REQUESTS:
        # One after the other: each ends ranks until it is refused, or until none are left to end.
        httpx.post(f"{up.url}/v1/completions", json={"model": DEMO, "prompt": "Once", "max_tokens": 1}, timeout=120)
    return bool(up.deployments()[0]["state"] == "DEPLOYMENT_STATE_CRASH_LOOP")


def told(up: Installation) -> list[dict[str, Any]]:
    return [json.loads(line) for line in up.run("events", "--json", timeout_s=20).stdout.splitlines()]


# How it crashes, the phase in which that happens, and how often it does until the circuit is open: of an epoch that
# has answered it does not count.
WAYS = [
    pytest.param(hooked_rank.ABORT, "WARMING", 5, id="in warm-up"),
    pytest.param(hooked_rank.ABORT_IN_LOAD, "LOADING", 5, id="in load"),
    pytest.param(hooked_rank.ABORT_AT_REQUESTS, "READY", 6, id="on every first request"),
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("how", "phase", "count"), WAYS if os.environ.get("PROVE") else WAYS[:1])
def test_a_model_that_crashes_each_time_opens_the_circuit_and_a_human_closes_it(
    up: Installation, how: str, phase: str, count: int, evidence: dict[str, Any]
) -> None:
    until("a good answer", up.answers, 60)
    onlooker = Onlooker(up)
    # What it asks would answer for epochs that crash with the next request.
    watched = how != hooked_rank.ABORT_AT_REQUESTS
    if watched:
        onlooker.start()
        until("a look at READY", lambda: any(state == "READY" for _, state, _, _ in onlooker.seen), 10)
    before = told(up)
    crash(up, how)
    until("an open circuit", lambda: is_open(up, how), OPEN_WITHIN_S, every_s=0.5)
    reason = up.deployments()[0]["reason"]
    assert "SIGABRT" in reason and "deploy" in reason, reason
    # The same sentence everywhere, at once.
    begun_s = time.monotonic()
    answer = httpx.post(f"{up.url}/v1/completions", json={"model": DEMO, "prompt": "Once"}, timeout=10)
    assert (answer.status_code, time.monotonic() - begun_s < 1.0) == (503, True)
    assert reason in answer.json()["error"]["message"]
    assert httpx.get(f"{up.url}/readyz").json()["deployments"][0]["reason"] == reason
    events = [one for one in told(up) if int(one["number"]) > int(before[-1]["number"])]
    ends = [one["text"] for one in events if one["kind"] == "EPOCH_ENDED" and f"SIGABRT while {phase}" in one["text"]]
    assert len(ends) == count, events
    assert "DEPLOYMENT_CRASH_LOOP" in {one["kind"] for one in events}
    evidence[f"crashes_{phase.lower()}"] = reason
    (up.home / hooked_rank.FOLDER / how).unlink()
    deployed = up.run("deploy", str(up.home / "models" / DEMO), timeout_s=60)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    until("a good answer", up.answers, 30)
    if watched:
        onlooker.over.set()
        onlooker.join(60)
        assert "CRASH_LOOP" in {state for _, state, _, _ in onlooker.seen}
        assert onlooker.longest_disagreement_s() <= DISAGREE_MAX_S, onlooker.seen
