"""What a request gets in each state of its deployment."""

import pytest

from thunderline.cluster.errors import (
    ClusterError,
    CrashLoop,
    NoReadyInstance,
    NotFound,
    PlacementImpossible,
    RequestPoisoned,
)
from thunderline.scheduler.routing import (
    ALONE_HOLD_S,
    ALONE_WAIT_S,
    Kind,
    Turn,
    Way,
    gives_up_s,
    kind,
    may_go_alone,
    turn_beside_a_silent_one,
    waited_in_vain,
    way,
)
from thunderline.scheduler.values import DeploymentState, Standing

S = DeploymentState
ANSWERS: dict[DeploymentState | None, Way | type[ClusterError]] = {
    None: NotFound,
    S.WAITING: Way.WAIT_FOR_READY,
    S.STARTING: Way.WAIT_FOR_READY,
    S.READY: Way.GO,
    S.REPAIRING: Way.WAIT_FOR_READY,
    S.CRASH_LOOP: CrashLoop,
    S.IMPOSSIBLE: PlacementImpossible,
    S.UNDEPLOYING: NotFound,
}


def standing(state: DeploymentState | None) -> Standing | None:
    return None if state is None else Standing(state, "epoch 4 is LOADING, 43%")


def test_every_state_has_an_answer() -> None:
    assert set(ANSWERS) == {None, *DeploymentState}


@pytest.mark.parametrize(("state", "answer"), ANSWERS.items(), ids=lambda value: getattr(value, "name", str(value)))
@pytest.mark.parametrize("outstanding", [0, 255, 256, 300])
def test_a_request_gets(state: DeploymentState | None, answer: Way | type[ClusterError], outstanding: int) -> None:
    if isinstance(answer, Way):
        full = answer is Way.GO and outstanding >= 256
        assert way("m", standing(state), outstanding, 256) is (Way.WAIT_FOR_ROOM if full else answer)
        return
    with pytest.raises(answer) as refused:
        way("m", standing(state), outstanding, 256)
    assert "m" in refused.value.message
    assert not refused.value.resumable


@pytest.mark.parametrize("state", [S.CRASH_LOOP, S.IMPOSSIBLE], ids=lambda state: state.name)
def test_a_refusal_carries_the_deployments_sentence(state: DeploymentState) -> None:
    with pytest.raises(ClusterError, match=f"m is {state.name}: epoch 4 is LOADING, 43%"):
        way("m", standing(state), 0, 256)


def test_an_unknown_model_is_blamed_on_its_parameter() -> None:
    with pytest.raises(NotFound) as refused:
        way("m", None, 0, 256)
    assert refused.value.param == "model"


def test_waiting_in_vain_says_what_it_waited_for_and_when_to_come_back() -> None:
    error = waited_in_vain("m", standing(S.STARTING))
    assert isinstance(error, NoReadyInstance)
    assert error.message == "m is STARTING: epoch 4 is LOADING, 43%"
    assert error.retry_after_s is not None and 1 <= error.retry_after_s <= 5


# resume, lost_rank_count: kind; None is a refusal.
KINDS: dict[tuple[bool, int], Kind | None] = {
    (False, 0): Kind.NEW,
    (True, 0): Kind.RESUMED,
    (True, 1): Kind.RESUMED,
    (True, 2): Kind.ALONE,
    (False, 2): Kind.ALONE,
    (True, 3): None,
    (False, 4): None,
}


@pytest.mark.parametrize(("given", "expected"), KINDS.items(), ids=str)
def test_a_request_is_of_a_kind(given: tuple[bool, int], expected: Kind | None) -> None:
    if expected is not None:
        assert kind(*given) is expected
        return
    with pytest.raises(RequestPoisoned) as refused:
        kind(*given)
    assert not refused.value.resumable


def test_the_order_of_turns() -> None:
    assert Kind.ALONE < Kind.RESUMED < Kind.NEW


@pytest.mark.parametrize(
    ("other_count", "waited_s", "goes"),
    [(0, 0.0, True), (1, 0.0, False), (1, ALONE_WAIT_S - 0.1, False), (1, ALONE_WAIT_S, True), (0, ALONE_WAIT_S, True)],
)
def test_one_that_runs_alone_waits_for_the_others_and_not_for_ever(
    other_count: int, waited_s: float, goes: bool
) -> None:
    assert may_go_alone(other_count, waited_s) is goes


# Its kind, how long the silent one has run: what it gets.
BESIDE: dict[tuple[Kind, float], Turn] = {
    (Kind.ALONE, 0.0): Turn.WAITS,
    (Kind.RESUMED, 0.0): Turn.WAITS,
    (Kind.NEW, ALONE_HOLD_S - 0.1): Turn.WAITS,
    (Kind.ALONE, ALONE_HOLD_S): Turn.LETS_PASS,
    (Kind.ALONE, 10 * ALONE_HOLD_S): Turn.LETS_PASS,
    (Kind.RESUMED, ALONE_HOLD_S): Turn.GOES,
    (Kind.NEW, ALONE_HOLD_S): Turn.GOES,
}


@pytest.mark.parametrize(("given", "turn"), BESIDE.items(), ids=str)
def test_beside_one_that_went_alone_and_has_not_spoken(given: tuple[Kind, float], turn: Turn) -> None:
    assert turn_beside_a_silent_one(*given) is turn


@pytest.mark.parametrize(
    ("arrived_s", "away_since_s", "at_s"),
    [
        pytest.param(100.0, 100.0, 130.0, id="it came while the deployment was not READY"),
        pytest.param(100.0, 40.0, 130.0, id="it came later than that"),
        pytest.param(100.0, 129.9, 159.9, id="it waited for room before"),
    ],
)
def test_only_the_time_without_ready_is_a_queue_wait(arrived_s: float, away_since_s: float, at_s: float) -> None:
    assert gives_up_s(arrived_s, away_since_s, 30.0) == pytest.approx(at_s)
