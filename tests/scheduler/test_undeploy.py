"""Undeploy in each phase: what is ended, what is waited for, and that everything is gone before it is forgotten."""

from dataclasses import replace

import pytest

from scheduler.scenes import (
    CRASHED,
    EIGHT_ATTEMPTS,
    ENDED_JUST_NOW,
    FETCHABLE,
    FIVE_CRASHES,
    I1,
    LATE,
    NEW,
    NOW_S,
    PERMANENT,
    SERVED,
    STARTED,
    STOPPED,
    WAITS,
    A,
    R,
    S,
    epoch,
    id_of,
    rank,
    runner,
    wish,
    world,
)
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.actions import UNDEPLOYED, Action, EndEpoch, Forget, MakeAbsent
from thunderline.scheduler.reconciler import reconcile
from thunderline.scheduler.values import Cause, Fetch, RankView, RunnerView, Wish, World

END: list[Action] = [MakeAbsent(id_of(4), A)]
ASKED = "its rank to end"
RANK = "rank i1-4-0 to end"
RUNNER = "the runner of node a"
FORGOTTEN = "it to be forgotten"

# The world before `undeploy`, what it waits for then, and the actions.
PHASES: dict[str, tuple[World, str, list[Action]]] = {
    "nothing was done yet": (world(NEW, runner(), audit=None), FORGOTTEN, [Forget(I1)]),
    "its files are being fetched": (
        world(NEW, runner(), audit=FETCHABLE, fetch=Fetch(43, 100)),
        FORGOTTEN,
        [Forget(I1)],
    ),
    "no runner was ever there": (world(NEW), FORGOTTEN, [Forget(I1)]),
    "its epoch is written down, and no runner has heard of it": (world(STARTED, runner()), ASKED, END),
    "its epoch is late": (world(LATE, runner(rank(4, R.PREPARED))), RANK, END),
    "its rank is STARTING": (world(STARTED, runner(rank(4, R.STARTING))), RANK, END),
    "its rank is PREPARED": (world(STARTED, runner(rank(4, R.PREPARED))), RANK, END),
    "its rank is CONNECTING": (world(STARTED, runner(rank(4, R.CONNECTING))), RANK, END),
    "its rank is VERIFYING": (world(STARTED, runner(rank(4, R.VERIFYING))), RANK, END),
    "its rank is LOADING": (world(STARTED, runner(rank(4, R.LOADING))), RANK, END),
    "its rank is WARMING": (world(STARTED, runner(rank(4, R.WARMING))), RANK, END),
    "its rank is READY, and that is not written down yet": (world(STARTED, runner(rank(4, R.READY))), RANK, END),
    "it serves": (world(SERVED, runner(rank(4, R.READY))), RANK, END),
    "its rank is not dialled in": (world(SERVED, runner(rank(4, R.READY, attached=False))), RANK, END),
    "its rank has failed": (world(SERVED, runner(rank(4, R.FAILED, CRASHED))), RANK, END),
    "its rank is STOPPING": (world(SERVED, runner(rank(4, R.STOPPING))), RANK, []),
    "its rank is ABSENT": (
        world(SERVED, runner(rank(4, R.ABSENT, STOPPED))),
        ASKED,
        [EndEpoch(I1, 4, UNDEPLOYED)],
    ),
    "it waits for the next epoch": (world(ENDED_JUST_NOW, runner(rank(4, R.ABSENT))), FORGOTTEN, [Forget(I1)]),
    "its last rank has failed and still lives": (world(ENDED_JUST_NOW, runner(rank(4, R.FAILED))), RANK, END),
    "two epochs live": (
        world(wish(epoch(3, 995.0, CRASHED), epoch(4)), runner(rank(3, R.STOPPING), rank(4, R.PREPARED))),
        "rank i1-3-0 to end",
        END,
    ),
    "its circuit is open": (world(FIVE_CRASHES, runner()), FORGOTTEN, [Forget(I1)]),
    "its attempts are used up": (world(EIGHT_ATTEMPTS, runner()), FORGOTTEN, [Forget(I1)]),
    "it is impossible": (world(wish(epoch(4, 995.0, PERMANENT)), runner()), FORGOTTEN, [Forget(I1)]),
    "its runner cannot be reached": (world(SERVED, runner(rank(4, R.READY), reachable=False)), RUNNER, []),
    "its runner is not known": (world(SERVED), RUNNER, []),
    "its runner has just restarted": (world(SERVED, runner(complete=False)), RUNNER, []),
    "its runner has just restarted, and has found the rank": (
        world(SERVED, runner(rank(4, R.READY, attached=False), complete=False)),
        RUNNER,
        END,
    ),
}


def undeployed(seen: World) -> World:
    return replace(seen, wishes=tuple(replace(one, undeploying=True) for one in seen.wishes))


@pytest.mark.parametrize(("before", "waits_for", "actions"), PHASES.values(), ids=PHASES.keys())
def test_undeploy(before: World, waits_for: str, actions: list[Action]) -> None:
    decision = reconcile(undeployed(before), NOW_S, WAITS)
    standing = decision.standings[I1]
    assert (standing.state, standing.waits_for) == (S.UNDEPLOYING, waits_for)
    assert list(decision.actions) == actions
    assert standing.reason


def ended(wished: Wish, number: int, cause: Cause) -> Wish:
    epochs = tuple(replace(one, ended_s=NOW_S, cause=cause) if one.number == number else one for one in wished.epochs)
    return replace(wished, epochs=epochs)


def carried_out(seen: World, action: Action) -> World:
    """What an honest runner and the store make of it."""
    view = seen.runners[A]
    match action:
        case MakeAbsent(rank_id, _):
            others = tuple(one for one in view.ranks if one.id != rank_id)
            gone = RankView(rank_id, A, RankState.ABSENT, STOPPED)
            return replace(seen, runners={A: replace(view, ranks=(*others, gone))})
        case EndEpoch(_, number, cause):
            return replace(seen, wishes=tuple(ended(one, number, cause) for one in seen.wishes))
        case Forget():
            assert all(one.state is RankState.ABSENT for one in view.ranks)
            return replace(seen, wishes=())
    raise AssertionError(f"{action} while it is being undeployed")


def healed(view: RunnerView | None) -> RunnerView:
    """The runner is back, and what was about to end has ended."""
    ranks = tuple(
        replace(one, state=RankState.ABSENT) if one.state is RankState.STOPPING else one
        for one in (view.ranks if view else ())
    )
    return RunnerView(A, True, True, ranks)


@pytest.mark.parametrize("before", [phase[0] for phase in PHASES.values()], ids=PHASES.keys())
def test_it_is_forgotten_when_nothing_of_it_is_left(before: World) -> None:
    seen = undeployed(before)
    seen = replace(seen, runners={A: healed(seen.runners.get(A))})
    for _ in range(5):
        for action in reconcile(seen, NOW_S, WAITS).actions:
            seen = carried_out(seen, action)
        if not seen.wishes:
            return
    pytest.fail(f"not forgotten after five passes: {seen}")


def test_an_undeployed_name_is_no_wish_of_another() -> None:
    other: Wish = replace(SERVED, undeploying=True)
    assert reconcile(world(other, runner(rank(4, R.READY))), NOW_S, WAITS).actions == tuple(END)
