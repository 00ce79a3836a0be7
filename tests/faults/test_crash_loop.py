"""A model that crashes each time: the circuit opens after five, everybody says the same, and a human closes it."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from faults import hooked_rank
from faults.onlooker import READY, Look, Onlooker, longest_disagreement_s
from installation import DEMO, Installation, end, until
from patience import PATIENCE

OPEN_WITHIN_S = 120.0
DISAGREE_MAX_S = 1.0 * PATIENCE


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
    with Onlooker(up) as onlooker:
        until("a look at READY", lambda: any((one.after, one.status) == (READY, 200) for one in onlooker.looks), 10)
        before = told(up)
        crash(up, how)
        until("an open circuit", lambda: is_open(up, how), OPEN_WITHIN_S, every_s=0.5)
        reason = up.deployments()[0]["reason"]
        assert "SIGABRT" in reason and "deploy" in reason, reason
        # The same sentence everywhere, at once.
        begun_s = time.monotonic()
        answer = httpx.post(f"{up.url}/v1/completions", json={"model": DEMO, "prompt": "Once"}, timeout=10)
        assert (answer.status_code, time.monotonic() - begun_s < 1.0 * PATIENCE) == (503, True)
        assert reason in answer.json()["error"]["message"]
        assert httpx.get(f"{up.url}/readyz").json()["deployments"][0]["reason"] == reason
        events = [one for one in told(up) if int(one["number"]) > int(before[-1]["number"])]
        words = f"SIGABRT while {phase}"
        assert sum(one["kind"] == "EPOCH_ENDED" and words in one["text"] for one in events) == count, events
        assert "DEPLOYMENT_CRASH_LOOP" in {one["kind"] for one in events}
        (up.home / hooked_rank.FOLDER / how).unlink()
        deployed = up.run("deploy", str(up.home / "models" / DEMO), timeout_s=60)
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        until("a good answer", up.answers, 30)
    assert any((one.after, one.status) == ("CRASH_LOOP", 503) for one in onlooker.looks)
    longest_s = longest_disagreement_s(onlooker.looks)
    assert longest_s <= DISAGREE_MAX_S, [one for one in onlooker.looks if not one.says(one.before)]
    evidence[f"crashes_{phase.lower()}"] = reason
    evidence[f"crashes_{phase.lower()}_looks"] = len(onlooker.looks)
    evidence[f"crashes_{phase.lower()}_longest_disagreement_s"] = round(longest_s, 2)


def look(at_s: float, before: str, status: int, after: str, took_s: float = 0.1) -> Look:
    return Look(at_s, before, status, "", at_s + took_s, after)


AROUND = [look(2.7, READY, 200, READY), look(3.2, READY, 200, READY), look(8.1, READY, 200, READY)]
REPAIRED = [look(2.5, "REPAIRING", 503, "REPAIRING"), look(5.8, "REPAIRING", 503, READY)]


@pytest.mark.parametrize(
    ("seen", "expected_s"),
    [
        pytest.param([*AROUND, look(3.0, READY, 503, READY, 5.0)], 5.3, id="READY, refused after five seconds"),
        pytest.param([*AROUND, look(3.0, READY, 503, READY)], 0.4, id="seen once: from an agreement to the next"),
        pytest.param([*AROUND, look(3.0, "REPAIRING", 200, "REPAIRING")], 0.4, id="not READY, and answered"),
        pytest.param([*AROUND, look(3.0, READY, 200, READY, 5.0)], 0.0, id="answered in the next epoch"),
        pytest.param([look(3.0, READY, 503, "CRASH_LOOP", 5.0)], 5.0, id="READY, and refused as late as that was told"),
        pytest.param([*AROUND, look(3.0, READY, 503, "CRASH_LOOP", 5.0)], 5.0, id="the others were told READY too"),
        pytest.param(
            [look(3.0, READY, 503, "CRASH_LOOP", 5.0), look(3.3, "REPAIRING", 503, "REPAIRING")],
            0.3,
            id="a crash met it on its way, and the others were told",
        ),
        pytest.param([*REPAIRED, look(3.0, "REPAIRING", 200, READY, 3.0)], 2.9, id="not READY, and kept for READY"),
        pytest.param([*REPAIRED, look(5.7, "REPAIRING", 200, READY, 0.3)], 0.2, id="READY a moment later"),
        pytest.param([*REPAIRED, look(5.0, "REPAIRING", 503, READY, 3.0)], 0.0, id="refused as it was told"),
        pytest.param([], 0.0, id="nobody looked"),
    ],
)
def test_the_onlooker_counts(seen: list[Look], expected_s: float) -> None:
    assert longest_disagreement_s(seen) == pytest.approx(expected_s)
