"""kill -9 of each role under four unfinished streams: how soon it is back. The answers: test_answers_go_on.py."""

import os
import signal
import time
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from installation import GRPC_ROLES, Installation, until
from streams import four_unfinished, unfinished
from thunderline.process.metrics import PORT_OFFSET

COUNT = 8
BACK_S, GATEWAY_BACK_S, DROPPED_S = 5.0, 2.0, 1.0
HELD = ("thunderline_sequences_running{", "thunderline_sequences_parked{")


def serves(up: Installation, role: str) -> bool:
    """What the role's own health service says."""
    with grpc.insecure_channel(up.target(role)) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def sequences(up: Installation) -> int:
    """What the rank runs, waits with, and keeps for a resume."""
    text = httpx.get(f"http://127.0.0.1:{up.base_port + GRPC_ROLES['runner'] + PORT_OFFSET}/metrics", timeout=5).text
    values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(HELD)]
    assert len(values) == len(HELD), text
    return sum(int(float(value)) for value in values)


def door_is_open(up: Installation) -> bool:
    try:
        return httpx.get(f"{up.url}/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def test_a_killed_gateway_is_back_at_once_and_leaves_no_sequence_behind(
    fresh: Installation, evidence: dict[str, Any]
) -> None:
    """Its clients' connections are closed: nothing can be done for them, and nothing is."""
    until("a good answer", fresh.answers, 60)
    streams = unfinished(fresh, COUNT)
    assert until("all of them at the rank", lambda: sequences(fresh) == COUNT, 5)
    pid, rank = fresh.pid("gateway"), fresh.pid("rank")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    for stream in streams:
        stream.join(BACK_S)
    assert all(stream.end.startswith("broken") for stream in streams), [stream.end for stream in streams]
    until("no sequence at the rank", lambda: sequences(fresh) == 0, killed + DROPPED_S - time.monotonic())
    evidence["gateway_sequences_dropped_after_s"] = round(time.monotonic() - killed, 2)
    until("an open door", lambda: door_is_open(fresh), killed + GATEWAY_BACK_S - time.monotonic())
    evidence["gateway_back_after_s"] = round(time.monotonic() - killed, 2)
    until("a good answer", fresh.answers, BACK_S)
    assert fresh.pid("rank") == rank, "the model was loaded again"
    assert sequences(fresh) == 0


if os.environ.get("PROVE"):
    # Under streams whose content is compared: test_answers_go_on.py, of which `make test` has one round.
    @pytest.mark.parametrize("role", GRPC_ROLES)
    def test_a_killed_role_is_back_within_five_seconds_and_nothing_hangs(
        fresh: Installation, role: str, evidence: dict[str, Any]
    ) -> None:
        until("a good answer", fresh.answers, 60)
        streams = four_unfinished(fresh)
        pid, rank = fresh.pid(role), fresh.pid("rank")
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        fresh.pid(role, other_than=pid, timeout_s=BACK_S)
        until(f"{role} serves", lambda: serves(fresh, role), BACK_S)
        until("a good answer", fresh.answers, BACK_S)
        assert fresh.pid("rank") == rank, "the model was loaded again"
        evidence[f"{role}_answers_again_after_s"] = round(time.monotonic() - killed, 2)
        for stream in streams:
            stream.join(120)
        assert {stream.end for stream in streams} == {"finished"}
