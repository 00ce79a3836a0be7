"""The loop around the reconciler, over real sockets and a real store: how deployments come, go and come back."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from scheduler.little_runner import CRASH, LOADING, READY
from scheduler.little_scheduler import WAIT_S, Life, house, series, served
from thunderline.cluster import RankId
from thunderline.cluster.errors import CrashLoop, Draining, EpochConflict, NotFound
from thunderline.v1 import cluster_pb2


async def test_a_deploy_comes_up_and_is_written_down(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        await life.until("READY on disk", lambda: home.epochs() == [(1, True, False, None, False)])
        assert home.runner.commands == [("PREPARED", 1), ("READY", 1)]
        assert life.states[-2:] == ["STARTING", "READY"]
        (found,) = await life.client.deployments()
        assert (found.state, found.reason) == (cluster_pb2.DEPLOYMENT_STATE_READY, "epoch 1 serves on node node")
        assert found.ranks[0].engine.batching == "batch"


async def test_how_a_model_is_batched_is_said_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        home.runner.engine = cluster_pb2.EngineFacts(batching="one_prompt_at_a_time", batching_reason="it differs")
        with caplog.at_level("INFO", "thunderline.scheduler.standings"):
            await life.deploy()
            await life.until_state("READY")
        (found,) = await life.client.deployments()
        assert found.reason == "epoch 1 serves on node node, one prompt at a time (it differs)"
        assert (found.ranks[0].engine.batching, found.ranks[0].engine.batching_reason) == (
            "one_prompt_at_a_time",
            "it differs",
        )
        told = [vars(record) for record in caplog.records if record.message == "deployment"][-1]
        assert (told["batching"], told["reason"]) == ("one_prompt_at_a_time", found.reason)


async def test_a_rank_that_fails_gets_the_next_epoch_after_the_wait(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        home.runner.fails = [CRASH]
        await life.deploy()
        await life.until_state("READY")
        first, second = life.wish.epochs
        assert first.ended_s is not None
        assert second.started_s - first.ended_s >= WAIT_S
        assert ("WAITING", "the last epoch ended: SIGNAL while LOADING: SIGSEGV") in life.seen
        assert "REPAIRING" not in life.states
        await life.until("READY on disk", lambda: home.epochs()[1][1])
        assert home.epochs() == [(1, False, True, "SIGNAL", False), (2, True, False, None, False)]


async def test_a_model_is_fetched_first_also_when_it_is_deployed_again_meanwhile(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        home.runner.has_files.clear()
        await life.deploy()
        await life.until("the progress", lambda: ("WAITING", "org/m is being fetched, 43%") in life.seen)
        await life.deploy()
        home.runner.has_files.set()
        await life.until_state("READY")


async def test_crashes_in_a_row_open_the_circuit_and_a_human_closes_it(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        home.runner.fails = [CRASH] * 5
        await life.deploy()
        await life.until_state("CRASH_LOOP")
        assert len(home.epochs()) == 5
        with pytest.raises(CrashLoop):
            await _answer(life)
        await life.deploy()
        await life.until_state("READY")


async def test_a_READY_rank_that_is_lost_is_repaired(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        home.runner.move(1, cluster_pb2.RANK_STATE_FAILED, CRASH)
        await life.until("the next epoch", lambda: life.states[-2:] == ["REPAIRING", "READY"])
        assert [epoch.number for epoch in life.wish.epochs] == [1, 2]
        assert ("ABSENT", 1) in home.runner.commands, "what is left of the old epoch is ended"


async def test_an_undeploy_while_it_loads_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        home.runner.holds_loading = True
        await life.deploy()
        await life.until("LOADING", lambda: home.runner.states().get(1) == LOADING)
        waiting = asyncio.create_task(_answer(life))
        await life.until("a request in the queue", lambda: life.admission.depth("m") == 1)
        assert {name for name, _ in series()} >= {"thunderline_deployment_state", "thunderline_queue_depth"}
        await life.client.undeploy("m")
        with pytest.raises(NotFound, match="not deployed"):
            await waiting
        await life.until("it to be forgotten", lambda: life.control.named("m") is None)
        assert home.runner.commands[-1] == ("ABSENT", 1)
        assert home.epochs() == []
        await life.until("its series to go", lambda: series() == set())
        await life.until("its audit to go", lambda: not life.control.runners.audits)


async def test_a_deployment_that_comes_again_starts_anew(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, life):
        before = life.wish.instance
        await life.client.undeploy("m")
        await life.until("it to be forgotten", lambda: life.control.named("m") is None)
        await life.deploy()
        await life.until(
            "READY", lambda: bool(life.seen) and life.wish.current is not None and life.seen[-1][0] == "READY"
        )
        assert life.wish.instance != before
        assert [epoch.number for epoch in life.wish.epochs] == [2], "a number is never used twice"


async def test_a_restarted_scheduler_adopts_what_serves(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            await life.until("READY on disk", lambda: home.epochs()[0][1])
        commands = list(home.runner.commands)
        async with home.scheduler() as life:
            await life.until_state("READY")
            assert home.runner.commands == commands, "nothing is told to it again"
            assert not {"STARTING", "REPAIRING"} & set(life.states)
            home.runner.move(1, cluster_pb2.RANK_STATE_FAILED, CRASH)
            await life.until("the next epoch", lambda: life.states[-2:] == ["REPAIRING", "READY"])


async def test_after_a_restart_of_everything_it_is_STARTING_not_REPAIRING(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            await life.until("READY on disk", lambda: home.epochs()[0][1])
        await home.stop_runner()
        home.runner.begin_afresh()
        await home.start_runner()
        async with home.scheduler() as life:
            await life.until_state("READY")
            assert life.states[-2:] == ["STARTING", "READY"]
            assert "REPAIRING" not in life.states
            assert home.runner.states() == {2: READY}


async def test_a_runner_that_is_away_is_waited_for_by_name(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        await home.stop_runner()
        await life.until_state("WAITING")
        assert life.seen[-1][1] == "the runner of node node cannot be reached"
        home.runner.changes = type(home.runner.changes)()
        await home.start_runner()
        await life.until_state("READY")
        assert [epoch.number for epoch in life.wish.epochs] == [1], "its rank was there all the time"


async def test_a_store_that_fails_while_a_refusal_is_handled_does_not_end_the_role(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        with home.without_writing_epochs():
            home.runner.refuses = [EpochConflict("it was started with another placement")] * 3
            await life.deploy()
            await life.until("a refusal twice", lambda: len(home.runner.refuses) <= 1)
            assert not life.task.done()
            assert not life.wish.epochs[0].is_over, "memory is not ahead of the disk"
        home.runner.refuses = [EpochConflict("it was started with another placement")]
        await life.until_state("READY")
        await life.until("READY on disk", lambda: home.epochs()[-1][1])
        assert home.epochs() == [(1, False, True, "EPOCH_CONFLICT", False), (2, True, False, None, False)]


async def test_a_store_that_cannot_be_read_does_not_cost_an_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        home.runner.refuses = [Draining("in a moment")]
        await life.deploy()
        await life.until("the refusal", lambda: not home.runner.refuses)
        with contextlib.closing(home.disk()) as disk:
            disk.execute("ALTER TABLE epochs RENAME COLUMN placement TO lost")
            await life.until("the failure", lambda: "the store cannot be used" in caplog.messages)
            disk.execute("ALTER TABLE epochs RENAME COLUMN lost TO placement")
        await life.until_state("READY")
        assert [epoch.number for epoch in life.wish.epochs] == [1]


async def test_memory_is_never_ahead_of_the_disk(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        with home.without_writing_epochs():
            await life.deploy()
            await life.until_state("READY")
            rank = RankId(life.wish.instance, 1, 0)
            await life.control.answered(rank)
            assert not life.wish.epochs[0].answered
            assert life.wish.epochs[0].ready_s is None
        await life.until("READY in memory", lambda: life.wish.epochs[0].ready_s is not None)
        assert home.epochs() == [(1, True, False, None, False)]


@pytest.mark.parametrize("answer_first", [True, False], ids=["the answer first", "the end first"])
async def test_an_answer_and_the_end_of_its_epoch_at_once_are_both_kept(tmp_path: Path, answer_first: bool) -> None:
    async with served(tmp_path) as (home, life):
        await life.until("READY on disk", lambda: home.epochs()[0][1])
        rank = RankId(life.wish.instance, 1, 0)
        answering = []

        async def answer() -> None:
            answering.append(asyncio.create_task(life.control.answered(rank)))
            for _ in range(10):
                await asyncio.sleep(0)

        with contextlib.closing(home.disk()) as disk:
            # Both changes wait for the disk at once.
            disk.execute("BEGIN IMMEDIATE")
            if answer_first:
                await answer()
            home.runner.move(1, cluster_pb2.RANK_STATE_FAILED, CRASH)
            await life.until_state("REPAIRING")
            if not answer_first:
                await answer()
            await asyncio.sleep(0.05)
            disk.execute("ROLLBACK")
            await answering[0]
        await life.until("the end", lambda: life.wish.epochs[0].is_over)
        assert life.wish.epochs[0].answered
        assert home.epochs()[0] == (1, True, True, "SIGNAL", True)


async def test_an_answer_after_the_end_counts(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        await life.until("READY on disk", lambda: home.epochs()[0][1])
        home.runner.move(1, cluster_pb2.RANK_STATE_FAILED, CRASH)
        await life.until("the end", lambda: life.wish.epochs[0].is_over)
        await life.control.answered(RankId(life.wish.instance, 1, 0))
        assert home.epochs()[0] == (1, True, True, "SIGNAL", True)


async def _answer(life: Life) -> None:
    async for _ in life.client.generate(life.generation()):
        """Its text is the matter of test_stories_of_relay.py."""
