"""What `up` and `deploy` say of a deployment while it comes up, and when they stop waiting for it."""

from collections.abc import AsyncIterator

import pytest

from thunderline.cli.deploying import progress, sentence, until_one_ready
from thunderline.cluster.errors import ClusterError, CrashLoop, PlacementImpossible
from thunderline.v1 import cluster_pb2, scheduler_pb2

D = cluster_pb2
STARTING, READY = D.DEPLOYMENT_STATE_STARTING, D.DEPLOYMENT_STATE_READY
WAITING, REPAIRING = D.DEPLOYMENT_STATE_WAITING, D.DEPLOYMENT_STATE_REPAIRING
CRASH_LOOP, IMPOSSIBLE = D.DEPLOYMENT_STATE_CRASH_LOOP, D.DEPLOYMENT_STATE_IMPOSSIBLE
LOAD = D.LoadProgress(loaded_bytes=42, total_bytes=100)


def one(
    state: cluster_pb2.DeploymentState.ValueType,
    reason: str = "epoch 3 is somehow",
    name: str = "m",
    ranks: tuple[cluster_pb2.RankReport, ...] = (),
) -> cluster_pb2.Deployment:
    return D.Deployment(spec=D.DeploymentSpec(name=name), state=state, reason=reason, ranks=ranks)


def rank(state: cluster_pb2.RankState.ValueType, epoch: int = 3) -> cluster_pb2.RankReport:
    return D.RankReport(id=D.RankId(instance="i", epoch=epoch), state=state, load=LOAD)


OLD = rank(D.RANK_STATE_STOPPING, epoch=2)
SAID: dict[str, tuple[cluster_pb2.Deployment, str]] = {
    "no rank yet": (one(STARTING), "m starts"),
    "an engine that starts": (one(STARTING, ranks=(rank(D.RANK_STATE_PREPARED),)), "m starts"),
    "weights": (one(STARTING, ranks=(rank(D.RANK_STATE_LOADING),)), "m starts: its weights are read, 42%"),
    "warming": (one(STARTING, ranks=(rank(D.RANK_STATE_WARMING),)), "m starts: a trial run"),
    "a second start": (one(REPAIRING, ranks=(rank(D.RANK_STATE_WARMING), OLD)), "m is started again: a trial run"),
    "a rank that failed": (
        one(REPAIRING, "the last epoch ended: KILLED", ranks=(rank(D.RANK_STATE_FAILED),)),
        "m is REPAIRING: the last start ended: KILLED",
    ),
    "ready": (one(READY, "epoch 3 serves on node a"), "m is ready"),
    "waiting": (one(WAITING, "its files are being checked"), "m waits: its files are being checked"),
    "waiting after a failure": (one(WAITING, "the last epoch ended: KILLED"), "m waits: the last start ended: KILLED"),
}


@pytest.mark.parametrize("case", SAID)
def test_progress_is_said_without_our_own_words(case: str) -> None:
    deployment, said = SAID[case]
    assert progress(deployment) == said
    assert "epoch" not in said


def test_a_models_name_is_not_translated() -> None:
    assert sentence(one(WAITING, "epoch 2 of my-epoch-model failed")) == (
        "m is WAITING: start 2 of my-epoch-model failed"
    )


class LittleScheduler:
    """Shows one cluster after the other."""

    def __init__(self, *steps: list[cluster_pb2.Deployment]) -> None:
        self._steps = steps

    async def watch_cluster(self) -> AsyncIterator[scheduler_pb2.Cluster]:
        for step in self._steps:
            yield scheduler_pb2.Cluster(deployments=step)


LOST = one(CRASH_LOOP, "crashed 3 times", "a")


async def test_the_first_that_is_ready_is_enough() -> None:
    said: list[str] = []
    scheduler = LittleScheduler([LOST, one(STARTING, name="b")], [LOST, one(READY, name="b")])
    found = await until_one_ready(scheduler, ["a", "b"], said.append)  # type: ignore[arg-type]
    assert found.spec.name == "b"
    assert said == ["a is CRASH_LOOP: crashed 3 times", "b starts", "b is ready"]


HOPELESS: dict[str, tuple[list[cluster_pb2.Deployment], type[ClusterError]]] = {
    "every one of them is lost": ([LOST, one(IMPOSSIBLE, "does not fit", "b")], PlacementImpossible),
    "the only one is lost": ([LOST], CrashLoop),
    "nobody is there": ([one(READY, name="other")], PlacementImpossible),
}


@pytest.mark.parametrize("case", HOPELESS)
async def test_waiting_ends_when_none_can_become_ready(case: str) -> None:
    step, error = HOPELESS[case]
    with pytest.raises(error):
        await until_one_ready(LittleScheduler(step), ["a", "b"], lambda _: None)  # type: ignore[arg-type]
