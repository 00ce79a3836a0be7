"""A runner comes to obey another store: stories over real sockets, with rank processes that are stand-ins."""

import json
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from runner.little_runner import ABSENT, PREPARED, READY, Little, running
from runner.runner_process import Process, until_gone
from thunderline.cluster.errors import ClusterError, InvalidRequest, WrongStore
from thunderline.process.home import leave_store
from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2, runner_pb2

S = cluster_pb2


async def adopt(
    little: Little, store: str = "", former: str = "store", keep: Sequence[int] = ()
) -> runner_pb2.AdoptStoreResponse:
    request = runner_pb2.AdoptStoreRequest(
        store_id=store, former_store_id=former, keep=[little.rank_id(epoch) for epoch in keep]
    )
    return await little.stub.AdoptStore(request, timeout=10)


async def refused(little: Little, goal: int = READY, epoch: int = 1) -> ClusterError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await little.set_rank(goal, epoch)
    return from_call(caught.value)


async def test_it_says_whom_it_obeys_and_what_it_holds(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        empty = await adopt(little)
        assert (empty.store_id, empty.highest_epoch, list(empty.placements), list(empty.ranks)) == ("", 0, [], [])
        ready = await little.ready(epoch=4)
        told = await adopt(little)
        assert (told.store_id, told.highest_epoch) == ("store", 4)
        assert list(told.placements) == [little.placement(4)]
        (rank,) = told.ranks
        assert (rank.id.epoch, rank.pid, rank.state) == (4, ready.pid, S.RANK_STATE_READY)
        assert (await little.set_rank(READY, epoch=4)).pid == ready.pid, "nothing has changed"


async def test_a_rank_that_is_kept_serves_on_under_another_store(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        other = Little(little.settings, little.ranks, little.stub, store="other")
        assert isinstance(await refused(other), WrongStore)
        assert isinstance(await refused(other, ABSENT), WrongStore)
        told = await adopt(little, "other", keep=[1])
        assert (told.store_id, told.ranks[0].pid, told.ranks[0].state) == ("other", pid, S.RANK_STATE_READY)
        async for view in little.stub.WatchRanks(runner_pb2.WatchRanksRequest()):
            assert (view.store_id, view.highest_epoch) == ("other", 1)
            break
        assert (await little.deltas(text="the", max_tokens=3))[-1].finish_reason
        assert (await other.set_rank(READY)).pid == pid
        error = await refused(little)
        assert isinstance(error, WrongStore)
        assert error.facts["store"] == "other"
        assert "`thunderline cluster adopt`" in error.message
        assert little.log().count("load ") == 1


async def test_ranks_that_are_not_kept_end(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        told = await adopt(little, "other")
        assert list(told.placements) == []
        ended = await little.until(S.RANK_STATE_ABSENT)
        assert (ended.pid, ended.cause.name) == (pid, "STOPPED")
        await until_gone(pid, 2)


async def test_the_same_once_more_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        await adopt(little, "other", keep=[1])
        told = await adopt(little, "other")
        assert (told.store_id, told.ranks[0].pid, told.ranks[0].state) == ("other", pid, S.RANK_STATE_READY)


@pytest.mark.parametrize(
    ("store", "former", "error"),
    [
        pytest.param("other", "third", WrongStore, id="another former store"),
        pytest.param("other", "", WrongStore, id="no former store"),
        pytest.param("x" * 201, "store", InvalidRequest, id="too long"),
    ],
)
async def test_what_is_refused_changes_nothing(
    tmp_path: Path, store: str, former: str, error: type[ClusterError]
) -> None:
    async with running(tmp_path) as little:
        pid = (await little.ready()).pid
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await adopt(little, store, former, keep=[1])
        assert isinstance(from_call(caught.value), error)
        assert (await little.set_rank(READY)).pid == pid


async def test_an_undeployed_instance_is_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path) as little:
        await little.ready(epoch=3)
        await little.set_rank(ABSENT, epoch=3)
        await little.until(S.RANK_STATE_ABSENT, epoch=3)
        assert len((await adopt(little)).placements) == 1, "it may be started again"
        assert (await little.set_rank(ABSENT, epoch=3, forget=True)).state == S.RANK_STATE_ABSENT
        told = await adopt(little)
        assert (list(told.placements), told.highest_epoch) == ([], 3)
        assert json.loads((tmp_path / "runner.json").read_text())["instances"] == {}


async def test_whom_it_obeys_is_on_disk_before_it_is_said(runner: Process) -> None:
    runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
        await adopt(little, "other", keep=[1])
        runner.kill()
    runner.start()
    async with runner.client() as little:
        await runner.complete(little)
        assert isinstance(await refused(little), WrongStore)
        told = await adopt(little)
        assert (told.store_id, told.ranks[0].pid) == ("other", pid)
        assert list(told.placements) == [little.placement()]
        little.store = "other"
        assert (await little.set_rank(PREPARED)).pid == pid


async def test_what_was_started_for_a_store_that_the_node_has_left_ends_with_the_next_start(runner: Process) -> None:
    runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
        runner.kill()
    leave_store(runner.home, "store")
    runner.start()
    async with runner.client() as little:
        await until_gone(pid, 10)
        await runner.complete(little)
        assert (await adopt(little)).store_id == json.loads((runner.home / "runner.json").read_text())["store_id"] == ""
        little.store = "other"
        other = (await little.ready(epoch=2)).pid
        runner.kill()
    # It was left once.
    runner.start()
    async with runner.client() as little:
        (rank,) = (await runner.complete(little)).ranks
        assert rank.pid == other != pid


async def test_a_store_that_it_does_not_obey_is_not_left(runner: Process) -> None:
    runner.start()
    async with runner.client() as little:
        pid = (await little.ready()).pid
        runner.kill()
    leave_store(runner.home, "another")
    runner.start()
    async with runner.client() as little:
        await runner.complete(little)
        assert (await little.set_rank(READY)).pid == pid
