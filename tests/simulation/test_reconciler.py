"""The scheduler's laws under faults, by seed; and that this simulation can fail."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from simulation.runner_world import Broken
from simulation.scheduler_world import Cluster, Reconcile
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.actions import MakeAbsent
from thunderline.scheduler.reconciler import Decision, Waits, reconcile
from thunderline.scheduler.values import DeploymentState, RankView, RunnerView, Standing, World

SEED_COUNT = 200
FAULTS_S = 40.0
# A wait of up to 8 s, a call that is lost for 5 s, an attempt that is made every 60 s, and the start itself.
PEACE_S = 90.0
QUIET_S = 5.0


def live(cluster: Cluster) -> None:
    """Faults, then peace: it settles, and then does nothing more."""
    begun_s = cluster.now_s
    cluster.run(begun_s + FAULTS_S)
    cluster.faults = False
    deadline_s = cluster.now_s + PEACE_S
    while not cluster.settled():
        if cluster.now_s >= deadline_s:
            raise Broken(f"not settled {PEACE_S:.0f} s after the last fault: {cluster.standings}")
        cluster.deploy_again()
        cluster.run(cluster.now_s + 1.0)
    # Answers of the last commands are still on their way.
    cluster.run(cluster.now_s + 1.0)
    before = cluster.action_count
    cluster.run(cluster.now_s + QUIET_S)
    if cluster.action_count != before:
        raise Broken("it goes on doing things although all is well")


@pytest.mark.parametrize("seed", range(SEED_COUNT), ids=lambda seed: f"seed {seed}")
def test_every_law_holds_and_it_settles(seed: int) -> None:
    live(Cluster(seed))


def seeing(change: Callable[[RunnerView, World], RunnerView]) -> Reconcile:
    """The reconciler behind a bug: it takes views for something else."""

    def decide(world: World, now_s: float, waits: Waits) -> Decision:
        return reconcile(
            replace(world, runners={node: change(view, world) for node, view in world.runners.items()}), now_s, waits
        )

    return decide


def without(view: RunnerView, hidden: Callable[[RankView], bool]) -> RunnerView:
    return replace(view, ranks=tuple(rank for rank in view.ranks if not hidden(rank)))


def newest_only(view: RunnerView, world: World) -> RunnerView:
    newest = {wish.current.number for wish in world.wishes if wish.current}
    return without(view, lambda rank: rank.id.epoch not in newest)


def forgets_what_is_in_flight(world: World, now_s: float, waits: Waits) -> Decision:
    return reconcile(replace(world, in_flight=frozenset()), now_s, waits)


def never_ends_a_rank(world: World, now_s: float, waits: Waits) -> Decision:
    decision = reconcile(world, now_s, waits)
    return replace(decision, actions=tuple(one for one in decision.actions if not isinstance(one, MakeAbsent)))


def keeps_a_route_open(world: World, now_s: float, waits: Waits) -> Decision:
    """One that was READY stays so until its epoch is written down as over."""
    decision = reconcile(world, now_s, waits)
    late = {
        wish.instance: Standing(DeploymentState.READY, "it was")
        for wish in world.wishes
        if wish.current and wish.current.ready_s is not None and not wish.undeploying
    }
    return replace(decision, standings={**decision.standings, **late})


def starts_beside_a_living_epoch(world: World, now_s: float, waits: Waits) -> Decision:
    """An epoch that is slow to become READY is taken for one that is not there."""
    wishes = tuple(
        replace(wish, epochs=wish.epochs[:-1]) if wish.current and wish.current.ready_s is None else wish
        for wish in world.wishes
    )
    return reconcile(replace(world, wishes=wishes), now_s, waits)


def routes_to_warming(world: World, now_s: float, waits: Waits) -> Decision:
    return seeing(
        lambda view, _: replace(
            view,
            ranks=tuple(
                replace(rank, state=RankState.READY) if rank.state is RankState.WARMING else rank for rank in view.ranks
            ),
        )
    )(world, now_s, waits)


BUGS: dict[str, Callable[[int], Cluster]] = {
    "actions under way are issued again": lambda seed: Cluster(seed, forgets_what_is_in_flight),
    "ranks of older epochs are not looked at": lambda seed: Cluster(seed, seeing(newest_only)),
    "a rank's memory is given away while it is STOPPING": lambda seed: Cluster(
        seed, seeing(lambda view, _: without(view, lambda rank: rank.state is RankState.STOPPING))
    ),
    "an incomplete view is taken for a complete one": lambda seed: Cluster(
        seed, seeing(lambda view, _: replace(view, complete=True))
    ),
    "a runner that cannot be reached is taken for one without ranks": lambda seed: Cluster(
        seed, seeing(lambda view, _: view if view.reachable else RunnerView(view.node, True, True))
    ),
    "a rank that nobody wants is never ended": lambda seed: Cluster(seed, never_ends_a_rank),
    "a route is closed late": lambda seed: Cluster(seed, keeps_a_route_open),
    "a WARMING rank is routed to": lambda seed: Cluster(seed, routes_to_warming),
    "an epoch is started beside a living one": lambda seed: Cluster(seed, starts_beside_a_living_epoch),
    "epoch numbers are forgotten by a restart": lambda seed: Cluster(seed, numbers_survive=False),
}


@pytest.mark.parametrize("make", BUGS.values(), ids=BUGS.keys())
def test_a_seeded_bug_is_caught(make: Callable[[int], Cluster]) -> None:
    for seed in range(SEED_COUNT):
        try:
            live(make(seed))
        except Broken:
            return
    pytest.fail(f"{SEED_COUNT} seeds did not notice it")
