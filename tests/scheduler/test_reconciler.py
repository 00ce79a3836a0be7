"""What the reconciler does in each situation, and what it says of the deployment."""

import random
from dataclasses import replace
from itertools import permutations

import pytest

from scheduler.scenes import (
    CRASHED,
    ENDED_A_WHILE_AGO,
    ENDED_JUST_NOW,
    FETCHABLE,
    GIB,
    GONE,
    I1,
    I2,
    MODEL,
    NOW_S,
    SERVED,
    STARTED,
    UNUSABLE,
    USABLE,
    WAITS,
    A,
    B,
    R,
    S,
    epoch,
    id_of,
    rank,
    runner,
    wish,
    world,
)
from scheduler.situations_of_a_start import STARTING
from scheduler.situations_of_service import SERVING
from thunderline.cluster import NodeId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler import reservations
from thunderline.scheduler.actions import Action, AuditModel, MakeAbsent, StartEpoch, targets
from thunderline.scheduler.reconciler import reconcile
from thunderline.scheduler.values import Audit, DeploymentState, RunnerView, Standing, Wish, World

SITUATIONS = {**STARTING, **SERVING}
# Its weights are more than the whole node has.
TOO_SMALL = replace(USABLE, usable_memory_bytes=GIB)


def run(given: World) -> tuple[Standing | None, list[Action]]:
    decision = reconcile(given, NOW_S, WAITS)
    return decision.standings.get(I1), list(decision.actions)


@pytest.mark.parametrize(("given", "state", "words", "actions"), SITUATIONS.values(), ids=SITUATIONS.keys())
def test_situation(given: World, state: DeploymentState, words: str, actions: list[Action]) -> None:
    standing, found = run(given)
    assert standing is not None
    assert (standing.state, found) == (state, actions)
    assert words in standing.reason
    assert standing.waits_for or state is S.READY


@pytest.mark.parametrize(("given", "state", "words", "actions"), SITUATIONS.values(), ids=SITUATIONS.keys())
def test_one_action_per_target_and_the_same_again(
    given: World, state: DeploymentState, words: str, actions: list[Action]
) -> None:
    first, second = run(given), run(given)
    assert first == second
    about = [one for action in first[1] for one in targets(action)]
    assert len(set(about)) == len(about)
    quiet = replace(given, in_flight=given.in_flight | set(about))
    assert run(quiet) == (first[0], []), "what is under way is not started again, and the sentence stays"


UNWANTED = {
    "a rank of no deployment of ours is ended": (None, runner(rank(4, R.READY)), [MakeAbsent(id_of(4), A)]),
    "a rank of an older epoch is ended while the new one serves": (
        wish(epoch(3, 995.0, CRASHED), epoch(4, ready_s=997.0)),
        runner(rank(3, R.READY), rank(4, R.READY)),
        [MakeAbsent(id_of(3), A)],
    ),
    "a rank of an epoch that is over is ended": (
        ENDED_JUST_NOW,
        runner(rank(4, R.FAILED, CRASHED)),
        [MakeAbsent(id_of(4), A)],
    ),
    "a rank newer than the store knows is ended": (
        SERVED,
        runner(rank(4, R.READY), rank(9, R.LOADING)),
        [MakeAbsent(id_of(9), A)],
    ),
    "a rank that is STOPPING is not told again": (None, runner(rank(4, R.STOPPING)), []),
    "a rank that is ABSENT needs nothing": (None, runner(rank(4, R.ABSENT)), []),
    "a rank behind an unreachable runner cannot be told": (None, runner(rank(4, R.READY), reachable=False), []),
}


@pytest.mark.parametrize(("wished", "view", "actions"), UNWANTED.values(), ids=UNWANTED.keys())
def test_unwanted_ranks(wished: Wish | None, view: RunnerView, actions: list[Action]) -> None:
    assert run(world(wished, view))[1] == actions


def test_memory_is_not_promised_twice_within_one_pass() -> None:
    two = (wish(), wish(instance=I2, name="n"))
    found = reconcile(World(two, {A: runner()}, {(A, MODEL): replace(USABLE, usable_memory_bytes=6 * GIB)}), 0.0, WAITS)
    assert [action.instance for action in found.actions if isinstance(action, StartEpoch)] == [I1]
    assert found.standings[I2].state is S.WAITING
    assert found.standings[I2].waits_for == "memory"
    (start,) = [action for action in found.actions if isinstance(action, StartEpoch)]
    assert found.promised == {A: start.memory_bytes}, "whoever plans meanwhile finds it taken"


RESERVED = {
    "an epoch that nobody has seen yet": (STARTED, runner(), 5 * GIB),
    "an epoch and its rank count once": (STARTED, runner(rank(4, R.LOADING)), 5 * GIB),
    "a failed rank holds memory until it is ABSENT": (ENDED_JUST_NOW, runner(rank(4, R.FAILED)), 5 * GIB),
    "a rank behind an unreachable runner": (SERVED, runner(rank(4, R.READY), reachable=False), 5 * GIB),
    "a rank of nobody": (None, runner(rank(4, R.READY)), 5 * GIB),
    "an old and a new epoch": (
        wish(epoch(3, 995.0, CRASHED), epoch(4)),
        runner(rank(3, R.STOPPING), rank(4, R.PREPARED)),
        10 * GIB,
    ),
    "an ABSENT rank of an epoch that is over": (ENDED_JUST_NOW, runner(rank(4, R.ABSENT)), 0),
}


@pytest.mark.parametrize(("wished", "view", "held_bytes"), RESERVED.values(), ids=RESERVED.keys())
def test_memory_is_reserved_by(wished: Wish | None, view: RunnerView, held_bytes: int) -> None:
    assert reservations.held(world(wished, view)).get(A, 0) == held_bytes


@pytest.mark.parametrize("state", RankState, ids=lambda state: state.name)
@pytest.mark.parametrize(
    "wished", [STARTED, SERVED, ENDED_A_WHILE_AGO, GONE], ids=["started", "served", "ended", "gone"]
)
@pytest.mark.parametrize("reachable", [True, False], ids=["reachable", "unreachable"])
@pytest.mark.parametrize("complete", [True, False], ids=["complete", "incomplete"])
def test_only_a_reachable_READY_rank_of_the_living_epoch_is_routed_to(
    state: RankState, wished: Wish, reachable: bool, complete: bool
) -> None:
    standing, actions = run(world(wished, runner(rank(4, state), reachable=reachable, complete=complete)))
    assert standing is not None
    serves = state is R.READY and reachable and wished in (STARTED, SERVED)
    assert (standing.state is S.READY) is serves
    if not reachable:
        assert actions == [], "nothing is asked of a runner, or concluded, while it cannot be reached"
    assert standing.reason


def test_the_order_in_which_runners_are_known_does_not_matter() -> None:
    views = [runner(rank(3, R.FAILED)), runner(node=B), runner(node=NodeId("c"), complete=False)]
    audits = {(A, MODEL): USABLE, (B, MODEL): replace(USABLE, usable_memory_bytes=64 * GIB)}
    found = set()
    for order in permutations(views):
        shuffled = list(audits.items())
        random.Random(str(order)).shuffle(shuffled)
        decision = reconcile(World((wish(),), {view.node: view for view in order}, dict(shuffled)), NOW_S, WAITS)
        found.add((decision.actions, tuple(decision.standings.items())))
    assert len(found) == 1


@pytest.mark.parametrize("batching", ["", "batch"])
def test_plain_batching_is_not_mentioned(batching: str) -> None:
    standing, _ = run(world(SERVED, runner(replace(rank(4, R.READY), batching=batching, batching_reason="?"))))
    assert standing is not None
    assert standing.reason == "epoch 4 serves on node a"


@pytest.mark.parametrize("first", [UNUSABLE, FETCHABLE, TOO_SMALL], ids=["not there", "on the hub", "no room for it"])
def test_nothing_is_concluded_from_one_node_while_another_has_not_looked_at_its_files(first: Audit) -> None:
    both = {A: runner(), B: runner(node=B)}
    given = replace(world(wish(), runner(), audit=first), runners=both)
    standing, actions = run(given)
    assert standing is not None
    assert standing.state is S.WAITING
    assert AuditModel(B, MODEL) in actions
    assert not [one for one in actions if not isinstance(one, AuditModel)]
    _, actions = run(replace(given, audits={**given.audits, (B, MODEL): USABLE}))
    assert [one.node for one in actions if isinstance(one, StartEpoch)] == [B]
