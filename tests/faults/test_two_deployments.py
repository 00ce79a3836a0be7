"""Two deployments of one model: the one that is dead looks idle, and gets nothing of what is meant for the model.

Field report: a dead instance that looked idle got every request. By its name a request waits for one deployment; by
the model's name whoever is READY answers it, also when the dead deployment is the one that bears it.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from installation import DEMO, Installation, until
from thunderline.client import SchedulerClient
from thunderline.process.metrics import PORT_OFFSET
from thunderline.v1 import cluster_pb2, scheduler_pb2

OTHER = "second"
BUSY_COUNT, BUSY_TOKENS = 24, 250
# As many as there is room for beside the busy ones.
NEW_COUNT, NEW_TOKENS, AT_ONCE = (100 if os.environ.get("PROVE") else 10), 2, 8
DEADLINE_S = 120.0
KILL_EVERY_S = 0.1
# Sent across the death, one half before it and one half before it is noticed; none may take longer.
CROSSING_COUNT, CROSSING_TOKENS, CROSSING_MAX_S = (20 if os.environ.get("PROVE") else 4), 16, 60.0


class Reaper(threading.Thread):
    """Kills the ranks of one instance as they appear: none lives long enough to be READY."""

    def __init__(self, up: Installation, instance: str) -> None:
        super().__init__(daemon=True)
        self.up, self.instance = up, instance
        self.over = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(10)

    def run(self) -> None:
        while not self.over.is_set():
            for process in psutil.process_iter(["cmdline"]):
                line = process.info["cmdline"] or []
                if str(self.up.home) in line and self.instance in line and "rank" in line:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            self.over.wait(KILL_EVERY_S)


@pytest.fixture
def two(fresh: Installation) -> Iterator[Installation]:
    """A second deployment of the demo model, for one test; the first is READY again afterwards."""
    folder = str(fresh.home / "models" / DEMO)
    deployed = fresh.run("deploy", folder, "--name", OTHER)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    yield fresh
    asyncio.run(leave_one(fresh, folder))
    until("a good answer", fresh.answers, 60)


async def leave_one(up: Installation, folder: str) -> None:
    """The first is deployed once more: it may have crashed too often."""
    async with SchedulerClient(up.target("scheduler")) as client, asyncio.timeout(60):
        await client.undeploy(OTHER)
        await client.deploy(cluster_pb2.DeploymentSpec(name=DEMO, model=folder))
        while len(await client.deployments()) > 1:
            await asyncio.sleep(0.1)


async def instance(client: SchedulerClient, name: str) -> str:
    ranks = [rank for one in await client.deployments() if one.spec.name == name for rank in one.ranks]
    assert len(ranks) == 1, ranks
    return ranks[0].id.instance


def requests_of(up: Installation, name: str) -> dict[str, float]:
    """How the requests ended that a deployment had, as the scheduler counts them."""
    host, port = up.target("scheduler").split(":")
    text = httpx.get(f"http://{host}:{int(port) + PORT_OFFSET}/metrics", timeout=10).text
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "thunderline_generations_total" and sample.labels["deployment"] == name
    }


async def told(client: SchedulerClient, name: str) -> list[scheduler_pb2.Event]:
    return [event async for event in client.watch_events(kept_only=True) if event.subject == name]


async def answer(client: SchedulerClient, model: str, token_count: int, begun: list[int] | None = None) -> int:
    """The number of tokens that came."""
    wish = cluster_pb2.Generation(model=model, text="Once upon", max_tokens=token_count, ignore_eos=True)
    count = 0
    async for delta in client.generate(wish, DEADLINE_S):
        count += len(delta.token_ids)
        if begun is not None and count and count == len(delta.token_ids):
            begun.append(count)
    return count


async def until_dead(client: SchedulerClient) -> None:
    """Until the scheduler knows it."""
    while True:
        found = {one.spec.name: one.state for one in await client.deployments()}
        if found[DEMO] != cluster_pb2.DEPLOYMENT_STATE_READY:
            return
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Seen:
    """Tokens of each new request; tokens and seconds of each that crossed the death; the dead one's events.

    `met`: how many requests the dead one took with it.
    """

    answers: list[int]
    crossing: list[tuple[int, float]]
    since: list[scheduler_pb2.Event]
    met: int


async def cross(client: SchedulerClient, begun: list[int] | None = None) -> tuple[int, float]:
    """One by the model's name; what the death meets goes on elsewhere."""
    begun_s = time.monotonic()
    async with asyncio.timeout(CROSSING_MAX_S):
        count = await answer(client, DEMO, CROSSING_TOKENS, begun)
    return count, time.monotonic() - begun_s


async def across_the_death(
    client: SchedulerClient, group: asyncio.TaskGroup
) -> list["asyncio.Task[tuple[int, float]]"]:
    """Kills the first deployment's rank as some are under way there, and sends others before that is noticed."""
    begun: list[int] = []
    ranks = [rank for one in await client.deployments() if one.spec.name == DEMO for rank in one.ranks]
    crossing = [group.create_task(cross(client, begun)) for _ in range(CROSSING_COUNT // 2)]
    while not begun:
        await asyncio.sleep(0.005)
    assert not any(one.done() for one in crossing), "the death came too late"
    os.kill(ranks[0].pid, signal.SIGKILL)
    # Nobody but us knows it.
    crossing += [group.create_task(cross(client)) for _ in range(CROSSING_COUNT // 2)]
    return crossing


async def requests_beside_a_dead_one(up: Installation) -> Seen:
    begun: list[int] = []
    slots = asyncio.Semaphore(AT_ONCE)

    async def new(client: SchedulerClient) -> int:
        async with slots:
            return await answer(client, DEMO, NEW_TOKENS)

    async with SchedulerClient(up.target("scheduler")) as client, asyncio.timeout(DEADLINE_S):
        seen = max(event.number for event in await told(client, DEMO))
        reaper = Reaper(up, await instance(client, DEMO))
        async with asyncio.TaskGroup() as group:
            busy = [group.create_task(answer(client, OTHER, BUSY_TOKENS, begun)) for _ in range(BUSY_COUNT)]
            while len(begun) < BUSY_COUNT:
                await asyncio.sleep(0.02)
            crossing = await across_the_death(client, group)
            with reaper:
                await until_dead(client)
                answers = await asyncio.gather(*(new(client) for _ in range(NEW_COUNT)))
                crossed = await asyncio.gather(*crossing)
            assert not any(one.done() for one in busy), "the living one was not busy"
            for one in busy:
                one.cancel()
        since = [event for event in await told(client, DEMO) if event.number > seen]
        first = next(event for event in since if event.kind == "EPOCH_ENDED")
        return Seen(answers, crossed, since, first.request_count)


@pytest.mark.timeout(300)
def test_a_dead_empty_instance_gets_none_of_the_models_new_requests(
    two: Installation, evidence: dict[str, Any]
) -> None:
    until("a good answer", two.answers, 60)
    before = requests_of(two, DEMO)
    seen = asyncio.run(requests_beside_a_dead_one(two))
    assert seen.answers == [NEW_TOKENS] * NEW_COUNT
    assert [count for count, _ in seen.crossing] == [CROSSING_TOKENS] * CROSSING_COUNT
    # It had some of those that crossed its death, each once and none to its end: they went on elsewhere.
    assert 1 <= seen.met <= CROSSING_COUNT, seen
    after = requests_of(two, DEMO)
    reached = {outcome: count - before.get(outcome, 0) for outcome, count in after.items()}
    assert {outcome: count for outcome, count in reached.items() if count} == {"INSTANCE_FAILED": seen.met}, seen
    assert requests_of(two, OTHER)["finished"] == NEW_COUNT + CROSSING_COUNT
    # Dead all the time, and its later deaths touched nobody.
    kinds = [event.kind for event in seen.since]
    assert "EPOCH_ENDED" in kinds and "DEPLOYMENT_READY" not in kinds, seen
    reached_later = sum(event.request_count for event in seen.since) - seen.met
    assert reached_later == 0, seen
    evidence["new_requests_beside_a_dead_empty_instance"] = NEW_COUNT
    evidence["of_these_reached_the_dead_one"] = reached_later
    evidence["requests_across_its_death"] = CROSSING_COUNT
    evidence["of_these_it_had_as_it_died"] = seen.met
    evidence["across_its_death_longest_s"] = round(max(took_s for _, took_s in seen.crossing), 2)
