"""What holds of every decision, over worlds drawn at random: possible ones, and some that only a liar could show."""

import random
from dataclasses import replace

import pytest

from scheduler.scenes import GIB, MODEL, NOW_S, USABLE, WAITS, A, B
from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.actions import targets
from thunderline.scheduler.reconciler import reconcile
from thunderline.scheduler.values import (
    Audit,
    Cause,
    DeploymentState,
    Epoch,
    Fetch,
    RankView,
    RunnerView,
    Spec,
    Verdict,
    Wish,
    World,
)

WORLD_COUNT = 3_000
INSTANCES = (InstanceId("i1"), InstanceId("i2"))
NODES = (A, B)


def cause(chance: random.Random) -> Cause:
    name = chance.choice(("SIGNAL", "STOPPED", "LOST", "PHASE_DEADLINE"))
    return Cause(name, chance.choice(("", "SIGSEGV")), chance.choice(list(RankState)), chance.random() < 0.1)


def epochs(chance: random.Random) -> tuple[Epoch, ...]:
    found: list[Epoch] = []
    count = chance.choice((0, 0, 1, 1, 2, 6, 9))
    for number in range(1, count + 1):
        started_s = NOW_S - chance.choice((1.0, 30.0, 200.0, 900.0))
        epoch = Epoch(number, started_s, chance.choice(NODES), 8_192, 5 * GIB, digest=chance.choice(("", "", "b")))
        if chance.random() < 0.5:
            epoch = replace(epoch, ready_s=started_s + 1, answered=chance.random() < 0.1)
        if number < count or chance.random() < 0.5:
            epoch = replace(epoch, ended_s=started_s + chance.choice((2.0, 100.0)), cause=cause(chance))
        found.append(epoch)
    return tuple(found)


def ranks(chance: random.Random, node: NodeId) -> tuple[RankView, ...]:
    found = []
    for instance in (*INSTANCES, InstanceId("i9")):
        for number in chance.sample(range(1, 10), chance.choice((0, 1, 2))):
            state = chance.choice(list(RankState))
            why = cause(chance) if state in {RankState.FAILED, RankState.ABSENT} and chance.random() < 0.8 else None
            view = RankView(RankId(instance, number, 0), node, state, why, attached=chance.random() < 0.7)
            found.append(view)
    return tuple(found)


def audit(chance: random.Random) -> Audit:
    verdict = chance.choice((Verdict.USABLE, Verdict.USABLE, Verdict.FETCHABLE, Verdict.UNUSABLE))
    at_s = NOW_S - chance.choice((1.0, 60.0))
    if verdict is not Verdict.USABLE:
        return Audit(verdict, chance.choice(((), ("no config.json",))), at_s=at_s)
    memory = chance.choice((2, 8, 64)) * GIB
    return replace(USABLE, usable_memory_bytes=memory, digest=chance.choice(("", "b")), at_s=at_s)


def fetch(chance: random.Random) -> Fetch:
    error = chance.choice(("", "no network"))
    return Fetch(0, chance.choice((0, 100)), error, chance.random() < 0.3, 1, NOW_S - chance.choice((1.0, 100.0)))


def world(seed: int) -> World:
    chance = random.Random(seed)
    wishes = tuple(
        Wish(Spec(name, MODEL), instance, chance.choice((0.0, NOW_S - 100)), chance.random() < 0.2, epochs(chance))
        for name, instance in zip("mn", INSTANCES, strict=True)
    )
    here = [node for node in NODES if chance.random() < 0.9]
    return World(
        wishes,
        {node: RunnerView(node, chance.random() < 0.8, chance.random() < 0.7, ranks(chance, node)) for node in here},
        {(node, MODEL): audit(chance) for node in NODES if chance.random() < 0.8},
        {(node, MODEL): fetch(chance) for node in NODES if chance.random() < 0.5},
        served=frozenset(one for one in INSTANCES if chance.random() < 0.5),
        ages_s={one: chance.choice((1.0, 100.0, 200.0)) for one in INSTANCES},
    )


def serves(seen: World, wish: Wish) -> bool:
    """The one rank that may be routed to: of the living epoch, READY, dialled in, heard this moment."""
    if wish.undeploying or wish.current is None:
        return False
    view = seen.runners.get(wish.current.node)
    ready = {one.id for one in view.ranks if one.state is RankState.READY and one.attached} if view else set()
    return view is not None and view.reachable and RankId(wish.instance, wish.current.number, 0) in ready


@pytest.mark.parametrize("block", range(0, WORLD_COUNT, 500), ids=lambda first: f"worlds {first} to {first + 499}")
def test_every_decision(block: int) -> None:
    for seed in range(block, block + 500):
        seen = world(seed)
        decision = reconcile(seen, NOW_S, WAITS)
        assert decision == reconcile(seen, NOW_S, WAITS), seed
        assert decision.standings.keys() == {wish.instance for wish in seen.wishes}, seed
        for wish in seen.wishes:
            standing = decision.standings[wish.instance]
            assert standing.reason.strip(), (seed, standing)
            assert (standing.state is DeploymentState.READY) is serves(seen, wish), (seed, standing)
            assert standing.waits_for or standing.state is DeploymentState.READY, (seed, standing)
            assert not any(word in standing.reason for word in ("None", "RankState", "Cause(")), (seed, standing)
            assert (standing.state is DeploymentState.UNDEPLOYING) is wish.undeploying, (seed, standing)
        about = [one for action in decision.actions for one in targets(action)]
        assert len(about) == len(set(about)), (seed, decision.actions)
        assert decision.look_again_s > 0, seed


def test_the_worlds_are_worth_it() -> None:
    """Every state of a deployment is met, and every kind of action."""
    states, kinds = set(), set()
    for seed in range(WORLD_COUNT):
        decision = reconcile(world(seed), NOW_S, WAITS)
        states |= {standing.state for standing in decision.standings.values()}
        kinds |= {type(action).__name__ for action in decision.actions}
    assert states == set(DeploymentState)
    assert len(kinds) == 9
