"""Stories of the engine thread, with a real model and a list in place of the stream."""

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from thunderline.cluster.rank_map import SIZE_BYTES
from thunderline.cluster.ranks import RankState
from thunderline.rank.mark import Mark
from thunderline.rank.worker import UNSENT_COUNT_MAX, Worker
from thunderline.v1 import cluster_pb2, rank_pb2

WAIT_S = 30.0


class Desk:
    """Where the thread's messages arrive."""

    def __init__(self, mark: Mark) -> None:
        self.messages: queue.Queue[rank_pb2.AttachRequest] = queue.Queue()
        self.unsent_count = 0
        self.ended: queue.Queue[int] = queue.Queue()
        self.number = 0
        self.worker = Worker(
            mark, "some blas", self.messages.put, lambda: self.unsent_count, lambda: None, self.ended.put
        )

    def insert(self, key: int, max_tokens: int, resume: int = 0, request_id: str = "") -> None:
        self.number += 1
        wish = rank_pb2.Insert(
            key=key,
            request_id=request_id,
            prompt_token_ids=range(10, 30),
            resume_token_ids=[5] * resume,
            sampling=cluster_pb2.Sampling(),
            max_tokens=max_tokens,
            ignore_eos=True,
        )
        self.worker.put(rank_pb2.Operation(number=self.number, insert=wish))

    def next(self) -> rank_pb2.AttachRequest:
        return self.messages.get(timeout=WAIT_S)

    def tokens(self, key: int) -> list[int]:
        """All of a sequence, to its finish."""
        found: list[int] = []
        while True:
            for news in self.next().step.sequences:
                found += news.token_ids if news.key == key else []
                if news.key == key and news.finish_reason:
                    return found


@pytest.fixture
def desk(tmp_path: Path, tiny_folder: Path) -> Iterator[Desk]:
    path = tmp_path / "rank.map"
    path.write_bytes(bytes(SIZE_BYTES))
    mark = Mark(path)
    found = Desk(mark)
    found.worker.start(rank_pb2.Load(folder=str(tiny_folder), end_token_ids=[2]))
    while found.next().state.state != RankState.READY.value:
        pass
    yield found
    found.worker.stop(WAIT_S)
    mark.close()


def test_a_config_whose_text_config_is_null_is_served(
    tmp_path: Path, tiny: Any, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((tiny_folder / "config.json").read_text())
    # mlx-lm refuses such a file, unless the config names a quantization.
    loaded = (tiny, {**config, "text_config": None})
    monkeypatch.setattr("thunderline.rank.load.load", lambda folder, progress: loaded)
    path = tmp_path / "rank.map"
    path.write_bytes(bytes(SIZE_BYTES))
    mark = Mark(path)
    desk = Desk(mark)
    desk.worker.start(rank_pb2.Load(folder="any", end_token_ids=[2]))
    ended = (RankState.READY.value, RankState.FAILED.value)
    while (change := desk.next().state).state not in ended:
        pass
    desk.worker.stop(WAIT_S)
    mark.close()
    assert change.state == RankState.READY.value, change.cause
    assert change.engine.vocabulary_size == config["vocab_size"]


def test_a_sequence_that_the_generator_refuses_ends_by_name_and_the_next_one_works(desk: Desk) -> None:
    desk.insert(1, max_tokens=4, resume=4)
    reset = desk.next().reset
    assert list(reset.keys) == [1]
    assert "max_tokens" in reset.cause
    desk.insert(2, max_tokens=5)
    assert len(desk.tokens(2)) == 5


def test_the_engine_waits_for_who_does_not_read(desk: Desk) -> None:
    desk.unsent_count = UNSENT_COUNT_MAX
    desk.insert(1, max_tokens=5)
    with pytest.raises(queue.Empty):
        desk.messages.get(timeout=0.2)
    desk.unsent_count = 0
    assert len(desk.tokens(1)) == 5


def test_whoever_reads_nothing_more_finds_it_parked_before_a_later_operation(desk: Desk) -> None:
    desk.insert(1, max_tokens=1500, request_id="a")
    desk.insert(2, max_tokens=1500, request_id="b")
    had = 0
    while had < 5:
        had += sum(len(news.token_ids) for news in desk.next().step.sequences)
    desk.worker.park_all()
    while (report := desk.next().step).parked_count == 0:
        pass
    assert (report.parked_count, report.running_count) == (2, 0)
    assert desk.worker.last_operation == 2, "no number is used for it"
    desk.worker.park_all()
    desk.insert(3, max_tokens=1500, request_id="a")
    assert len(desk.tokens(3)) == 1500


def test_an_operation_that_is_known_already_is_ignored(desk: Desk) -> None:
    desk.insert(1, max_tokens=5)
    desk.number -= 1
    desk.insert(2, max_tokens=5)
    assert len(desk.tokens(1)) == 5
    assert desk.worker.last_operation == 1
    assert desk.ended.empty()
