"""A deleted store, an older copy of it, a copy on a second home, and two homes beside each other."""

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from installation import DEMO, Installation, end, installed, until
from thunderline.v1 import cluster_pb2, runner_pb2, runner_pb2_grpc

SOON_S = 40.0


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, shallow_folder: Path) -> Iterator[Installation]:
    """An installation of its own, which these tests take apart."""
    with installed(tmp_path_factory.mktemp("stores") / "home", "--model", str(shallow_folder)) as installation:
        yield installation


def status(up: Installation) -> dict[str, Any]:
    answer = up.run("status", "--json", timeout_s=20)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def epoch(up: Installation) -> int:
    """Of the rank that serves; 0 while there is none."""
    ranks = [rank for one in status(up)["deployments"] for rank in one["ranks"]]
    return max((int(rank["id"]["epoch"]) for rank in ranks if rank["state"] == "RANK_STATE_READY"), default=0)


def copy_store(up: Installation, to: Path) -> None:
    """Whole, while its scheduler runs."""
    with (
        contextlib.closing(sqlite3.connect(up.home / "scheduler.db")) as store,
        contextlib.closing(sqlite3.connect(to)) as copy,
    ):
        store.backup(copy)


def put_store(up: Installation, copy: Path | None) -> None:
    """Another file, or none, in the place of the store; its scheduler is killed and comes back to that."""
    pid = up.pid("scheduler")
    for path in up.home.glob("scheduler.db*"):
        path.unlink()
    if copy is not None:
        (up.home / "scheduler.db").write_bytes(copy.read_bytes())
    os.kill(pid, signal.SIGKILL)
    up.pid("scheduler", other_than=pid)


def end_rank_as(store_id: str, up: Installation, rank: dict[str, Any]) -> grpc.RpcError:
    """What a runner says to another store's scheduler."""
    target = cluster_pb2.RankId(instance=rank["instance"], epoch=int(rank["epoch"]), rank=rank["rank"])
    request = runner_pb2.SetRankRequest(store_id=store_id, id=target, goal=runner_pb2.RANK_GOAL_ABSENT)
    with grpc.insecure_channel(up.target("runner")) as channel:
        stub: Any = runner_pb2_grpc.RunnerServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.SetRank(request, timeout=10)
    return caught.value


def test_two_homes_beside_each_other_never_command_each_others_ranks(
    fresh: Installation, up: Installation, evidence: dict[str, Any]
) -> None:
    homes = [fresh, up]
    pids = [home.pid("rank") for home in homes]
    found = [status(home) for home in homes]
    stores, nodes = [one["store_id"] for one in found], [one["scheduler_node_id"] for one in found]
    assert len({*stores, *nodes}) == 4
    for one, node in zip(found, nodes, strict=True):
        assert [member["card"]["node_id"] for member in one["roster"]["members"]] == [node]
        assert one["problems"] == []
    for home, mine, other, has in zip(homes, stores, reversed(stores), found, strict=True):
        rank = next(rank for one in has["deployments"] for rank in one["ranks"])
        error: Any = end_rank_as(other, home, rank["id"])
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert f"obeys store {mine}, not {other}" in error.details()
        assert "`thunderline cluster adopt`" in error.details()
    assert [home.pid("rank") for home in homes] == pids
    assert all(home.answers() for home in homes)
    evidence["two_homes_ranks_kept_their_pids"] = len(pids)


def test_a_deleted_store_is_rebuilt_without_a_reload(up: Installation, evidence: dict[str, Any]) -> None:
    rank, former = up.pid("rank"), status(up)["store_id"]
    put_store(up, None)
    problem = until("the problem", lambda: next(iter(status(up)["problems"]), None), SOON_S)
    assert problem.startswith("WRONG_STORE: ")
    assert former in problem
    assert "`thunderline cluster adopt`" in up.run("status").stdout
    seen = json.loads(up.run("cluster", "adopt", "--json").stdout)
    (runner,) = seen["runners"]
    assert (runner["store_id"], [held["pid"] for held in runner["held"]]) == (former, [rank])
    assert up.deployments() == [], "looking changes nothing"
    done = up.run("cluster", "adopt", "--yes")
    assert done.returncode == 0, done.stderr
    assert former in done.stdout
    assert str(rank) in done.stdout
    assert up.answers(), "at once"
    assert up.pid("rank") == rank, "the model was loaded again"
    assert status(up)["problems"] == []
    assert "STORE_ADOPTED" in up.run("events", DEMO).stdout
    again = up.run("cluster", "adopt", "--yes")
    assert (again.returncode, "nothing to adopt" in again.stdout) == (0, True)
    evidence["deleted_store_told"] = problem
    evidence["deleted_store_rebuilt_without_a_reload"] = True


def test_an_older_copy_of_the_store_ends_only_what_it_does_not_know(
    up: Installation, tmp_path: Path, evidence: dict[str, Any]
) -> None:
    until("an answer", up.answers, SOON_S)
    copy_store(up, tmp_path / "copy.db")
    rank = up.pid("rank")
    put_store(up, tmp_path / "copy.db")
    until("an answer", up.answers, SOON_S)
    assert up.pid("rank") == rank, "the copy knows it"
    os.kill(rank, signal.SIGKILL)
    newer = up.pid("rank", other_than=rank)
    number = until("the next epoch", lambda: epoch(up) or None, SOON_S)
    put_store(up, tmp_path / "copy.db")
    newest = until("an epoch of its own", lambda: found if (found := epoch(up)) > number else None, SOON_S)
    assert newest == number + 1
    assert newer not in up.processes()
    until("an answer", up.answers, SOON_S)
    evidence["older_copy_kept_the_rank_that_it_knew"] = True


def test_a_copy_on_a_second_home_is_refused_until_it_is_adopted(
    up: Installation, shallow_folder: Path, tmp_path: Path, evidence: dict[str, Any]
) -> None:
    until("an answer", up.answers, SOON_S)
    rank, former = up.pid("rank"), status(up)["store_id"]
    second = Installation(tmp_path / "second")
    second.home.mkdir()
    (second.home / "config.toml").write_text(f'[runner]\nmodel_roots = ["{shallow_folder.parent}"]\n')
    copy_store(up, second.home / "scheduler.db")
    refused = second.run("up", timeout_s=30)
    assert refused.returncode == 1
    assert "it was copied; run `thunderline cluster adopt`" in refused.stderr
    done = second.run("cluster", "adopt", "--yes")
    assert done.returncode == 0, done.stderr
    assert former in done.stdout
    second.start()
    try:
        second.wait_ready()
        until("an answer", second.answers, SOON_S)
        assert status(second)["store_id"] != former
        assert (up.pid("rank"), status(up)["store_id"]) == (rank, former)
        assert up.answers()
        evidence["copied_store_told"] = refused.stderr.strip().splitlines()[-1]
    finally:
        end(second)
