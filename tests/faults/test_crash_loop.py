"""A model that crashes each time: the circuit opens after five, everybody says the same, and a human closes it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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


@pytest.mark.timeout(300)
def test_a_model_that_crashes_in_warm_up_opens_the_circuit_and_a_human_closes_it(up: Installation) -> None:
    until("a good answer", up.answers, 60)
    onlooker = Onlooker(up)
    onlooker.start()
    until("a look at READY", lambda: any(state == "READY" for _, state, _, _ in onlooker.seen), 10)
    abort = up.home / hooked_rank.FOLDER / "abort"
    abort.touch()
    # Idle ranks make no step: this request meets the first crash.
    httpx.post(f"{up.url}/v1/completions", json={"model": DEMO, "prompt": "Once", "max_tokens": 1}, timeout=120)
    state = "DEPLOYMENT_STATE_CRASH_LOOP"
    until("an open circuit", lambda: up.deployments()[0]["state"] == state, OPEN_WITHIN_S, every_s=0.5)
    reason = up.deployments()[0]["reason"]
    assert "SIGABRT" in reason and "deploy" in reason, reason
    # The same sentence everywhere, at once.
    begun_s = time.monotonic()
    answer = httpx.post(f"{up.url}/v1/completions", json={"model": DEMO, "prompt": "Once"}, timeout=10)
    assert (answer.status_code, time.monotonic() - begun_s < 1.0) == (503, True)
    assert reason in answer.json()["error"]["message"]
    assert httpx.get(f"{up.url}/readyz").json()["deployments"][0]["reason"] == reason
    told = [json.loads(line)["kind"] for line in up.run("events", "--json", timeout_s=20).stdout.splitlines()]
    assert "DEPLOYMENT_CRASH_LOOP" in told and told.count("EPOCH_ENDED") >= 5
    abort.unlink()
    deployed = up.run("deploy", str(up.home / "models" / DEMO), timeout_s=60)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    until("a good answer", up.answers, 30)
    onlooker.over.set()
    onlooker.join(60)
    assert "CRASH_LOOP" in {state for _, state, _, _ in onlooker.seen}
    assert onlooker.longest_disagreement_s() <= DISAGREE_MAX_S, onlooker.seen
