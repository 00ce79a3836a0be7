"""Protos to the scheduler's values and back."""

import pytest

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler import wire
from thunderline.scheduler.placing.values import Placement, Rank, Strategy
from thunderline.scheduler.values import Audit, Cause, DeploymentState, Epoch, RankView, Spec, Standing, Verdict, Wish
from thunderline.v1 import cluster_pb2, runner_pb2

A = NodeId("a")
I1 = InstanceId("i1")
SPEC = Spec("m", "org/m", 9_000)
WHOLE = Placement(Strategy.WHOLE, None, (Rank(A, 0, 30, 8, needed_bytes=7, left_bytes=9),), 9_000, reasons=("it fits",))


@pytest.mark.parametrize("state", RankState, ids=lambda state: state.name)
def test_every_rank_state_has_the_protos_number(state: RankState) -> None:
    number = cluster_pb2.RankState.Value(f"RANK_STATE_{state.name}")
    assert wire.rank_view(A, cluster_pb2.RankReport(state=number)).state is state


@pytest.mark.parametrize("verdict", Verdict, ids=lambda verdict: verdict.name)
def test_every_verdict_has_the_protos_number(verdict: Verdict) -> None:
    number = runner_pb2.ModelVerdict.Value(f"MODEL_VERDICT_{verdict.name}")
    assert wire.audit(runner_pb2.AuditModelResponse(verdict=number), 5.0) == Audit(verdict, at_s=5.0)


@pytest.mark.parametrize("state", DeploymentState, ids=lambda state: state.name)
def test_every_deployment_state_has_the_protos_number(state: DeploymentState) -> None:
    found = wire.deployment(Wish(SPEC, I1, 0.0), Standing(state, "because"), 1.5, [], 0)
    assert found.state == cluster_pb2.DeploymentState.Value(f"DEPLOYMENT_STATE_{state.name}")


def test_a_report_becomes_a_view() -> None:
    report = cluster_pb2.RankReport(
        id=cluster_pb2.RankId(instance="i1", epoch=4, rank=0),
        state=cluster_pb2.RANK_STATE_FAILED,
        load=cluster_pb2.LoadProgress(loaded_bytes=43, total_bytes=100),
        cause=cluster_pb2.ExitCause(
            name="LOAD_FAILED",
            detail="no such architecture",
            state=cluster_pb2.RANK_STATE_LOADING,
            permanent=True,
            signature="Metal (exo#1804)",
            remedy="send fewer",
        ),
        placement=cluster_pb2.Placement(ranks=[cluster_pb2.RankAssignment(memory_bytes=7)]),
        engine=cluster_pb2.EngineFacts(
            kv_budget_tokens=8_192, context_length_tokens=2_048, batching="batch", batching_reason="why"
        ),
    )
    assert wire.rank_view(A, report) == RankView(
        RankId(I1, 4, 0),
        A,
        RankState.FAILED,
        Cause("LOAD_FAILED", "no such architecture", RankState.LOADING, True, "Metal (exo#1804)", "send fewer"),
        0.43,
        7,
        8_192,
        2_048,
        "batch",
        "why",
        attached=False,
    )


def test_a_report_that_says_little_has_no_cause_and_no_progress() -> None:
    view = wire.rank_view(A, cluster_pb2.RankReport(state=cluster_pb2.RANK_STATE_STARTING))
    assert (view.cause, view.loaded_share, view.memory_bytes, view.attached) == (None, None, 0, False)


def test_a_rank_that_is_dialled_in_says_so() -> None:
    report = cluster_pb2.RankReport(state=cluster_pb2.RANK_STATE_READY, attached=True)
    assert wire.rank_view(A, report).attached


def test_a_cause_without_a_state_is_of_an_unknown_one() -> None:
    report = cluster_pb2.RankReport(
        state=cluster_pb2.RANK_STATE_ABSENT, cause=cluster_pb2.ExitCause(name="SIGNAL", detail="SIGKILL")
    )
    assert wire.rank_view(A, report).cause == Cause("SIGNAL", "SIGKILL", RankState.UNKNOWN)


def test_a_placement_names_its_node_its_layers_and_its_memory() -> None:
    made = wire.placement(Wish(SPEC, I1, 0.0), 4, WHOLE)
    assert (made.instance, made.epoch, made.kv_budget_tokens, list(made.reasons)) == ("i1", 4, 9_000, ["it fits"])
    assert [(rank.rank, rank.node_id, rank.first_layer, rank.end_layer, rank.memory_bytes) for rank in made.ranks] == [
        (0, "a", 0, 30, 7)
    ]
    assert wire.spec(made.deployment, "m") == SPEC


def test_the_same_placement_gives_the_same_bytes() -> None:
    one, other = (wire.placement(Wish(SPEC, I1, 0.0), 4, WHOLE) for _ in range(2))
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


STOPPED = Cause("STOPPED", "told to end with its runner", RankState.UNKNOWN)


def epoch(number: int, over: bool = True, ready: bool = False, cause: Cause | None = None) -> Epoch:
    return Epoch(number, 10.0, A, 1, 1, 11.0 if ready else None, 12.0 if over else None, cause)


@pytest.mark.parametrize(
    ("epochs", "count"),
    [
        pytest.param((), 0, id="none yet"),
        pytest.param((epoch(1, over=False),), 0, id="one that lives has not failed"),
        pytest.param((epoch(1), epoch(2)), 2, id="each that ended counts"),
        pytest.param((epoch(1), epoch(2), epoch(3, over=False)), 2, id="also while the next is under way"),
        pytest.param((epoch(1), epoch(2, ready=True), epoch(3)), 1, id="only those since it was READY"),
        pytest.param((epoch(1), epoch(2, over=False, ready=True)), 0, id="none while it is READY"),
        pytest.param((epoch(1), epoch(2, cause=STOPPED), epoch(3)), 1, id="only those since one was told to end"),
    ],
)
def test_failed_in_a_row(epochs: tuple[Epoch, ...], count: int) -> None:
    assert wire.failed_in_a_row(Wish(SPEC, I1, 5.0, epochs=epochs)) == count


def test_only_failures_since_the_last_deploy_count() -> None:
    assert wire.failed_in_a_row(Wish(SPEC, I1, 5.0, epochs=(epoch(1), epoch(2)), fresh_above=1)) == 1
