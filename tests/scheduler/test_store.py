"""What the scheduler must not forget, and who may write it."""

from dataclasses import replace
from pathlib import Path

import pytest

from thunderline.cluster import InstanceId, NodeId
from thunderline.cluster.ranks import RankState
from thunderline.process.entry import CannotStart
from thunderline.scheduler.store import EPOCH_COUNT_MAX, Store
from thunderline.scheduler.values import Cause, Epoch, Spec, Wish

A, B = NodeId("node a"), NodeId("node b")
WISH = Wish(Spec("m", "/models/m", 1000), InstanceId("i1"), fresh_since_s=5.0)


def epoch(number: int) -> Epoch:
    return Epoch(number, 10.0, A, 1000, 2000, digest="d")


def reopened(store: Store, folder: Path) -> Store:
    store.close()
    return Store(folder, A)


def test_deployments_and_epochs_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    store.put(WISH)
    store.begin(WISH.instance, epoch(1), b"placement")
    ended = replace(
        epoch(1), ready_s=11.0, ended_s=12.0, cause=Cause("SIGNAL", "SIGABRT", RankState.READY, True), answered=True
    )
    store.update(ended)
    store_id = store.store_id
    store = reopened(store, tmp_path)
    assert store.wishes() == [replace(WISH, epochs=(ended,))]
    assert store.placement(1) == b"placement"
    assert store.store_id == store_id
    store.close()


def test_an_epochs_number_is_never_given_twice(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    first = [store.next_epoch(), store.next_epoch()]
    store = reopened(store, tmp_path)
    assert [*first, store.next_epoch()] == [1, 2, 3]
    store.raise_epochs_above(40)
    store.raise_epochs_above(7)
    assert store.next_epoch() == 41
    store.close()


def test_a_forgotten_deployment_takes_its_epochs_along(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    store.put(WISH)
    store.begin(WISH.instance, epoch(1), b"placement")
    store.forget(WISH.instance)
    assert store.wishes() == []
    assert store.placement(1) == b""
    store.close()


def test_old_epochs_are_forgotten_and_the_newest_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    store.put(WISH)
    for number in range(1, EPOCH_COUNT_MAX + 11):
        store.begin(WISH.instance, epoch(number), b"")
    (wish,) = store.wishes()
    assert [one.number for one in wish.epochs] == list(range(11, EPOCH_COUNT_MAX + 11))
    store.close()


def test_a_second_scheduler_on_the_home_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    with pytest.raises(CannotStart, match="another scheduler"):
        Store(tmp_path, A)
    store.close()


def test_a_copied_store_is_refused_on_another_node(tmp_path: Path) -> None:
    Store(tmp_path, A).close()
    with pytest.raises(CannotStart, match="it was copied"):
        Store(tmp_path, B)
    Store(tmp_path, A).close()


def test_a_file_that_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "scheduler.db").write_bytes(b"nothing of ours" * 100)
    with pytest.raises(CannotStart, match=r"scheduler\.db cannot be used"):
        Store(tmp_path, A)
