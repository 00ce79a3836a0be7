"""Events through the scheduler, over real sockets and a real store: what is told, what is kept, and who waits."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from scheduler.little_runner import CRASH, FIRST, LAST, READY
from scheduler.little_scheduler import LIMITS, NODE, House, Life, house, served
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import Draining, InstanceFailed, StoreUnavailable
from thunderline.scheduler.event_log import UNWRITTEN_COUNT_MAX
from thunderline.scheduler.events import Event
from thunderline.scheduler.store import EVENT_COUNT_MAX, Store
from thunderline.v1 import cluster_pb2, scheduler_pb2

KILL = cluster_pb2.ExitCause(name="SIGNAL", detail="SIGKILL", state=READY, pid=1234, uptime_s=41)


async def kept(life: Life, after: int = 0) -> list[scheduler_pb2.Event]:
    return [event async for event in life.client.watch_events(after, kept_only=True)]


async def kinds(life: Life) -> list[str]:
    return [event.kind for event in await kept(life)]


async def until_told(life: Life, kind: str, after: int = 0) -> scheduler_pb2.Event:
    async with asyncio.timeout(15):
        async for event in life.client.watch_events(after):
            if event.kind == kind:
                return event
    raise AssertionError("the stream ended")


def on_disk(home: House) -> list[tuple[int, str]]:
    with contextlib.closing(home.disk()) as disk:
        return disk.execute("SELECT number, kind FROM events ORDER BY number").fetchall()


@contextlib.contextmanager
def locked(home: House) -> Iterator[None]:
    """Another process writes the store, and does not end."""
    with contextlib.closing(home.disk()) as disk:
        disk.execute("BEGIN EXCLUSIVE")
        yield
        disk.execute("ROLLBACK")


async def test_a_life_is_told_from_its_deploy_to_its_undeploy(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        await life.until("READY on disk", lambda: home.epochs()[0][1])
        home.runner.move(1, cluster_pb2.RANK_STATE_FAILED, KILL)
        await life.until("the next", lambda: life.states[-2:] == ["REPAIRING", "READY"])
        await life.client.undeploy("m")
        await until_told(life, "UNDEPLOYED")
        told = await kept(life)
        assert [event.kind for event in told] == [
            "DEPLOYED",
            "EPOCH_STARTED",
            "DEPLOYMENT_READY",
            "EPOCH_ENDED",
            "EPOCH_STARTED",
            "DEPLOYMENT_READY",
            "EPOCH_ENDED",
            "UNDEPLOYED",
        ]
        assert [event.number for event in told] == list(range(1, 9))
        assert {event.subject for event in told} == {"m"}
        end = "epoch 1 ended: SIGNAL SIGKILL while READY (pid 1234, 41 s up): killed from outside"
        assert (told[3].text, told[3].done) == (end, "the next epoch starts in 0.3 s")
        assert told[6].done == "undeployed"
        assert on_disk(home) == [(event.number, event.kind) for event in told]


async def test_the_log_says_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "thunderline.scheduler.event_log"):
        async with served(tmp_path) as (_, life):
            await until_told(life, "DEPLOYMENT_READY")
            told = await kept(life)
    logged = [vars(record) for record in caplog.records if "event" in vars(record)]
    assert [(one["number"], one["event"], one["message"]) for one in logged] == [
        (event.number, event.kind, event.text) for event in told
    ]


async def test_an_end_counts_the_requests_whose_streams_broke_before_it(tmp_path: Path) -> None:
    under_way, dead = asyncio.Semaphore(0), asyncio.Event()

    async def dies(_: cluster_pb2.Generation, __: Any) -> AsyncIterator[bytes]:
        yield FIRST
        under_way.release()
        await dead.wait()
        raise InstanceFailed("its process has ended")

    async def answer(life: Life) -> None:
        async for _ in life.client._stub.Generate(
            scheduler_pb2.SchedulerServiceGenerateRequest(generation=life.generation())
        ):
            pass

    async with served(tmp_path, replace(LIMITS, rank_request_count_max=3)) as (home, life):
        home.runner.answer = dies
        streams = [asyncio.create_task(answer(life)) for _ in range(3)]
        for _ in streams:
            await under_way.acquire()
        dead.set()
        ends = await asyncio.gather(*streams, return_exceptions=True)
        assert all(isinstance(end, grpc.aio.AioRpcError) for end in ends), "all of them broke"
        home.runner.move(1, cluster_pb2.RANK_STATE_FAILED, KILL)
        event = await until_told(life, "EPOCH_ENDED")
        assert event.request_count == 3


async def test_a_request_that_came_back_and_was_answered_was_not_lost(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        wish, route = life.generation(), life.control.route(life.wish.instance)
        assert route is not None
        answers: list[list[bytes | Exception]] = [[FIRST, InstanceFailed("it was away")], [FIRST, LAST]]

        async def breaks(_: cluster_pb2.Generation, __: Any) -> AsyncIterator[bytes]:
            for one in answers.pop(0):
                if isinstance(one, Exception):
                    raise one
                yield one

        home.runner.answer = breaks
        with pytest.raises(InstanceFailed):
            await _drain(life, wish)
        assert life.control.runners.facts()[route[1]].request_count == 1
        await _drain(life, wish)
        assert life.control.runners.facts()[route[1]].request_count == 0


async def _drain(life: Life, wish: cluster_pb2.Generation) -> None:
    node, rank = life.control.route(life.wish.instance) or (None, None)
    assert node is not None and rank is not None
    async for _ in life.control.runners.generate(node, rank, wish, 5.0):
        pass


async def test_a_restarted_scheduler_tells_on_and_says_what_it_found(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            await life.until("READY on disk", lambda: home.epochs()[0][1])
            before = await kept(life)
        async with home.scheduler() as life:
            event = await until_told(life, "RANK_ADOPTED")
            assert event.number == before[-1].number + 1
            assert event.done == "it serves on: nothing was loaded again"
            assert await kept(life) == [*before, event], "and nothing is told twice"
            assert await kept(life, after=before[-1].number) == [event]


async def test_a_runner_that_goes_and_comes_back(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        await home.stop_runner()
        lost = await until_told(life, "RUNNER_LOST")
        assert (lost.subject, lost.done) == ("node node", "until it is back nothing new goes to m")
        home.runner.changes = type(home.runner.changes)()
        await home.start_runner()
        back = await until_told(life, "RUNNER_BACK")
        assert back.done == "1 rank of it found READY: nothing was loaded again"
        await life.until_state("READY")
        assert sorted((await kinds(life))[2:]) == ["DEPLOYMENT_READY", "RUNNER_BACK", "RUNNER_LOST"], "each once"


async def test_crashes_in_a_row_end_with_the_circuit(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        home.runner.fails = [CRASH] * 5
        await life.deploy()
        await until_told(life, "DEPLOYMENT_CRASH_LOOP")
        told = await kept(life)
        assert [event.kind for event in told[1:]] == [*["EPOCH_STARTED", "EPOCH_ENDED"] * 5, "DEPLOYMENT_CRASH_LOOP"]
        assert told[-2].done == "the circuit is open"


async def test_a_poisoned_request_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, life):
        life.control.note_poisoned("m", "1-2", "three ranks died under it")
        event = await until_told(life, "REQUEST_POISONED")
        assert (event.subject, event.request_count) == ("m", 1)


async def test_a_watch_ends_at_once_when_the_role_stops(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life, SchedulerClient(life.address) as other:
        watching = other.watch_events()
        await life.deploy()
        await anext(watching)
        life.control.changes.stop()
        with pytest.raises(Draining):
            async with asyncio.timeout(2):
                async for _ in watching:
                    pass


async def test_a_locked_store_stops_nothing_that_serves_and_starts_nothing_new(tmp_path: Path) -> None:
    async with served(tmp_path) as (home, life):
        await life.until("READY on disk", lambda: home.epochs()[0][1])
        last = (await kept(life))[-1].number
        commands = list(home.runner.commands)
        with locked(home):
            with pytest.raises(StoreUnavailable, match="locked"):
                await life.client.deploy(cluster_pb2.DeploymentSpec(name="n", model="org/n"))
            event = await until_told(life, "STORE_UNAVAILABLE", last)
            assert event.done == "nothing new starts; what serves goes on"
            for _ in range(5):
                await _drain(life, life.generation())
            home.runner.move(1, cluster_pb2.RANK_STATE_FAILED, KILL)
            await life.until_state("REPAIRING")
            await asyncio.wait({life.task}, timeout=3)
            assert not life.task.done()
            assert [one for one in home.runner.commands if one not in commands and one[0] != "ABSENT"] == []
        back = await until_told(life, "STORE_BACK", last)
        await life.until_state("READY")
        await until_told(life, "DEPLOYMENT_READY", last)
        told = await kept(life, last)
        assert [event.kind for event in told if event.kind.startswith("STORE")] == ["STORE_UNAVAILABLE", "STORE_BACK"]
        assert "EPOCH_ENDED" in {event.kind for event in told}
        assert back.text.startswith("the scheduler's store can be written again, after ")
        await life.until("all of it on disk", lambda: on_disk(home)[-1][0] >= told[-1].number)
        assert [one.number for one in await kept(life)] == [number for number, _ in on_disk(home)]


async def test_what_a_full_disk_does_not_take_is_bounded(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        with contextlib.closing(home.disk()) as disk:
            disk.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
            life.control.note_poisoned("m", "first", "why")
            await until_told(life, "STORE_UNAVAILABLE")
            for number in range(UNWRITTEN_COUNT_MAX):
                life.control.note_poisoned("m", str(number), "why")
            disk.execute("DROP TRIGGER full")
        back = await until_told(life, "STORE_BACK")
        assert back.text.endswith("; 2 events could not be kept")
        numbers = [one.number for one in await kept(life)]
        assert numbers == list(range(1, UNWRITTEN_COUNT_MAX + 4)), "in memory they are all there"
        await life.until("it on disk", lambda: bool(on_disk(home)) and on_disk(home)[-1][1] == "STORE_BACK")
        assert [number for number, _ in on_disk(home)] == numbers[2:]


def test_an_older_store_gets_its_table(tmp_path: Path) -> None:
    Store(tmp_path, NODE).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "scheduler.db")) as disk:
        disk.execute("DROP TABLE events")
    store = Store(tmp_path, NODE)
    assert store.events() == []
    store.close()


def test_the_newest_are_kept_and_numbers_grow(tmp_path: Path) -> None:
    store = Store(tmp_path, NODE)
    written = [Event("KIND", "m", f"text {n}", 10.5 + n, n % 3, "done", n) for n in range(1, EVENT_COUNT_MAX + 8)]
    store.keep(written)
    store.keep([])
    store.keep(written[-1:])
    store.close()
    store = Store(tmp_path, NODE)
    assert store.events() == written[7:]
    store.close()
