"""What the scheduler must not forget, and who may write it."""

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from thunderline.cluster import InstanceId, NodeId
from thunderline.cluster.errors import StoreUnavailable
from thunderline.cluster.limits import Limits
from thunderline.cluster.ranks import RankState
from thunderline.process.entry import CannotStart
from thunderline.rpc.moving import Moving
from thunderline.scheduler.adoption import Plan
from thunderline.scheduler.control import Control
from thunderline.scheduler.events import Event
from thunderline.scheduler.runners import Runners
from thunderline.scheduler.store import EPOCH_COUNT_MAX, Store
from thunderline.scheduler.values import Cause, Epoch, Spec, Wish

A, B = NodeId("node a"), NodeId("node b")
SEEN = Cause("SIGNAL", "SIGABRT", RankState.READY, True, "Metal (exo#1804)", "send fewer")
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
    ended = replace(epoch(1), ready_s=11.0, ended_s=12.0, cause=SEEN, answered=True)
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


def test_a_store_of_the_version_before_is_made_one_of_todays(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    store.put(WISH)
    for number, started_s in ((1, 3.0), (2, 4.0), (3, 6.0)):
        store.begin(WISH.instance, replace(epoch(number), started_s=started_s), b"")
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "scheduler.db", isolation_level=None)) as old:
        old.execute("ALTER TABLE deployments DROP COLUMN fresh_above")
        old.execute("UPDATE meta SET value = '1' WHERE key = 'version'")
    for _ in range(2):
        store = Store(tmp_path, A)
        (wish,) = store.wishes()
        assert (wish.spec, wish.fresh_since_s, wish.fresh_above, len(wish.epochs)) == (WISH.spec, 5.0, 2, 3)
        store.close()


def test_a_cause_that_was_written_before_there_were_signatures_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    store.put(WISH)
    store.begin(WISH.instance, epoch(1), b"")
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "scheduler.db", isolation_level=None)) as old:
        written = f'["SIGNAL", "SIGABRT", {RankState.READY.value}, true]'
        old.execute("UPDATE epochs SET ended_s = 12.0, cause = ?", (written,))
    store = Store(tmp_path, A)
    assert store.wishes()[0].epochs[0].cause == replace(SEEN, signature="", remedy="")
    store.close()


def test_what_was_before_a_deploy_stays_so(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    store.put(WISH)
    store.begin(WISH.instance, epoch(1), b"")
    store.put(store.wishes()[0].again(3.0))
    store = reopened(store, tmp_path)
    assert (store.wishes()[0].fresh_since_s, store.wishes()[0].fresh_above) == (3.0, 1)
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


def test_a_store_that_is_taken_over_is_another_one_with_the_same_deployments(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    store.put(WISH)
    store.begin(WISH.instance, replace(epoch(1), cause=None), b"placement")
    going = Wish(Spec("gone", "/models/gone"), InstanceId("i2"), 5.0, undeploying=True)
    store.put(going)
    store.keep([Event("KIND", "m", "text", 1.0, number=7)])
    former = store.store_id
    store.close()
    store = Store(tmp_path, B, may_be_copied=True)
    assert (store.store_id, store.owner) == (former, A)
    store.take_over(20.0, Event("STORE_ADOPTED", "node b", "it was a copy", 20.0))
    taken = store.store_id
    store.close()
    store = Store(tmp_path, B)
    assert (store.store_id, store.owner) == (taken, B)
    assert taken != former
    (wish,) = store.wishes()
    assert (wish.spec, wish.instance, wish.fresh_since_s, wish.current) == (WISH.spec, WISH.instance, 20.0, None)
    (last,) = wish.epochs
    assert (last.node, last.ended_s, last.cause and last.cause.name) == (B, 20.0, "ADOPTED")
    assert wish.fresh_above == last.number
    assert [(event.number, event.kind) for event in store.events()] == [(7, "KIND"), (8, "STORE_ADOPTED")]
    assert store.next_epoch(above=40) == 41
    store.close()


def test_what_is_rebuilt_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    again = Wish(WISH.spec, InstanceId("i7"), 5.0)
    other = Wish(Spec("x", "/models/x"), InstanceId("i8"), 5.0)
    store.put(again)
    store.put(other)
    store.begin(other.instance, epoch(3), b"")
    found = replace(WISH, epochs=(replace(epoch(3), ready_s=11.0),))
    store.rebuild(Plan({}, ((found, b"placement"),), (again,), highest_epoch=9))
    store = reopened(store, tmp_path)
    assert store.wishes() == [found, other]
    assert store.placement(3) == b"placement"
    assert store.next_epoch() == 10
    store.close()


def test_a_file_that_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "scheduler.db").write_bytes(b"nothing of ours" * 100)
    with pytest.raises(CannotStart, match=r"scheduler\.db cannot be used"):
        Store(tmp_path, A)


CALLS: dict[str, Callable[[Store], object]] = {
    "wishes": lambda store: store.wishes(),
    "placement": lambda store: store.placement(1),
    "put": lambda store: store.put(replace(WISH, undeploying=True)),
    "forget": lambda store: store.forget(WISH.instance),
    "next_epoch": lambda store: store.next_epoch(),
    "raise_epochs_above": lambda store: store.raise_epochs_above(9),
    "begin": lambda store: store.begin(WISH.instance, epoch(2), b""),
    "rebuild": lambda store: store.rebuild(Plan({}, (), (WISH,), 9)),
    "take_over": lambda store: store.take_over(1.0, Event("KIND", "m", "text", 1.0)),
    "update": lambda store: store.update(epoch(1)),
    "keep": lambda store: store.keep([Event("KIND", "m", "text", 1.0, number=1)]),
    "events": lambda store: store.events(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_broken_disk_is_one_typed_error(tmp_path: Path, call: Callable[[Store], object]) -> None:
    store = Store(tmp_path, A)
    store.put(WISH)
    store.begin(WISH.instance, epoch(1), b"")
    with contextlib.closing(sqlite3.connect(tmp_path / "scheduler.db")) as disk:
        for table in ("epochs", "deployments", "meta", "events"):
            disk.execute(f"DROP TABLE {table}")
    with pytest.raises(StoreUnavailable, match="the scheduler's store cannot be"):
        call(store)
    store.close()


# What a second connection does to the file: the row itself is refused, or only the COMMIT is.
FULL = {
    "at the row": ["CREATE TRIGGER full BEFORE INSERT ON epochs BEGIN SELECT RAISE(ABORT, 'disk is full'); END"],
    "at the commit": [
        "CREATE TABLE owed (one TEXT REFERENCES deployments DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER full AFTER INSERT ON epochs BEGIN INSERT INTO owed VALUES ('nobody'); END",
    ],
}


@pytest.mark.parametrize("statements", FULL.values(), ids=FULL.keys())
def test_a_write_that_failed_leaves_nothing_and_the_next_one_works(tmp_path: Path, statements: list[str]) -> None:
    store = Store(tmp_path, A)
    store.put(WISH)
    with contextlib.closing(sqlite3.connect(tmp_path / "scheduler.db")) as disk:
        for statement in statements:
            disk.execute(statement)
        with pytest.raises(StoreUnavailable):
            store.begin(WISH.instance, epoch(1), b"")
        disk.execute("DROP TRIGGER full")
    assert store.wishes() == [WISH]
    store.begin(WISH.instance, epoch(2), b"")
    assert store.wishes() == [replace(WISH, epochs=(epoch(2),))]
    store.close()


async def test_a_store_that_cannot_be_read_keeps_the_role_from_starting(tmp_path: Path) -> None:
    store = Store(tmp_path, A)
    control = Control(store, Runners(Moving.at("127.0.0.1:1"), store.store_id), Limits())
    with contextlib.closing(sqlite3.connect(tmp_path / "scheduler.db")) as disk:
        disk.execute("DROP TABLE epochs")
        disk.execute("DROP TABLE deployments")
    with pytest.raises(CannotStart, match="cannot be read"):
        await control.load()
    control.close()
