"""What a role does in the background belongs to it: when that breaks, the role ends and says why."""

import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from installation import Installation, until


def serves(target: str) -> bool:
    with grpc.insecure_channel(target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            health.Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return True


@pytest.mark.parametrize("text", ["{}", "nonsense"], ids=["without an id", "that is no JSON"])
def test_discovery_ends_with_its_reason_when_its_card_cannot_be_made_any_more(tmp_path: Path, text: str) -> None:
    node = Installation(tmp_path / "home")
    role = subprocess.Popen(
        node.command("discovery"), env=node.variables(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        until("discovery serves", lambda: serves(node.target("discovery")), 20)
        (node.home / "node.json").write_text(text)
        _, said = role.communicate(timeout=20)
    finally:
        role.kill()
        role.communicate(timeout=10)
    assert role.returncode == 1
    assert said.strip().splitlines()[-1].startswith(f"thunderline discovery: {node.home / 'node.json'} holds no")
