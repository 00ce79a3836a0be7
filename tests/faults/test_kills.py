"""kill -9 of each role under four unfinished streams: how soon it is back. The answers: test_answers_go_on.py."""

import os
import signal
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from installation import ROLES, Installation, until
from streams import four_unfinished

BACK_S = 5.0


def serves(up: Installation, role: str) -> bool:
    """What the role's own health service says."""
    with grpc.insecure_channel(up.target(role)) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


# The others are killed in test_answers_go_on.py.
@pytest.mark.parametrize("role", ROLES if os.environ.get("PROVE") else ["gateway"])
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
    until("a good answer", fresh.answers, BACK_S)
    assert fresh.pid("rank") == rank, "the model was loaded again"
    evidence[f"{role}_answers_again_after_s"] = round(time.monotonic() - killed, 2)
    for stream in streams:
        stream.join(120)
    ends = {stream.end for stream in streams}
    if role == "gateway":
        assert all(end.startswith("broken") for end in ends), ends
    else:
        assert ends == {"finished"}, ends
