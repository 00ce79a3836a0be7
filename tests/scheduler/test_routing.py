"""What a request gets in each state of its deployment."""

import pytest

from thunderline.cluster.errors import ClusterError, CrashLoop, NoReadyInstance, NotFound, PlacementImpossible
from thunderline.scheduler.routing import Way, waited_in_vain, way
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
