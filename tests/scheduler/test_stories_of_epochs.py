"""What becomes of an epoch whose runner hangs, whose rank is not dialled in, or whose next one has to wait."""

import asyncio
from dataclasses import replace
from pathlib import Path

from scheduler.little_runner import ABSENT, CRASH, LittleRunner
from scheduler.little_scheduler import LIMITS, Life, house, served

# Longer than the pace of the control loop: nothing but its being due makes a pass then.
WAIT_S, PROMPT_S = 1.5, 0.5


async def _answer(life: Life) -> int:
    """Tokens of one request."""
    return sum([len(delta.token_ids) async for delta in life.client.generate(life.generation())])


def attach(runner: LittleRunner, epoch: int, attached: bool) -> None:
    report = next(report for rank, report in runner.ranks.items() if rank.epoch == epoch)
    report.attached = attached
    runner.changes.notify()


async def test_a_rank_that_is_not_dialled_in_takes_nothing_and_is_kept(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        attach(home.runner, 1, False)
        await life.until_state("WAITING")
        assert life.seen[-1] == ("WAITING", "epoch 1 waits for its rank to dial in to the runner")
        waiting = asyncio.create_task(_answer(life))
        await life.until("a request in the queue", lambda: life.admission.depth("m") == 1)
        attach(home.runner, 1, True)
        assert await waiting == 2
        assert life.states[-1] == "READY"
        assert [epoch.number for epoch in life.wish.epochs] == [1], "nothing was started again"


async def test_a_rank_that_never_begins_to_load_is_given_up(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler(replace(LIMITS, prepare_s=0.25)) as life:
        home.runner.ignores = 1
        await life.deploy()
        await life.until_state("READY")
        first, _ = life.wish.epochs
        assert first.cause is not None and first.cause.name == "PHASE_DEADLINE"
        await life.until("the first to be ended", lambda: home.runner.states()[1] == ABSENT)


async def test_the_next_epoch_starts_when_it_is_due(tmp_path: Path) -> None:
    limits = replace(LIMITS, epoch_wait_min_s=WAIT_S, epoch_wait_max_s=WAIT_S)
    async with house(tmp_path) as home, home.scheduler(limits) as life:
        home.runner.fails = [CRASH]
        await life.deploy()
        await life.until_state("READY")
        first, second = life.wish.epochs
        assert first.ended_s is not None
        assert 0 <= second.started_s - first.ended_s - WAIT_S < PROMPT_S
