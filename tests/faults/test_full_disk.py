"""A full disk under the logs, a full disk under the store, a store that another process holds: what serves goes on."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from faults.small_disk import SmallDisk, small_disk
from installation import Installation, installed, until
from runner import little_model
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import StoreUnavailable
from thunderline.v1 import cluster_pb2

T = TypeVar("T")
MODEL, OTHER = "little", "other"
SOON_S = 40.0
# A new rank would appear within this time.
QUIET_S = 2.0
ANSWER_COUNT = 3
PAGE_BYTES = 4096
# The others in `make prove`; the lock is a story of the scheduler's too.
RESTARTED = ("rank", "runner") if os.environ.get("PROVE") else ("runner",)


@dataclass(frozen=True)
class Place:
    up: Installation
    home: SmallDisk
    logs: SmallDisk

    def writers(self, *roles: str) -> list[int]:
        """Of these roles; without a name of all others than the scheduler."""
        return [pid for pid, role in self.up.processes().items() if (role in roles if roles else role != "scheduler")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An installation whose home is a small disk, and whose logs are on another."""
    home: Path = tmp_path_factory.mktemp("disk") / "home"
    with small_disk(home, 32) as under, small_disk(home / "logs", 8) as logs:
        little_model.make(home / "models" / MODEL)
        with installed(home, "--model", str(home / "models" / MODEL)) as up:
            yield Place(up, under, logs)


def ask(up: Installation, what: Callable[[SchedulerClient], Awaitable[T]]) -> T:
    async def call() -> T:
        async with SchedulerClient(up.target("scheduler")) as client:
            return await what(client)

    return asyncio.run(call())


def deploy(up: Installation) -> None:
    spec = cluster_pb2.DeploymentSpec(name=OTHER, model=str(up.home / "models" / MODEL))
    ask(up, lambda client: client.deploy(spec))


def names(up: Installation) -> list[str]:
    return sorted(one.spec.name for one in ask(up, lambda client: client.deployments()))


def kinds(up: Installation) -> list[str]:
    async def kept(client: SchedulerClient) -> list[str]:
        return [event.kind async for event in client.watch_events(kept_only=True)]

    return ask(up, kept)


def serves_on(up: Installation) -> None:
    """And no process has come or gone."""
    before = up.processes()
    assert all(up.answers(MODEL) for _ in range(ANSWER_COUNT))
    assert up.processes() == before


def test_a_full_disk_under_the_logs_is_no_matter(place: Place, evidence: dict[str, Any]) -> None:
    up = place.up
    evidence["is_real_disk"] = place.home.is_real and place.logs.is_real
    until("a good answer", lambda: up.answers(MODEL), SOON_S)
    place.logs.fill(place.writers())
    log = up.home / "logs" / "runner.log"
    written = log.stat().st_size
    serves_on(up)
    # What they say as they start and end goes nowhere.
    for role in RESTARTED:
        pid = up.pid(role)
        os.kill(pid, signal.SIGABRT if role == "rank" else signal.SIGKILL)
        assert up.pid(role, other_than=pid) != pid
        until("a good answer", lambda: up.answers(MODEL), SOON_S)
    serves_on(up)
    if place.logs.is_real:
        assert log.stat().st_size < written + PAGE_BYTES, "the fault had no effect"
    place.logs.make_room(place.writers())
    written = log.stat().st_size
    os.kill(up.pid("runner"), signal.SIGKILL)
    until("a line again", lambda: log.stat().st_size > written, SOON_S)
    until("a good answer", lambda: up.answers(MODEL), SOON_S)


@contextlib.contextmanager
def full(place: Place) -> Iterator[None]:
    place.home.fill(place.writers("scheduler"))
    try:
        yield
    finally:
        place.home.make_room(place.writers("scheduler"))


@contextlib.contextmanager
def locked(place: Place) -> Iterator[None]:
    """Another process writes the store, and does not end."""
    with contextlib.closing(sqlite3.connect(place.up.home / "scheduler.db", isolation_level=None)) as store:
        store.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            store.execute("ROLLBACK")


Fault = Callable[[Place], contextlib.AbstractContextManager[None]]


@pytest.mark.parametrize("fault", [full, locked] if os.environ.get("PROVE") else [full])
def test_a_store_that_takes_nothing_stops_only_what_is_new(
    place: Place, fault: Fault, evidence: dict[str, Any]
) -> None:
    up = place.up
    until("a good answer", lambda: up.answers(MODEL), SOON_S)
    told = len(kinds(up))
    with fault(place):
        serves_on(up)
        with pytest.raises(StoreUnavailable):
            deploy(up)
        assert names(up) == [MODEL]
        serves_on(up)
        # It is told once it was tried to be written, and a lock is waited for.
        until("the news of it", lambda: "STORE_UNAVAILABLE" in kinds(up)[told:], SOON_S)
        # No epoch that is not written down is started.
        pid = up.pid("rank")
        os.kill(pid, signal.SIGKILL)
        until("its end", lambda: pid not in up.processes(), SOON_S)
        with pytest.raises(AssertionError, match="not within"):
            up.pid("rank", timeout_s=QUIET_S)
    until("a good answer", lambda: up.answers(MODEL), SOON_S)
    until("the news of it", lambda: "STORE_BACK" in kinds(up)[told:], SOON_S)
    deploy(up)
    assert names(up) == [MODEL, OTHER]
    ask(up, lambda client: client.undeploy(OTHER))
    until("nothing of it", lambda: names(up) == [MODEL], SOON_S)
    evidence[f"a_{fault.__name__}_store_told"] = kinds(up)[told:]


@pytest.mark.skipif(sys.platform == "darwin", reason="there an image needs no root")
@pytest.mark.parametrize(
    ("environment", "uid", "is_refused"),
    [({"PROVE": "stores"}, 1, True), ({"CI": "true"}, 0, True), ({"CI": "true"}, 1, False), ({}, 0, False)],
)
def test_no_other_thing_stands_for_the_disk_where_it_counts(
    environment: dict[str, str], uid: int, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess(["mount"], 32, b"", b"mount: permission denied")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    for name in ("PROVE", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    refused = pytest.raises(AssertionError, match="permission denied") if is_refused else contextlib.nullcontext()
    with refused, small_disk(tmp_path / "disk", 1) as disk:
        assert not disk.is_real
