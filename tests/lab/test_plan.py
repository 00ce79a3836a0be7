"""Two hosts with a cable and a VPN, from a cold start on: a plan over both never dials the VPN, not for a moment."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from lab.media import Medium
from lab.network import Lab
from lab.nodes import ROLES, Cluster, Node
from lab.pairs import turns
from thunderline.v1 import cluster_pb2, planning_pb2, scheduler_pb2_grpc

WATCHED_S, EVERY_S = 12.0, 0.5
# The demo takes 1.1 GiB with its KV and activations: no node has room for it alone, two have.
MEMORY_BYTES = 900_000_000
# The first plan of all tries how the engine can split the architecture.
FIRST_S, PLACED_S, CALL_S = 60.0, 60.0, 20.0
PLACED, WAITING = planning_pb2.PLAN_VERDICT_PLACED, planning_pb2.PLAN_VERDICT_WAITING
# Where topology remembers cables.
CABLES = "cables.json"

Plan = planning_pb2.PlanPlacementResponse


def planned(node: Node, model: Path, timeout_s: float = CALL_S) -> Plan | None:
    """None: nobody answers yet."""
    stub: Any = scheduler_pb2_grpc.SchedulerServiceStub(node.channel("scheduler"))
    request = planning_pb2.PlanPlacementRequest(spec=cluster_pb2.DeploymentSpec(model=str(model)))
    try:
        answer: Plan = stub.PlanPlacement(request, timeout=timeout_s)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
        return None
    return answer


def dialled(plan: Plan | None) -> set[str]:
    ranks = plan.placement.ranks if plan is not None else ()
    return {dial.link.peer_address for rank in ranks for dial in rank.dials}


def start(nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        node.start(*ROLES, "runner", *(["scheduler"] if node is nodes[0] else []))


def addresses(medium: Medium) -> set[str]:
    return set(medium.addresses.values())


@pytest.mark.parametrize("remembers", [True, False], ids=["with the cable remembered", "knowing of no cable"])
def test_from_a_cold_start_on_no_plan_dials_the_vpn(
    net: Lab, new_cluster: Callable[..., Cluster], demo_folder: Path, remembers: bool, evidence: dict[str, Any]
) -> None:
    hosts = net.host("a"), net.host("b")
    cable, vpn = net.cable(*hosts), net.tunnel(*hosts)
    cluster = new_cluster(
        THUNDERLINE_RUNNER_MEMORY_BYTES=str(MEMORY_BYTES), THUNDERLINE_RUNNER_MODEL_ROOTS=str(demo_folder.parent)
    )
    one, other = nodes = cluster.node(hosts[0]), cluster.node(hosts[1], seeds=[hosts[0].address(vpn)])
    start(nodes)
    one.until_serving("scheduler")

    def until_placed(timeout_s: float) -> Plan:
        end_s = time.monotonic() + timeout_s
        while (plan := planned(one, demo_folder, FIRST_S)) is None or plan.verdict != PLACED:
            assert time.monotonic() < end_s, plan
            time.sleep(EVERY_S)
        return plan

    until_placed(FIRST_S)
    for node in nodes:
        node.kill()
        if not remembers:
            (node.home / CABLES).unlink(missing_ok=True)

    start(nodes)
    begun_s, told, placed_after_s = time.monotonic(), [], 0.0
    while time.monotonic() < begun_s + WATCHED_S:
        plan = planned(one, demo_folder)
        assert not dialled(plan) & addresses(vpn), plan
        told.append(planning_pb2.PlanVerdict.Name(plan.verdict) if plan is not None else "")
        if plan is not None:
            assert plan.verdict in (PLACED, WAITING), plan.why
            if plan.verdict == PLACED:
                placed_after_s = placed_after_s or time.monotonic() - begun_s
        time.sleep(EVERY_S)
    last = until_placed(PLACED_S)
    placed_after_s = round(placed_after_s or time.monotonic() - begun_s, 2)
    assert dialled(last) == addresses(cable), (turns(told), last)
    assert not last.placement.slow
    assert {rank.node_id for rank in last.placement.ranks} == {one.node_id, other.node_id}
    evidence["plans_of_which_none_dials_the_vpn"] = evidence.get("plans_of_which_none_dials_the_vpn", 0) + len(told)
    evidence["placed_within_s"] = max(placed_after_s, evidence.get("placed_within_s", 0.0))
