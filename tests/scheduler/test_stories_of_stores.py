"""A lost, restored or copied store: the scheduler and a runner that obeys another one, over real sockets."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from scheduler.little_runner import ABSENT, READY
from scheduler.little_scheduler import NODE, House, Life, house
from thunderline.cluster import NodeId
from thunderline.cluster.errors import WrongStore
from thunderline.process.entry import CannotStart
from thunderline.scheduler import copied_store
from thunderline.scheduler.store import Store
from thunderline.v1 import cluster_pb2, scheduler_pb2


def lose_the_store(home: House) -> None:
    for path in home.folder.glob("scheduler.db*"):
        path.unlink()


def copy_the_store(home: House, to: Path) -> None:
    """Whole, though its scheduler is running."""
    with contextlib.closing(home.disk()) as disk, contextlib.closing(sqlite3.connect(to)) as copy:
        disk.backup(copy)


async def until_refused(life: Life) -> None:
    await life.until("a runner of another store", lambda: bool(life.control.runners.refusals()))


async def adopted(life: Life) -> scheduler_pb2.AdoptRunnersResponse:
    seen = await life.client.adopt_runners({})
    return await life.client.adopt_runners({one.node_id: one.store_id for one in seen.runners})


async def answer(life: Life) -> int:
    return sum([len(delta.token_ids) async for delta in life.client.generate(life.generation())])


async def test_a_runner_of_another_store_is_not_commanded_and_that_is_said(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            former = life.control.store_id
        lose_the_store(home)
        commands = list(home.runner.commands)
        async with home.scheduler() as life:
            await until_refused(life)
            await life.deploy()
            await life.until("the sentence", lambda: bool(life.seen) and "WRONG_STORE" in life.seen[-1][1])
            state, reason = life.seen[-1]
            assert state == "WAITING"
            assert former in reason and life.control.store_id in reason
            assert "`thunderline cluster adopt`" in reason
            assert list((await life.client.cluster()).problems) == [reason]
            assert home.runner.commands == commands, "nothing was said to it"
            assert home.runner.states() == {1: READY}


async def test_looking_changes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            former, instance = life.control.store_id, life.wish.instance
        lose_the_store(home)
        async with home.scheduler() as life:
            seen = await life.client.adopt_runners({})
            assert seen.complete
            assert (seen.store.store_id, seen.store.node_id) == (life.control.store_id, NODE)
            (runner,) = seen.runners
            assert (runner.node_id, runner.store_id) == (NODE, former)
            (held,) = runner.held
            assert (held.id.instance, held.id.epoch, held.state) == (instance, 1, READY)
            assert (held.deployment.name, held.deployment.model) == ("m", "org/m")
            assert held.fate == scheduler_pb2.FATE_REBUILT
            assert home.runner.fence.store == former
            assert life.control.wishes() == []


async def test_a_lost_store_is_rebuilt_and_nothing_is_loaded_again(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            instance = life.wish.instance
        lose_the_store(home)
        commands = list(home.runner.commands)
        async with home.scheduler() as life:
            await adopted(life)
            await life.until_state("READY")
            assert await answer(life) == 2
            assert (life.wish.instance, life.states[-1]) == (instance, "READY")
            assert home.runner.commands == commands, "no start, no end"
            kinds = [(event.kind, event.subject) async for event in life.client.watch_events(kept_only=True)]
            assert kinds == [("STORE_ADOPTED", f"node {NODE}"), ("STORE_ADOPTED", "m")]
            assert (await life.client.adopt_runners({})).runners == []
        # It is on disk, and the next epoch has a number of its own.
        async with home.scheduler() as life:
            await life.until_state("READY")
            home.runner.move(1, ABSENT, cluster_pb2.ExitCause(name="SIGNAL", detail="SIGKILL", state=READY))
            await life.until("the next epoch", lambda: home.runner.states().get(2) == READY)
            await life.until_state("READY")


async def test_one_that_was_deployed_again_meanwhile_goes_on_with_what_serves(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            instance = life.wish.instance
        lose_the_store(home)
        async with home.scheduler() as life:
            await until_refused(life)
            await life.deploy()
            await adopted(life)
            await life.until_state("READY")
            assert life.wish.instance == instance
            assert home.runner.states() == {1: READY}
        async with home.scheduler() as life:
            assert [wish.instance for wish in life.control.wishes()] == [instance]


async def test_what_was_undeployed_does_not_come_back(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            await life.client.undeploy("m")
            await life.until("nothing of it", lambda: life.control.named("m") is None)
            assert home.runner.fence.started == {}
        lose_the_store(home)
        async with home.scheduler() as life:
            done = await adopted(life)
            assert [list(runner.held) for runner in done.runners] == [[]]
            await life.deploy()
            await life.until_state("READY")
            assert [epoch.number for epoch in life.wish.epochs] == [2], "no number is used twice"


async def test_a_deployment_whose_rank_has_died_is_started_again(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
        lose_the_store(home)
        home.runner.begin_afresh()
        async with home.scheduler() as life:
            await adopted(life)
            await life.until_state("READY")
            assert [epoch.number for epoch in life.wish.epochs] == [1, 2]


async def test_another_deployment_of_the_name_stays_and_the_found_rank_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
        lose_the_store(home)
        async with home.scheduler() as life:
            await until_refused(life)
            await life.client.deploy(cluster_pb2.DeploymentSpec(name="m", model="org/other"))
            done = await adopted(life)
            assert [held.fate for held in done.runners[0].held] == [scheduler_pb2.FATE_ENDED]
            assert "the name m" in done.runners[0].held[0].why
            await life.until_state("READY")
            assert home.runner.states() == {1: ABSENT, 2: READY}
            assert life.wish.spec.model == "org/other"


async def test_a_runner_that_obeys_another_store_than_was_shown_is_left_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
        lose_the_store(home)
        async with home.scheduler() as life:
            await until_refused(life)
            with pytest.raises(WrongStore, match="look again"):
                await life.client.adopt_runners({NODE: "another"})
            assert life.control.wishes() == []


async def test_an_adoption_that_a_runner_refused_is_gone_on_with(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
        lose_the_store(home)
        async with home.scheduler() as life:
            home.runner.refuses = [WrongStore("not now")]
            with pytest.raises(WrongStore, match="not now"):
                await adopted(life)
            assert life.control.named("m") is not None
            await adopted(life)
            await life.until_state("READY")
            assert home.runner.states() == {1: READY}


async def test_an_older_copy_ends_the_epochs_that_it_does_not_know(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            await life.until("READY on disk", lambda: home.epochs()[0][1])
            copy_the_store(home, copy)
            home.runner.move(1, ABSENT, cluster_pb2.ExitCause(name="SIGNAL", detail="SIGKILL", state=READY))
            await life.until("the next epoch", lambda: home.runner.states().get(2) == READY)
        lose_the_store(home)
        shutil.copy(copy, tmp_path / "scheduler.db")
        async with home.scheduler() as life:
            await life.until("a third epoch", lambda: home.runner.states().get(3) == READY)
            assert home.runner.states() == {1: ABSENT, 2: ABSENT, 3: READY}
            await life.until_state("READY")


async def test_an_older_copy_of_a_store_that_still_fits_reloads_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            await life.until("READY on disk", lambda: home.epochs()[0][1])
            copy_the_store(home, copy)
        lose_the_store(home)
        shutil.copy(copy, tmp_path / "scheduler.db")
        commands = list(home.runner.commands)
        async with home.scheduler() as life:
            await life.until_state("READY")
            assert home.runner.commands == commands


async def test_a_copied_store_is_refused_until_it_is_adopted_and_then_has_an_id_of_its_own(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            former = life.control.store_id
        second = tmp_path / "second"
        second.mkdir()
        shutil.copy(tmp_path / "scheduler.db", second / "scheduler.db")
        with pytest.raises(CannotStart, match="`thunderline cluster adopt`"):
            Store(second, NodeId("other"))
        seen = copied_store.look(second)
        assert seen is not None
        assert (seen.store_id, seen.node_id) == (former, NODE)
        assert [spec.name for spec in seen.deployments] == ["m"]
        done = copied_store.adopt(second, former)
        assert done.store_id != former
        assert done.deployments == seen.deployments
        # The first one goes on with its own.
        async with home.scheduler() as life:
            await life.until_state("READY")
            assert life.control.store_id == former
