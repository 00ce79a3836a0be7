"""Who may go to an instance, in which order, and what the others get."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from thunderline.cluster import InstanceId
from thunderline.cluster.errors import (
    CrashLoop,
    DeadlinePassed,
    Full,
    NoReadyInstance,
    NotFound,
    PlacementImpossible,
    Unreachable,
)
from thunderline.scheduler.admission import RESUME_COUNT_MAX, Admission
from thunderline.scheduler.routing import Door, Kind
from thunderline.scheduler.values import DeploymentState, Standing

I1 = InstanceId("i1")


@dataclass
class House:
    """One deployment, m, whose state the test sets."""

    state: DeploymentState | None = DeploymentState.READY

    def look(self, word: str) -> list[Door]:
        if self.state is None or word != "m":
            return []
        return [Door("m", I1, Standing(self.state, "because"))]


def admission(house: House, queue: int = 2, room: int = 1, wait_s: float = 0.05) -> Admission:
    return Admission(house.look, queue, room, wait_s)


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def holding(door: Admission) -> AsyncIterator[None]:
    async with door.admitted("m", Kind.NEW, soon()):
        yield


async def enter(door: Admission, log: list[str], name: str, kind: Kind = Kind.NEW, deadline_s: float = 5.0) -> None:
    async with door.admitted("m", kind, soon(deadline_s)):
        log.append(name)


async def test_a_free_place_is_taken_at_once() -> None:
    door = admission(House())
    async with door.admitted("m", Kind.NEW, soon()) as place:
        assert place.instance == I1
    assert door.depth("m") == 0


async def test_those_who_wait_go_in_order_and_a_resume_goes_first() -> None:
    door, log = admission(House(), queue=4), list[str]()
    async with asyncio.TaskGroup() as group, holding(door):
        for name in ("first", "second"):
            group.create_task(enter(door, log, name))
            await settled()
        group.create_task(enter(door, log, "resume", kind=Kind.RESUMED))
        await settled()
        assert door.depth("m") == 3
        assert log == []
    assert log == ["resume", "first", "second"]


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    door, log = admission(House(), queue=1), list[str]()
    async with asyncio.TaskGroup() as group, holding(door):
        group.create_task(enter(door, log, "waits"))
        await settled()
        with pytest.raises(Full) as refused:
            await enter(door, log, "too many")
        assert refused.value.retry_after_s
        group.create_task(enter(door, log, "resume", kind=Kind.RESUMED))
        await settled()
    assert log == ["resume", "waits"], "a resume is never refused for a full queue"


async def test_the_queue_wait_ends_with_the_deployments_sentence() -> None:
    door = admission(House(DeploymentState.STARTING))
    with pytest.raises(NoReadyInstance, match="m is STARTING: because"):
        await enter(door, [], "x")
    assert door.depth("m") == 0


async def test_room_is_waited_for_until_the_deadline_not_the_queue_wait() -> None:
    door = admission(House(), wait_s=0.02)
    async with holding(door):
        with pytest.raises(DeadlinePassed):
            await enter(door, [], "x", deadline_s=0.2)


async def test_ready_lets_those_in_who_waited_for_it() -> None:
    house, log = House(DeploymentState.STARTING), list[str]()
    door = admission(house, wait_s=5)
    async with asyncio.TaskGroup() as group:
        group.create_task(enter(door, log, "x"))
        await settled()
        house.state = DeploymentState.READY
        door.pump()
    assert log == ["x"]


@pytest.mark.parametrize(
    ("state", "error"),
    [
        pytest.param(DeploymentState.CRASH_LOOP, CrashLoop, id="a crash loop ends the wait at once"),
        pytest.param(None, NotFound, id="an undeployed model ends the wait at once"),
    ],
)
async def test_what_nothing_can_help_is_turned_away(state: DeploymentState | None, error: type[Exception]) -> None:
    house = House(DeploymentState.STARTING)
    door = admission(house, wait_s=5)
    waiting = asyncio.create_task(enter(door, [], "x"))
    await settled()
    house.state = state
    door.pump()
    with pytest.raises(error):
        await asyncio.wait_for(waiting, 1)


RESUMES = [Kind.RESUMED, Kind.ALONE]


@pytest.mark.parametrize("kind", RESUMES, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "state", [DeploymentState.WAITING, DeploymentState.STARTING, DeploymentState.REPAIRING], ids=lambda one: one.name
)
async def test_a_resume_waits_for_ready_until_its_own_deadline(state: DeploymentState, kind: Kind) -> None:
    house, log = House(state), list[str]()
    door = admission(house, queue=0, wait_s=0.01)
    async with asyncio.TaskGroup() as group:
        group.create_task(enter(door, log, "resume", kind))
        await asyncio.sleep(0.05)
        assert door.depth("m") == 1
        house.state = DeploymentState.READY
        door.pump()
    assert log == ["resume"]
    house.state = state
    with pytest.raises(DeadlinePassed):
        await enter(door, log, "too late", kind, deadline_s=0.02)


@pytest.mark.parametrize("kind", RESUMES, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("state", "error"),
    [(DeploymentState.CRASH_LOOP, CrashLoop), (DeploymentState.IMPOSSIBLE, PlacementImpossible)],
    ids=["CRASH_LOOP", "IMPOSSIBLE"],
)
async def test_what_nothing_can_help_ends_a_resume_at_once(
    state: DeploymentState, error: type[Exception], kind: Kind
) -> None:
    house = House(DeploymentState.REPAIRING)
    door = admission(house)
    waiting = asyncio.create_task(enter(door, [], "waits", kind))
    await settled()
    house.state = state
    door.pump()
    with pytest.raises(error):
        await asyncio.wait_for(waiting, 1)
    with pytest.raises(error):
        await enter(door, [], "comes later", kind)


async def test_resumes_of_both_kinds_are_bounded_together() -> None:
    house, log = House(DeploymentState.REPAIRING), list[str]()
    door = admission(house, room=1000)
    async with asyncio.TaskGroup() as group:
        for number in range(RESUME_COUNT_MAX):
            group.create_task(enter(door, log, "resume", RESUMES[number % 2]))
        await settled()
        for kind in RESUMES:
            with pytest.raises(Full):
                await enter(door, log, "too many", kind)
        house.state = DeploymentState.READY
        door.pump()
    assert log == ["resume"] * RESUME_COUNT_MAX


async def test_a_client_that_leaves_while_it_waits_leaves_no_trace() -> None:
    door, log = admission(House()), list[str]()
    async with asyncio.TaskGroup() as group, holding(door):
        leaver = group.create_task(enter(door, log, "leaver"))
        await settled()
        group.create_task(enter(door, log, "next"))
        await settled()
        leaver.cancel()
        await settled()
        assert door.depth("m") == 1
    assert log == ["next"]


async def test_a_place_that_comes_as_its_client_leaves_goes_to_the_next() -> None:
    door, log = admission(House()), list[str]()
    async with asyncio.TaskGroup() as group:
        async with holding(door):
            leaver = group.create_task(enter(door, log, "leaver"))
            await settled()
            group.create_task(enter(door, log, "next"))
            await settled()
        # The place was given to the leaver this moment; it has not run since.
        leaver.cancel()
    assert log == ["next"]
    async with asyncio.timeout(1), holding(door):
        pass


async def test_a_wait_for_room_is_no_queue_wait() -> None:
    house, log = House(), list[str]()
    door = admission(house, wait_s=0.5)
    async with asyncio.TaskGroup() as group, holding(door):
        group.create_task(enter(door, log, "x"))
        await asyncio.sleep(0.7)
        house.state = DeploymentState.REPAIRING
        door.pump()
        await asyncio.sleep(0.1)
        assert door.depth("m") == 1
        house.state = DeploymentState.READY
        door.pump()
    assert log == ["x"]


async def test_the_queue_wait_counts_from_the_moment_in_which_ready_was_lost() -> None:
    house = House()
    door = admission(house, wait_s=0.2)
    async with holding(door):
        waiting = asyncio.create_task(enter(door, [], "x"))
        await asyncio.sleep(0.1)
        house.state = DeploymentState.REPAIRING
        door.pump()
        begun_s = asyncio.get_running_loop().time()
        with pytest.raises(NoReadyInstance, match="m is REPAIRING"):
            await asyncio.wait_for(waiting, 5)
        assert 0.2 <= asyncio.get_running_loop().time() - begun_s < 2


async def test_each_of_several_has_its_own_queue_wait_behind_a_resume_that_waits() -> None:
    door, clock = admission(House(DeploymentState.STARTING), wait_s=0.2), asyncio.get_running_loop().time

    async def refused_after() -> float:
        begun_s = clock()
        with pytest.raises(NoReadyInstance):
            await enter(door, [], "x")
        return clock() - begun_s

    resume = asyncio.create_task(enter(door, [], "resume", Kind.RESUMED))
    first = asyncio.create_task(refused_after())
    await asyncio.sleep(0.1)
    second = asyncio.create_task(refused_after())
    for waited_s in (await first, await second):
        assert 0.2 <= waited_s < 2
    assert not resume.done()
    resume.cancel()
    await asyncio.wait({resume})


async def test_without_a_queue_wait_what_is_not_ready_is_refused_at_once_and_room_is_waited_for_asleep() -> None:
    house, log, looks = House(DeploymentState.STARTING), list[str](), 0

    def look(word: str) -> list[Door]:
        nonlocal looks
        looks += 1
        return house.look(word)

    door = Admission(look, 2, 1, 0.0)
    async with asyncio.timeout(1):
        with pytest.raises(NoReadyInstance):
            await enter(door, log, "x")
    house.state = DeploymentState.READY
    async with asyncio.TaskGroup() as group, holding(door):
        group.create_task(enter(door, log, "waits"))
        await settled()
        looks = 0
        await asyncio.sleep(0.1)
        assert looks == 0
    assert log == ["waits"]


async def test_a_door_that_is_closed_turns_everybody_away_as_one_that_nobody_reached() -> None:
    door = admission(House())
    async with holding(door):
        waiting = [asyncio.create_task(enter(door, [], kind.name, kind)) for kind in Kind]
        await settled()
        door.close("stopping")
        for task in waiting:
            with pytest.raises(Unreachable, match="stopping"):
                await asyncio.wait_for(task, 1)
        with pytest.raises(Unreachable):
            await enter(door, [], "comes later", Kind.RESUMED)
    assert door.depth("m") == 0
