"""Who goes where when a word means two instances, and when two words compete for one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from scheduler.requests_by_name import Requests
from scheduler.test_admission import settled, soon
from thunderline.cluster import InstanceId
from thunderline.cluster.errors import CrashLoop, NoReadyInstance, NotFound
from thunderline.scheduler.admission import Admission
from thunderline.scheduler.routing import Door, Kind, Request
from thunderline.scheduler.values import DeploymentState, Standing

S = DeploymentState
NEVER_S = 1000.0


@dataclass
class Houses:
    """Two deployments of one model: "m", which is also the model's name, and "n"."""

    states: dict[str, DeploymentState] = field(default_factory=lambda: {"m": S.READY, "n": S.READY})

    def look(self, word: str) -> list[Door]:
        names = {"m": ["m", "n"], "n": ["n"]}.get(word, [])
        known = [name for name in names if name in self.states]
        return [Door(name, InstanceId(f"i-{name}"), Standing(self.states[name], "because")) for name in known]


class Scene(Requests):
    """At these houses."""

    def __init__(self, door: Admission, houses: Houses) -> None:
        super().__init__(door)
        self.houses = houses

    async def turns(self, name: str, state: DeploymentState) -> None:
        self.houses.states[name] = state
        self.door.pump()
        await settled()

    @property
    def at(self) -> dict[str, str]:
        return {name: place.deployment for name, place in self.inside.items()}


@contextlib.asynccontextmanager
async def scene(room: int = 1, wait_s: float = 5.0, alone_wait_s: float = NEVER_S) -> AsyncIterator[Scene]:
    houses = Houses()
    door = Admission(houses.look, 10, room, wait_s, alone_wait_s, NEVER_S)
    made = Scene(door, houses)
    async with made.coming():
        yield made


async def test_each_goes_where_the_fewest_tokens_are() -> None:
    async with scene(room=10) as one:
        for name, tokens in (("long", 900), ("short", 100), ("short too", 100), ("third", 100)):
            await one.comes(name, request=Request(tokens))
        assert one.at == {"long": "m", "short": "n", "short too": "n", "third": "n"}
        await one.leaves("long")
        await one.comes("next", request=Request(100))
        assert one.at["next"] == "m"


@pytest.mark.parametrize("dead", [S.REPAIRING, S.WAITING, S.CRASH_LOOP, S.IMPOSSIBLE], ids=lambda one: one.name)
async def test_a_dead_one_that_is_empty_gets_nothing(dead: DeploymentState) -> None:
    async with scene(room=200) as one:
        one.houses.states["m"] = dead
        for number in range(24):
            await one.comes(f"before {number}", word="n")
        for number in range(100):
            await one.comes(f"new {number}", kind=Kind.RESUMED if number % 5 == 0 else Kind.NEW)
        assert list(one.at.values()) == ["n"] * 124


async def test_what_its_name_alone_means_waits_for_it() -> None:
    async with scene() as one:
        one.houses.states["n"] = S.REPAIRING
        await one.comes("by its name", word="n")
        await one.comes("by the model's")
        assert one.at == {"by the model's": "m"}
        await one.turns("n", S.READY)
        assert one.at["by its name"] == "n"


async def test_of_two_words_for_one_instance_nobody_waits_longer_for_its_word() -> None:
    """In each queue somebody waits all the time."""
    async with scene() as one:
        await one.comes("at m")
        await one.comes("at n")
        order = []
        for number in range(4):
            order += [f"m {number}", f"n {number}"]
            await one.comes(f"m {number}", word="m")
            await one.comes(f"n {number}", word="n")
        last = "at n"
        for name in order:
            await one.leaves(last)
            assert list(one.inside) == ["at m", name]
            last = name


async def test_a_resume_of_one_word_goes_before_the_new_ones_of_another() -> None:
    async with scene() as one:
        await one.comes("at m")
        await one.comes("at n")
        await one.comes("new", word="n")
        await one.comes("resume", word="m", kind=Kind.RESUMED)
        await one.leaves("at n")
        assert one.at == {"at m": "m", "resume": "n"}


async def test_a_resume_goes_where_it_is_parked_though_more_is_under_way_there() -> None:
    async with scene(room=10) as one:
        await one.comes("busy", request=Request(1000))
        await one.comes("resume", kind=Kind.RESUMED, request=Request(1, parked_at=InstanceId("i-m")))
        await one.turns("m", S.REPAIRING)
        await one.comes("other", kind=Kind.RESUMED, request=Request(1, parked_at=InstanceId("i-m")))
        assert one.at == {"busy": "m", "resume": "m", "other": "n"}


async def test_a_suspect_goes_to_the_empty_one_at_once_and_holds_nobody_back_at_the_other() -> None:
    async with scene(room=10) as one:
        await one.comes("neighbour")
        await one.comes("suspect", kind=Kind.ALONE)
        await one.comes("new")
        await one.comes("by its name", word="n")
        assert one.at == {"neighbour": "m", "suspect": "n", "new": "m"}
        await one.speaks("suspect")
        assert one.at["by its name"] == "n"


async def test_a_suspect_waits_for_one_of_two_and_leaves_the_other_open() -> None:
    async with scene(room=10) as one:
        await one.comes("at m", request=Request(900))
        await one.comes("at n", request=Request(100))
        await one.comes("suspect", kind=Kind.ALONE)
        await one.comes("new", request=Request(100))
        await one.comes("by its name", word="n")
        assert one.at == {"at m": "m", "at n": "n", "new": "m"}, "n is kept free, for every word"
        await one.leaves("at n")
        assert one.at["suspect"] == "n"


async def test_a_suspect_that_waits_for_one_that_dies_waits_for_the_other() -> None:
    async with scene(room=10) as one:
        await one.comes("at m", request=Request(900))
        await one.comes("at n", request=Request(100))
        await one.comes("suspect", kind=Kind.ALONE)
        await one.turns("n", S.REPAIRING)
        await one.comes("new")
        assert one.at == {"at m": "m", "at n": "n"}
        await one.turns("n", S.READY)
        await one.comes("by its name", word="n")
        assert one.at == {"at m": "m", "at n": "n", "new": "n", "by its name": "n"}, "only one of them is kept free"
        await one.leaves("at m")
        assert one.at["suspect"] == "m"


async def test_a_suspect_that_waits_holds_no_more_when_its_word_means_nothing_any_more() -> None:
    async with scene(room=10) as one:
        await one.comes("at n", word="n")
        one.houses.states["m"] = S.REPAIRING
        refused = asyncio.create_task(one.door.admitted("m", Kind.ALONE, soon()).__aenter__())
        await settled()
        await one.comes("waits", word="n")
        assert one.at == {"at n": "n"}
        refused.cancel()
        await settled()
        assert one.at == {"at n": "n", "waits": "n"}


@pytest.mark.parametrize(
    ("m", "n", "error", "text"),
    [
        (S.CRASH_LOOP, S.STARTING, NoReadyInstance, "n is STARTING: because"),
        (S.WAITING, S.REPAIRING, NoReadyInstance, "n is REPAIRING: because"),
        (S.CRASH_LOOP, S.IMPOSSIBLE, CrashLoop, "m is CRASH_LOOP: because"),
        (S.UNDEPLOYING, S.UNDEPLOYING, NotFound, "not deployed"),
    ],
    ids=["one may start", "one is repaired", "both given up", "both undeployed"],
)
async def test_a_refusal_is_of_the_most_hopeful_one(
    m: DeploymentState, n: DeploymentState, error: type[Exception], text: str
) -> None:
    async with scene(wait_s=0.02) as one:
        one.houses.states.update(m=m, n=n)
        with pytest.raises(error, match=text):
            async with one.door.admitted("m", Kind.NEW, soon()):
                pass


async def test_the_queue_of_a_word_that_no_deployment_bears_is_shown_at_one_that_it_means() -> None:
    def shown(name: str) -> float | None:
        return REGISTRY.get_sample_value("thunderline_queue_depth", {"deployment": name})

    async with scene() as one:
        del one.houses.states["m"]
        await one.comes("at n", word="n")
        await one.comes("by the model's", word="m")
        await one.comes("by its name", word="n")
        assert (one.door.depth("n"), one.door.depth("m"), shown("n")) == (2, 0, 2.0)
        await one.leaves("at n", "by the model's")
        assert shown("n") == 0.0
