"""A rank that makes no step is found by its map; the test itself is the process that holds it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.little_model import make
from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.errors import RankHung
from thunderline.cluster.rank_map import SIZE_BYTES, Stand
from thunderline.cluster.ranks import RankState
from thunderline.rank.mark import Mark
from thunderline.runner import tokenizing
from thunderline.runner.generation import Generation
from thunderline.runner.hang import LOOK_EVERY_S, UNTAKEN_S
from thunderline.runner.known_rank import KnownRank
from thunderline.runner.rank_process import AdoptedProcess
from thunderline.runner.vigil import Vigil
from thunderline.v1 import cluster_pb2, rank_pb2

ALLOWED_S, CANARY_S = 11.0, 60.0


@dataclass
class Scene:
    rank: KnownRank
    mark: Mark
    vigil: Vigil
    now_s: float = 1000.0

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds / LOOK_EVERY_S)):
            self.now_s += LOOK_EVERY_S
            self.vigil.look(self.now_s)

    def ask(self) -> Generation:
        assert self.rank.words is not None
        generation = Generation(cluster_pb2.Generation(), [1], 9, self.rank.words)
        self.rank.insert(rank_pb2.Insert(), generation)
        return generation


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    path = tmp_path / "i1-1-0.map"
    path.write_bytes(bytes(SIZE_BYTES))
    mark = Mark(path)
    mark.enter(RankState.READY)
    mark.step(40, Stand.IDLE)
    rank = KnownRank(RankId(InstanceId("i1"), 1, 0), cluster_pb2.Placement(), tmp_path, lambda: None)
    rank.process, rank.state = AdoptedProcess(path, 0.0), RankState.READY
    rank.words = tokenizing.read(make(tmp_path / "little"))
    rank.attach(rank_pb2.Hello(state=cluster_pb2.RANK_STATE_READY))
    yield Scene(rank, mark, Vigil(lambda: [rank], CANARY_S))
    mark.close()


def test_a_step_that_does_not_end_is_a_hang_and_its_requests_are_told(scene: Scene) -> None:
    generation = scene.ask()
    scene.mark.step(41, Stand.COMPUTE, ALLOWED_S)
    scene.wait(ALLOWED_S)
    assert not scene.rank.is_hung
    scene.wait(2.0)
    assert scene.rank.is_hung and scene.rank.state is RankState.FAILED
    assert scene.rank.cause is not None and "in step 41" in scene.rank.cause.detail
    assert isinstance(generation._error, RankHung)


def test_steps_that_go_on_are_none_however_long_it_takes(scene: Scene) -> None:
    scene.ask()
    for step in range(41, 61):
        scene.mark.step(step, Stand.COMPUTE, ALLOWED_S)
        scene.wait(ALLOWED_S - 1)
    assert scene.rank.state is RankState.READY


def test_work_that_is_not_taken_up_is_a_hang(scene: Scene) -> None:
    scene.wait(30)
    scene.ask()
    scene.wait(UNTAKEN_S)
    assert scene.rank.state is RankState.READY
    scene.wait(1.0)
    assert scene.rank.is_hung


def test_an_idle_rank_shows_by_a_canary_that_it_lives(scene: Scene) -> None:
    scene.wait(CANARY_S - 1)
    assert not scene.rank.generations
    scene.wait(2.0)
    ((key, _),) = scene.rank.generations.items()
    news = rank_pb2.SequenceTokens(key=key, token_ids=[5], finish_reason=cluster_pb2.FINISH_REASON_LENGTH)
    scene.mark.step(41, Stand.IDLE)
    scene.rank.on_step(rank_pb2.StepReport(step=41, sequences=[news]))
    scene.wait(CANARY_S - 1)
    assert not scene.rank.generations and scene.rank.state is RankState.READY


def test_an_idle_rank_that_is_stopped_is_found_by_its_canary(scene: Scene) -> None:
    scene.wait(CANARY_S + UNTAKEN_S + 2)
    assert scene.rank.is_hung


def test_while_the_machine_sleeps_nobody_is_late(scene: Scene) -> None:
    scene.ask()
    scene.mark.step(41, Stand.COMPUTE, ALLOWED_S)
    scene.wait(1.0)
    scene.now_s += 3600
    scene.vigil.look(scene.now_s)
    scene.wait(ALLOWED_S - 3)
    assert scene.rank.state is RankState.READY
