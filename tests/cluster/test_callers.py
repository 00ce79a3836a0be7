"""Who may call what: a rule for every RPC there is, and the few that are dangerous by name."""

import importlib
import itertools
import pkgutil

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import thunderline.v1
from thunderline.cluster.callers import CERTIFIED, MAY_CALL, Caller, check
from thunderline.cluster.errors import Unauthenticated

S, M, C, L, X = Caller.SCHEDULER, Caller.MEMBER, Caller.CLIENT, Caller.LOCAL, Caller.STRANGER


def described() -> dict[str, set[str]]:
    """Full names of the methods of every service that a role may serve, from the descriptors."""
    names = [one.name for one in pkgutil.iter_modules(thunderline.v1.__path__) if one.name.endswith("_pb2")]
    modules = [importlib.import_module(f"thunderline.v1.{name}") for name in names]
    return {
        service.full_name: {f"/{service.full_name}/{method.name}" for method in service.methods}
        for module in (*modules, health_pb2, reflection_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    }


METHODS = sorted(itertools.chain.from_iterable(described().values()))


def test_every_rpc_has_its_rule_and_every_rule_its_rpc() -> None:
    assert sorted(MAY_CALL) == METHODS


def test_the_descriptors_are_really_read() -> None:
    assert "/thunderline.v1.RunnerService/SetRank" in METHODS
    assert len(described()) == 8


RULES = {
    "only the scheduler node commands ranks": ("RunnerService/SetRank", {S, L}),
    "only the scheduler node changes whom a runner obeys": ("RunnerService/AdoptStore", {S, L}),
    "requests reach a runner through the scheduler alone": ("RunnerService/Generate", {S, L}),
    "and are cancelled by it alone": ("RunnerService/CancelGeneration", {S, L}),
    "ranks' operations go from runner to runner": ("RunnerService/FollowOperations", {S, M, L}),
    "a client asks the scheduler": ("SchedulerService/Generate", {S, M, C, L}),
    "a client deploys": ("SchedulerService/Deploy", {S, M, C, L}),
    "only the scheduler node takes runners over": ("SchedulerService/AdoptRunners", {S, L}),
    "a client is no member of the roster": ("DiscoveryService/ExchangeCard", {S, M, L}),
    "a rank comes by the Unix socket": ("RankService/Attach", {L}),
    "who joins has no certificate yet": ("EnrollmentService/SignCertificate", {S, M, L, X}),
}


@pytest.mark.parametrize(("method", "callers"), RULES.values(), ids=RULES.keys())
def test_rules(method: str, callers: set[Caller]) -> None:
    assert MAY_CALL[f"/thunderline.v1.{method}"] == callers


@pytest.mark.parametrize("method", METHODS)
def test_this_machine_and_its_scheduler_may_do_what_others_may(method: str) -> None:
    assert L in MAY_CALL[method]
    assert S in MAY_CALL[method] or MAY_CALL[method] == {L}
    assert M not in MAY_CALL[method] or S in MAY_CALL[method]


def test_a_client_reaches_the_scheduler_health_and_reflection_and_nothing_else() -> None:
    open_to_clients = {method.rpartition("/")[0] for method, callers in MAY_CALL.items() if C in callers}
    assert open_to_clients == {
        "/thunderline.v1.SchedulerService",
        "/grpc.health.v1.Health",
        "/grpc.reflection.v1alpha.ServerReflection",
    }


def test_a_stranger_reaches_enrolment_and_nothing_else() -> None:
    assert [method for method, callers in MAY_CALL.items() if X in callers] == [
        "/thunderline.v1.EnrollmentService/SignCertificate"
    ]


@pytest.mark.parametrize(("method", "caller"), list(itertools.product(METHODS, Caller)), ids=str)
def test_a_refusal_says_who_and_what(method: str, caller: Caller) -> None:
    if caller in MAY_CALL[method]:
        check(method, caller, "node n")
        return
    with pytest.raises(Unauthenticated, match="node n may not call ") as refused:
        check(method, caller, "node n")
    assert method in refused.value.message


@pytest.mark.parametrize("caller", Caller)
def test_what_the_table_does_not_name_nobody_calls(caller: Caller) -> None:
    with pytest.raises(Unauthenticated, match="allowed: nobody"):
        check("/thunderline.v1.RunnerService/Later", caller, "node n")


def test_certificates_are_for_three_kinds() -> None:
    assert {S, M, C} == CERTIFIED
