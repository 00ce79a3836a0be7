"""Deployments of one model with unequal KV budgets: who waits for one of them holds nobody back at the others."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from scheduler.test_admission import settled, soon
from thunderline.cluster import InstanceId
from thunderline.cluster.errors import DeadlinePassed, NoReadyInstance
from thunderline.scheduler.admission import Admission
from thunderline.scheduler.lines import Look, Losses
from thunderline.scheduler.routing import Door, Kind, Request, fitting
from thunderline.scheduler.values import DeploymentState, Standing

S = DeploymentState


def door(name: str, budget: int, state: DeploymentState = S.READY) -> Door:
    return Door(name, InstanceId(name), Standing(state, "because"), budget)


@dataclass
class Asker:
    request: Request


def looked(rooms: dict[str, tuple[int, int]], needs: Sequence[int]) -> tuple[list[str], int]:
    """Where each of a line goes ("-": it stays) with rooms of NAME: (KV budget, free places); how many were tried."""
    doors = [door(name, budget) for name, (budget, _) in rooms.items()]
    free = {name: places for name, (_, places) in rooms.items()}
    line = [Asker(Request(needed_tokens=need)) for need in needs]
    went: dict[int, str] = {}
    tried = 0
    for look, one in Look("m", doors).along(line):
        tried += 1
        fit = [door.name for door in fitting(doors, one.request)]
        open_to_it = [name for name in fit if free[name] and not look.is_kept(InstanceId(name))]
        if open_to_it:
            free[open_to_it[0]] -= 1
            went[id(one)] = open_to_it[0]
        else:
            look.stays(one.request)
    return [went.get(id(one), "-") for one in line], tried


@pytest.mark.parametrize(
    ("rooms", "needs", "expected", "tried"),
    [
        pytest.param({"a": (0, 0)}, [1, 1, 1], "---", 1, id="one door: only the first is tried"),
        pytest.param({"a": (0, 2)}, [1, 1, 1], "aa-", 3, id="one door: until it is full"),
        pytest.param({"a": (9, 0), "b": (9, 0)}, [1, 5, 9], "---", 1, id="equal budgets: only the first"),
        pytest.param({"a": (16, 0), "b": (4, 2)}, [10, 10, 2, 2, 2], "--bb-", 4, id="small ones pass a big one"),
        pytest.param({"a": (0, 0), "b": (4, 1)}, [10, 2], "-b", 2, id="a budget that is not known fits all"),
        pytest.param({"a": (16, 0), "b": (4, 0)}, [2, 10, 2, 10], "----", 2, id="one try for each set of doors"),
        pytest.param({"a": (16, 1), "b": (4, 0)}, [2, 10], "a-", 2, id="who came first has the door that both fit"),
        pytest.param({"a": (16, 1), "b": (4, 0)}, [10, 2], "a-", 2, id="also the big one"),
        pytest.param({"a": (16, 1), "b": (8, 0), "c": (4, 0)}, [6, 10, 2], "a--", 3, id="three doors"),
        pytest.param({"a": (16, 0), "b": (8, 1), "c": (4, 0)}, [10, 6, 2], "-b-", 3, id="the one in the middle"),
        pytest.param({"a": (16, 1), "b": (4, 0)}, [99, 2, 99], "a--", 2, id="who fits nowhere goes anywhere"),
        pytest.param({}, [1, 1], "--", 1, id="no door"),
    ],
)
def test_of_a_line_go(rooms: dict[str, tuple[int, int]], needs: list[int], expected: str, tried: int) -> None:
    assert looked(rooms, needs) == (list(expected), tried)


def test_it_is_as_if_everybody_was_tried_and_nobody_overtakes_at_a_door_that_an_earlier_one_fits() -> None:
    for seed in range(300):
        dice = random.Random(seed)
        rooms = {name: (dice.choice([0, 4, 8, 16]), dice.randrange(3)) for name in "abc"[: dice.randint(1, 3)]}
        needs = [dice.choice([0, 2, 4, 6, 8, 10, 20]) for _ in range(8)]
        doors = [door(name, budget) for name, (budget, _) in rooms.items()]
        free, kept, expected = {name: places for name, (_, places) in rooms.items()}, set[str](), []
        for need in needs:
            fit = [one.name for one in fitting(doors, Request(needed_tokens=need))]
            found = next((name for name in fit if free[name] and name not in kept), "-")
            if found == "-":
                kept.update(fit)
            else:
                free[found] -= 1
            expected.append(found)
        went, tried = looked(rooms, needs)
        assert went == expected, (seed, rooms, needs)
        assert tried <= len(needs) - went.count("-") + len(rooms)


def test_what_is_kept_is_kept_also_if_it_opens_meanwhile() -> None:
    look = Look("m", [door("a", 16), door("b", 4)])
    look.stays(Request(needed_tokens=10))
    assert (look.is_kept(InstanceId("a")), look.is_kept(InstanceId("b"))) == (True, False)


def test_since_when_a_door_is_away() -> None:
    losses, never = Losses(), float("-inf")
    a, b = door("a", 16), door("b", 4)
    away_a, away_b = door("a", 16, S.REPAIRING), door("b", 4, S.REPAIRING)
    losses.see([away_a, b], 1.0)
    assert losses.away_since_s([away_a]) == never, "it was never seen to be READY"
    losses.see([away_a, away_b], 2.0)
    losses.see([away_a, away_b], 3.0)
    assert (losses.away_since_s([away_a]), losses.away_since_s([away_a, away_b])) == (never, 2.0)
    losses.see([a, away_b], 4.0)
    losses.see([away_b, door("c", 0, S.STARTING)], 5.0)
    assert losses.away_since_s([door("c", 0, S.STARTING)]) == 5.0, "whoever waited for a waits for READY from now on"


@dataclass
class Houses:
    """Two deployments of one model: "big", and "small" which holds less."""

    states: dict[str, DeploymentState] = field(default_factory=lambda: {"big": S.READY, "small": S.READY})

    def look(self, _: str) -> list[Door]:
        return [door(name, {"big": 16, "small": 4}[name], state) for name, state in self.states.items()]


class Scene:
    """Requests by name. A request named "16 ..." needs 16 tokens of KV."""

    def __init__(self, room: int = 1, wait_s: float = 5.0) -> None:
        self.houses = Houses()
        self.admission = Admission(self.houses.look, 10, room, wait_s)
        self.at: dict[str, str] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def comes(self, *names: str, kind: Kind = Kind.NEW, deadline_s: float = 5.0) -> None:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._stay(name, kind, deadline_s))
            await settled()

    async def _stay(self, name: str, kind: Kind, deadline_s: float) -> None:
        request = Request(1, needed_tokens=int(name.split()[0]))
        async with self.admission.admitted("m", kind, soon(deadline_s), request) as place:
            self.at[name] = place.deployment
            try:
                await asyncio.Event().wait()
            finally:
                del self.at[name]

    async def leaves(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
            await asyncio.wait({self.tasks[name]})
        await settled()

    async def turns(self, name: str, state: DeploymentState | None) -> None:
        if state is None:
            del self.houses.states[name]
        else:
            self.houses.states[name] = state
        self.admission.pump()
        await settled()

    async def end(self) -> None:
        await self.leaves(*self.tasks)
        assert self.admission.depth("big") + self.admission.depth("small") == 0


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
async def test_one_that_waits_for_a_dead_door_holds_nobody_back_at_the_other(kind: Kind) -> None:
    one = Scene(room=2)
    one.houses.states["big"] = S.REPAIRING
    await one.comes("10", "10 too", kind=kind)
    await one.comes("2", kind=kind)
    assert one.at == {"2": "small"}
    await one.turns("big", S.READY)
    assert one.at["10"] == "big"
    await one.end()


async def test_a_resume_whose_deadline_passes_leaves_those_behind_it_where_they_are() -> None:
    one = Scene(room=2)
    one.houses.states["big"] = S.REPAIRING
    await one.comes("10", kind=Kind.RESUMED, deadline_s=0.05)
    await one.comes("2 resumed", kind=Kind.RESUMED)
    await one.comes("2")
    with pytest.raises(DeadlinePassed):
        await one.tasks["10"]
    assert one.at == {"2 resumed": "small", "2": "small"}
    await one.end()


async def test_a_door_goes_to_the_first_of_those_who_fit_it() -> None:
    one = Scene()
    await one.comes("16", "4", "2 first", "10 first", "2 second", "10 second")
    assert one.at == {"16": "big", "4": "small"}
    await one.leaves("16")
    assert one.at == {"4": "small", "2 first": "big"}
    await one.leaves("2 first")
    assert one.at == {"4": "small", "10 first": "big"}, "the small one that came later waits"
    await one.leaves("4")
    assert one.at == {"10 first": "big", "2 second": "small"}
    await one.end()


async def test_each_has_its_own_queue_wait_also_behind_one_that_waits_for_room() -> None:
    one = Scene(wait_s=0.1)
    one.houses.states["big"] = S.STARTING
    await one.comes("4", "2", "10")
    with pytest.raises(NoReadyInstance, match="big is STARTING"):
        await asyncio.wait_for(one.tasks["10"], 2)
    assert (one.at, one.admission.depth("big")) == ({"4": "small"}, 1)
    await one.end()


async def test_the_first_whose_queue_wait_is_over_is_refused_first_wherever_it_stands() -> None:
    one = Scene(wait_s=0.2)
    one.houses.states["big"] = S.STARTING
    await one.comes("4", "2", "10")
    await asyncio.sleep(0.1)
    await one.turns("small", S.REPAIRING)
    with pytest.raises(NoReadyInstance):
        await asyncio.wait_for(one.tasks["10"], 2)
    assert not one.tasks["2"].done()
    with pytest.raises(NoReadyInstance):
        await asyncio.wait_for(one.tasks["2"], 2)
    await one.end()


async def test_who_waited_for_room_where_is_no_door_any_more_has_a_queue_wait_from_then_on() -> None:
    one = Scene(wait_s=0.1)
    one.houses.states["small"] = S.STARTING
    await one.comes("16", "2")
    await asyncio.sleep(0.15)
    await one.turns("big", None)
    assert not one.tasks["2"].done()
    with pytest.raises(NoReadyInstance, match="small is STARTING"):
        await asyncio.wait_for(one.tasks["2"], 2)
    await one.end()


async def test_a_suspect_that_comes_first_has_the_door_that_a_later_one_waits_to_be_alone_at() -> None:
    one = Scene(room=2)
    one.houses.states["big"] = S.REPAIRING
    await one.comes("4")
    await one.comes("10 suspect", "2 suspect", kind=Kind.ALONE)
    # It fits nowhere now, so it may go anywhere, and be told so.
    await one.turns("big", None)
    await one.leaves("4")
    assert one.at == {"10 suspect": "small"}
    await one.end()
