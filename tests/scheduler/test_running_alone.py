"""A request that ranks were lost under runs alone until it speaks; who waits for it, and for how long."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from scheduler.requests_by_name import Requests
from scheduler.test_admission import House, settled, soon
from thunderline.cluster.errors import DeadlinePassed
from thunderline.scheduler.admission import Admission
from thunderline.scheduler.routing import Kind
from thunderline.scheduler.values import DeploymentState

NEVER_S = 1000.0


@contextlib.asynccontextmanager
async def scene(
    state: DeploymentState = DeploymentState.READY,
    wait_s: float = NEVER_S,
    hold_s: float = NEVER_S,
    again_s: float = NEVER_S,
) -> AsyncIterator[tuple[House, Requests]]:
    house = House(state)
    made = Requests(Admission(house.look, 10, 10, 5.0, wait_s, hold_s, again_s))
    async with made.coming():
        yield house, made


async def test_it_waits_until_nobody_else_is_there_and_holds_everybody_back_meanwhile() -> None:
    async with scene() as (_, one):
        await one.comes("neighbour", Kind.RESUMED)
        await one.comes("suspect", Kind.ALONE)
        await one.comes("resume", Kind.RESUMED)
        await one.comes("new", Kind.NEW)
        assert one.names == ["neighbour"]
        await one.leaves("neighbour")
        assert one.names == ["suspect"]
        await one.speaks("suspect")
        assert one.names == ["suspect", "resume", "new"]


async def test_on_an_empty_instance_it_goes_at_once() -> None:
    async with scene() as (_, one):
        await one.comes("suspect", Kind.ALONE)
        await one.comes("new", Kind.NEW)
        assert one.names == ["suspect"]
        await one.leaves("suspect")
        assert one.names == ["new"]


async def test_it_goes_first_on_an_instance_that_is_back() -> None:
    async with scene(DeploymentState.REPAIRING) as (house, one):
        for name, kind in (("new", Kind.NEW), ("resume", Kind.RESUMED), ("suspect", Kind.ALONE)):
            await one.comes(name, kind)
        house.state = DeploymentState.READY
        one.door.pump()
        await settled()
        assert one.names == ["suspect"]
        await one.speaks("suspect")
        assert one.names == ["suspect", "resume", "new"]


async def test_several_go_one_after_the_other_each_when_the_one_before_has_spoken() -> None:
    async with scene() as (_, one):
        for name in ("first", "second", "third"):
            await one.comes(name, Kind.ALONE)
        await one.comes("new", Kind.NEW)
        assert one.names == ["first"]
        await one.speaks("first")
        assert one.names == ["first", "second"], "who has spoken is harmless: nobody waits for its end"
        await one.leaves("second")
        assert one.names == ["first", "third"]
        await one.speaks("third")
        assert one.names == ["first", "third", "new"]


async def test_it_never_goes_beside_those_who_run_and_after_a_while_others_pass_it() -> None:
    async with scene(wait_s=0.05) as (_, one):
        await one.comes("neighbour", Kind.NEW)
        await one.comes("suspect", Kind.ALONE)
        await one.comes("new", Kind.NEW)
        assert one.names == ["neighbour"]
        await asyncio.sleep(0.15)
        assert one.names == ["neighbour", "new"]
        await one.comes("resume", Kind.RESUMED)
        assert one.names == ["neighbour", "new", "resume"], "its turn is over: nobody waits for it"
        await one.leaves("neighbour", "new")
        assert one.names == ["resume"]
        await one.leaves("resume")
        assert one.names == ["suspect"]


async def test_from_time_to_time_others_are_held_back_for_it_once_more() -> None:
    async with scene(wait_s=0.05, again_s=0.2) as (_, one):
        await one.comes("neighbour", Kind.NEW)
        await one.comes("suspect", Kind.ALONE)
        held: list[bool] = []
        for number in itertools.count():
            name = f"new {number}"
            await one.comes(name, Kind.NEW)
            is_held = name not in one.names
            await (one.gives_up(name) if is_held else one.leaves(name))
            if held[-1:] != [is_held]:
                held.append(is_held)
            if len(held) == 5:
                break
            await asyncio.sleep(0.01)
        assert held == [True, False, True, False, True]
        assert one.names == ["neighbour"]


async def test_a_second_one_does_not_keep_it_free_once_more_at_once() -> None:
    """Or one after the other they would hold everybody back for ever."""
    async with scene(wait_s=0.05) as (_, one):
        await one.comes("neighbour", Kind.NEW)
        await one.comes("first", Kind.ALONE)
        await asyncio.sleep(0.15)
        await one.gives_up("first")
        await one.comes("second", Kind.ALONE)
        await one.comes("new", Kind.NEW)
        assert one.names == ["neighbour", "new"]
        await one.leaves("neighbour", "new")
        assert one.names == ["second"]


async def test_its_deadline_ends_its_wait() -> None:
    async with scene() as (_, one):
        await one.comes("neighbour", Kind.NEW)
        with pytest.raises(DeadlinePassed):
            async with one.door.admitted("m", Kind.ALONE, soon(0.05)):
                pass
        await one.comes("new", Kind.NEW)
        assert one.names == ["neighbour", "new"]


async def test_one_that_never_speaks_does_not_hold_the_others_for_ever() -> None:
    async with scene(hold_s=0.05) as (_, one):
        await one.comes("suspect", Kind.ALONE)
        await one.comes("new", Kind.NEW)
        assert one.names == ["suspect"]
        await asyncio.sleep(0.1)
        assert one.names == ["suspect", "new"]


async def test_one_that_gives_up_waiting_holds_nobody_back() -> None:
    async with scene() as (_, one):
        await one.comes("neighbour", Kind.NEW)
        await one.comes("suspect", Kind.ALONE)
        await one.comes("new", Kind.NEW)
        await one.gives_up("suspect")
        assert one.names == ["neighbour", "new"]


async def test_also_at_an_instance_that_is_back_it_waits_for_those_who_were_there_before_it() -> None:
    async with scene(wait_s=0.05) as (house, one):
        await one.comes("suspect", Kind.ALONE)
        await one.speaks("suspect")
        await one.comes("neighbour", Kind.NEW)
        await one.comes("other", Kind.ALONE)
        house.state = DeploymentState.REPAIRING
        one.door.pump()
        await asyncio.sleep(0.15)
        house.state = DeploymentState.READY
        one.door.pump()
        await settled()
        assert one.names == ["suspect", "neighbour"]
        await one.leaves("neighbour")
        assert one.names == ["suspect", "other"]


async def test_of_two_only_one_is_silent_at_a_time_also_when_the_others_have_waited_long_enough() -> None:
    """A long prefill is as silent as a poison: beside one, it would be blamed for the rank."""
    async with scene(wait_s=0.05, hold_s=0.05) as (_, one):
        await one.comes("long prefill", Kind.ALONE)
        await one.comes("poison", Kind.ALONE)
        await one.comes("resume", Kind.RESUMED)
        assert one.names == ["long prefill"]
        await asyncio.sleep(0.3)
        assert one.names == ["long prefill", "resume"]
        await one.comes("new", Kind.NEW)
        assert one.names == ["long prefill", "resume", "new"], "they pass the one that waits"
        await one.speaks("long prefill")
        await asyncio.sleep(0.15)
        assert "poison" not in one.names, "others run now"
        await one.leaves("resume", "new")
        assert one.names == ["long prefill", "poison"]


async def test_the_next_one_goes_when_the_silent_one_has_ended() -> None:
    async with scene(hold_s=0.01) as (_, one):
        await one.comes("first", Kind.ALONE)
        await one.comes("second", Kind.ALONE)
        await asyncio.sleep(0.05)
        assert one.names == ["first"]
        await one.leaves("first")
        assert one.names == ["second"]
