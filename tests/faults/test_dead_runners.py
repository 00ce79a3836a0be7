"""The report that started this: a rank aborts under many long prompts. None of them hangs, and nothing of it stays.

Field report: a dead instance that looked idle got every request, each hung for ever, and the zombie stayed.
"""

import asyncio
import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from installation import DEMO, Installation, until
from thunderline.client import SchedulerClient
from thunderline.process.metrics import PORT_OFFSET
from thunderline.v1 import cluster_pb2

COUNT, UNFINISHED_MIN = 24, 20
PROMPT_TOKENS, TOKENS = (1000 if os.environ.get("PROVE") else 100), 8
# All of them are prefilled twice.
DEADLINE_S = 600.0 if os.environ.get("PROVE") else 200.0
# What the runner listens on for its ranks.
SOCKET = "runner.sock"
SOON_S = 10.0


@dataclass
class Answer:
    """`is_taken`: its prompt has come back from the runner, which has given it to the rank."""

    ids: list[int] = field(default_factory=list)
    is_taken: bool = False
    is_finished: bool = False


@dataclass(frozen=True)
class Struck:
    """How it stood with the requests as the rank was aborted."""

    unfinished: int
    with_tokens: int


async def ask(client: SchedulerClient, number: int, answer: Answer) -> None:
    wish = cluster_pb2.Generation(model=DEMO, max_tokens=TOKENS, ignore_eos=True)
    wish.prompt_token_ids.ids.extend(1000 + (number * 997 + place * 31) % 9000 for place in range(PROMPT_TOKENS))
    wish.sampling.seed = number
    async for delta in client.generate(wish, DEADLINE_S):
        answer.is_taken = True
        answer.ids += delta.token_ids
        answer.is_finished = bool(delta.finish_reason)


async def everybody(up: Installation, abort: int | None = None) -> tuple[list[list[int]], Struck | None]:
    """All answers. The process to abort dies with the first token of anybody, when the rank has all the prompts."""
    answers = [Answer() for _ in range(COUNT)]
    struck: Struck | None = None
    async with SchedulerClient(up.target("scheduler")) as client, asyncio.TaskGroup() as tasks:
        for number, one in enumerate(answers):
            tasks.create_task(ask(client, number, one))
        if abort is not None:
            async with asyncio.timeout(DEADLINE_S):
                while not (all(one.is_taken for one in answers) and any(one.ids for one in answers)):
                    await asyncio.sleep(0.01)
            os.kill(abort, signal.SIGABRT)
            unfinished = sum(not one.is_finished for one in answers)
            struck = Struck(unfinished, sum(bool(one.ids) for one in answers))
    return [one.ids for one in answers], struck


def lost_count(up: Installation) -> int:
    """Calls so far that an instance took to its end, as the scheduler counts them."""
    host, port = up.target("scheduler").split(":")
    text = httpx.get(f"http://{host}:{int(port) + PORT_OFFSET}/metrics", timeout=10).text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    named = [one for one in samples if one.name == "thunderline_generations_total"]
    return int(sum(one.value for one in named if one.labels["outcome"] == "INSTANCE_FAILED"))


def connections(up: Installation) -> int:
    """The runner's socket for its ranks, and each rank that is dialled in."""
    found = psutil.Process(up.pid("runner")).net_connections(kind="unix")
    return sum(SOCKET in str(one.laddr) for one in found)


def ended(up: Installation, pid: int) -> dict[str, Any] | None:
    told = [json.loads(line) for line in up.run("events", "--json", timeout_s=20).stdout.splitlines()]
    return next((one for one in told if one["kind"] == "EPOCH_ENDED" and f"pid {pid}" in one["text"]), None)


def of_epoch(up: Installation, name: str) -> list[Path]:
    """Files of a rank in run/: its map, and whatever else bears its name."""
    return [path for path in (up.home / "run").rglob("*") if name in path.name]


@pytest.mark.timeout(2400)
def test_a_rank_that_aborts_under_24_long_prompts_loses_none_of_them(
    fresh: Installation, evidence: dict[str, Any]
) -> None:
    until("a good answer", fresh.answers, 60)
    pid, dialled_in, lost_before = fresh.pid("rank"), connections(fresh), lost_count(fresh)
    assert dialled_in >= 2, "one that listens, and one for the rank"
    (epoch,) = [path.stem for path in (fresh.home / "run/ranks").glob("*.map")]
    disturbed, struck = asyncio.run(everybody(fresh, abort=pid))
    assert struck is not None and struck.unfinished >= UNFINISHED_MIN and struck.with_tokens >= 1, struck
    assert [len(one) for one in disturbed] == [TOKENS] * COUNT
    # None was sent to the dead instance: each call that it had broke once, and no other.
    lost = lost_count(fresh) - lost_before
    assert UNFINISHED_MIN <= lost <= struck.unfinished, (lost, struck)
    event = until("its event", lambda: ended(fresh, pid), SOON_S)
    assert "SIGABRT while READY" in event["text"], event
    assert UNFINISHED_MIN <= event["request_count"] <= struck.unfinished, (event, struck)
    # Nothing of it is left: process, socket, map, row.
    assert fresh.pid("rank", other_than=pid) != pid
    assert not psutil.pid_exists(pid)
    until("no socket of it", lambda: connections(fresh) == dialled_in, SOON_S)
    assert not of_epoch(fresh, epoch)
    ranks = [rank for one in fresh.deployments() for rank in one.get("ranks", [])]
    assert len(ranks) == 1 and ranks[0]["pid"] != pid, ranks
    undisturbed, _ = asyncio.run(everybody(fresh))
    assert disturbed == undisturbed
    assert lost_count(fresh) == lost_before + lost
    evidence["long_prompts_tokens_each"] = PROMPT_TOKENS
    evidence["long_prompts_unfinished_at_the_abort"] = struck.unfinished
    evidence["long_prompts_equal_after_an_abort"] = COUNT
    evidence["long_prompts_broken_once_each"] = lost
