"""kill -9 of each role and of the rank, under four unfinished streams: it comes back, and nothing hangs."""

import os
import signal
import threading
import time
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from installation import DEMO, ROLES, Installation, until

BACK_S = 5.0
# No end token: each stream is long, whatever its seed says.
BODY = {
    "model": DEMO,
    "prompt": "Tell me a very long story.",
    "max_tokens": 200,
    "temperature": 1,
    "logit_bias": {"0": -100, "2": -100},
    "stream": True,
}


class Stream(threading.Thread):
    """One HTTP stream, and how it ended."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.url, self.body = url, {**BODY, "seed": seed}
        self.events = 0
        self.end = ""

    def run(self) -> None:
        try:
            with httpx.stream("POST", f"{self.url}/v1/completions", json=self.body, timeout=90) as answer:
                if answer.status_code != 200:
                    self.end = f"status {answer.status_code}"
                    return
                for line in answer.iter_lines():
                    self._line(line)
            self.end = self.end or "closed"
        except httpx.TransportError as error:
            self.end = f"broken: {type(error).__name__}"

    def _line(self, line: str) -> None:
        if line == "data: [DONE]":
            self.end = "finished"
        elif line.startswith('data: {"error"'):
            self.end = "typed error"
        elif line.startswith("data: "):
            self.events += 1


def serves(up: Installation, role: str) -> bool:
    """What the role's own health service says."""
    with grpc.insecure_channel(up.target(role)) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def four_unfinished(up: Installation) -> list[Stream]:
    """Four streams that have begun; fails when one is at its end already."""
    streams = [Stream(up.url, seed) for seed in range(4)]
    for stream in streams:
        stream.start()
    until("a token on each stream", lambda: all(stream.events >= 2 for stream in streams), 60)
    assert not any(stream.end for stream in streams), "the fault came too late"
    return streams


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_role_is_back_within_five_seconds_and_nothing_hangs(
    fresh: Installation, role: str, evidence: dict[str, Any]
) -> None:
    until("a good answer", fresh.answers, 60)
    streams = four_unfinished(fresh)
    pid, rank = fresh.pid(role), fresh.pid("rank")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    fresh.pid(role, other_than=pid, timeout_s=BACK_S)
    if role != "gateway":
        until(f"{role} serves", lambda: serves(fresh, role), BACK_S)
    if role == "runner":
        # The rank ends with its runner for now, so the answer waits for the model.
        until("a good answer", fresh.answers, 60)
    else:
        until("a good answer", fresh.answers, BACK_S)
        assert fresh.pid("rank") == rank, "the model was loaded again"
    evidence[f"{role}_answers_again_after_s"] = round(time.monotonic() - killed, 2)
    for stream in streams:
        stream.join(120)
    ends = {stream.end for stream in streams}
    if role == "gateway":
        assert all(end.startswith("broken") for end in ends), ends
    else:
        assert ends <= {"finished", "typed error"}, ends


def test_a_killed_rank_is_replaced_without_a_human(fresh: Installation, evidence: dict[str, Any]) -> None:
    until("a good answer", fresh.answers, 60)
    streams = four_unfinished(fresh)
    pid = fresh.pid("rank")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    for stream in streams:
        stream.join(120)
    assert {stream.end for stream in streams} <= {"finished", "typed error"}
    assert fresh.pid("rank", other_than=pid, timeout_s=60)
    until("a good answer", fresh.answers, 60)
    evidence["rank_answers_again_after_s"] = round(time.monotonic() - killed, 2)
