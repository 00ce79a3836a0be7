"""The scheduler's core with one mistake each. The simulation must notice every one of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simulation.scheduler_world import Core, Reconcile
from thunderline.cluster import RankId, StoreId
from thunderline.cluster.ranks import RankState
from thunderline.runner.fence import Fence, Goal, Verdict, judge
from thunderline.scheduler.actions import EndEpoch, MakeAbsent, targets
from thunderline.scheduler.attempts import HEALTHY_S, Attempt, Next, NextAttempt, next_attempt
from thunderline.scheduler.reconciler import Decision, Waits, reconcile
from thunderline.scheduler.values import DeploymentState, Epoch, RankView, RunnerView, Standing, Wish, World

R = RankState


def seeing(change: Callable[[RunnerView, World], RunnerView]) -> Reconcile:
    """It takes views for something else."""
    return knowing(
        lambda world: replace(world, runners={node: change(view, world) for node, view in world.runners.items()})
    )


def knowing(change: Callable[[World], World]) -> Reconcile:
    """It takes the world for another one."""

    def decide(world: World, now_s: float, waits: Waits, attempt: NextAttempt) -> Decision:
        return reconcile(change(world), now_s, waits, attempt)

    return decide


def seeing_ranks(change: Callable[[RankView], RankView]) -> Reconcile:
    return seeing(lambda view, _: replace(view, ranks=tuple(change(rank) for rank in view.ranks)))


def without(view: RunnerView, hidden: Callable[[RankView], bool]) -> RunnerView:
    return replace(view, ranks=tuple(rank for rank in view.ranks if not hidden(rank)))


def recalling(change: Callable[[Epoch], Epoch]) -> NextAttempt:
    """It remembers the epochs that are over otherwise than they were."""

    def decide(epochs: Sequence[Epoch], fresh_above: int, wait_min_s: float, wait_max_s: float) -> Attempt:
        return next_attempt([change(epoch) for epoch in epochs], fresh_above, wait_min_s, wait_max_s)

    return decide


def newest_only(view: RunnerView, world: World) -> RunnerView:
    newest = {wish.current.number for wish in world.wishes if wish.current}
    return without(view, lambda rank: rank.id.epoch not in newest)


def does_not_wait_for_elders(world: World, now_s: float, waits: Waits, attempt: NextAttempt) -> Decision:
    """It ends ranks of older epochs, and goes on as if they had ended."""
    hasty = seeing(newest_only)(world, now_s, waits, attempt)
    taken = frozenset(one for action in hasty.actions for one in targets(action))
    rest = reconcile(replace(world, in_flight=world.in_flight | taken), now_s, waits, attempt)
    ends = tuple(action for action in rest.actions if isinstance(action, MakeAbsent))
    return replace(hasty, actions=(*hasty.actions, *ends))


def takes_an_elder_for_the_living_epoch(view: RunnerView, world: World) -> RunnerView:
    """A rank of the instance is a rank of the instance, whatever its epoch."""
    numbers = {wish.instance: wish.current.number for wish in world.wishes if wish.current}

    def renamed(rank: RankView) -> RankView:
        number = numbers.get(rank.id.instance, rank.id.epoch)
        return replace(rank, id=RankId(rank.id.instance, number, rank.id.rank))

    return replace(view, ranks=tuple(renamed(rank) for rank in view.ranks))


def never_ends_a_rank(world: World, now_s: float, waits: Waits, attempt: NextAttempt) -> Decision:
    decision = reconcile(world, now_s, waits, attempt)
    return replace(decision, actions=tuple(one for one in decision.actions if not isinstance(one, MakeAbsent)))


def keeps_a_route_open(world: World, now_s: float, waits: Waits, attempt: NextAttempt) -> Decision:
    """One that was READY stays so until its epoch is written down as over."""
    decision = reconcile(world, now_s, waits, attempt)
    ended = {action.instance for action in decision.actions if isinstance(action, EndEpoch)}
    late = {
        wish.instance: Standing(DeploymentState.READY, "it was")
        for wish in world.wishes
        if wish.instance in ended and wish.current and wish.current.ready_s is not None and not wish.undeploying
    }
    return replace(decision, standings={**decision.standings, **late})


def starts_beside_a_living_epoch(world: World) -> World:
    """An epoch that is slow to become READY is taken for one that is not there."""
    wishes = tuple(
        replace(wish, epochs=wish.epochs[:-1]) if wish.current and wish.current.ready_s is None else wish
        for wish in world.wishes
    )
    return replace(world, wishes=wishes)


def forgets_too_early(world: World) -> World:
    """What is told to end has ended."""
    going = {wish.instance for wish in world.wishes if wish.undeploying}

    def seen(rank: RankView) -> RankView:
        ends = rank.state is R.STOPPING and rank.id.instance in going
        return replace(rank, state=R.ABSENT) if ends else rank

    runners = {
        node: replace(view, ranks=tuple(seen(rank) for rank in view.ranks)) for node, view in world.runners.items()
    }
    return replace(world, runners=runners)


def counts_twice(epochs: Sequence[Epoch], fresh_above: int, wait_min_s: float, wait_max_s: float) -> Attempt:
    twice = [one for epoch in epochs for one in ((epoch, epoch) if epoch.is_over else (epoch,))]
    return next_attempt(twice, fresh_above, wait_min_s, wait_max_s)


def counts_from_the_beginning(
    epochs: Sequence[Epoch], fresh_above: int, wait_min_s: float, wait_max_s: float
) -> Attempt:
    """A Deploy is no new beginning."""
    return next_attempt(epochs, 0, wait_min_s, wait_max_s)


def has_no_window(epochs: Sequence[Epoch], fresh_above: int, wait_min_s: float, wait_max_s: float) -> Attempt:
    """Crashes of last week count: all are taken to have ended when the last one did."""
    last_s = epochs[-1].ended_s if epochs else None
    at_once = [
        replace(epoch, answered=was_healthy(epoch), ready_s=None, ended_s=last_s) if epoch.is_over else epoch
        for epoch in epochs
    ]
    found = next_attempt(at_once, fresh_above, wait_min_s, wait_max_s)
    return found if found.next is Next.OPEN else next_attempt(epochs, fresh_above, wait_min_s, wait_max_s)


def was_healthy(epoch: Epoch) -> bool:
    served_s = (epoch.ended_s or 0.0) - epoch.ready_s if epoch.ready_s is not None else 0.0
    return epoch.answered or served_s >= HEALTHY_S


def never_rests(epochs: Sequence[Epoch], fresh_above: int, wait_min_s: float, wait_max_s: float) -> Attempt:
    """Attempts that are used up go on as fast as before."""
    found = next_attempt(epochs, fresh_above, wait_min_s, wait_max_s)
    return replace(found, at_s=found.at_s - 50.0, used_up=False) if found.used_up else found


def never_waits(epochs: Sequence[Epoch], fresh_above: int, wait_min_s: float, wait_max_s: float) -> Attempt:
    found = next_attempt(epochs, fresh_above, wait_min_s, wait_max_s)
    return replace(found, next=Next.NOW) if found.next is Next.AT else found


@dataclass(frozen=True, slots=True)
class Punctual(Attempt):
    """It waits until its clock shows the time, whatever that was set to."""

    def is_due(self, now_s: float) -> bool:
        return now_s >= self.at_s


def never_late(epochs: Sequence[Epoch], fresh_above: int, wait_min_s: float, wait_max_s: float) -> Attempt:
    found = next_attempt(epochs, fresh_above, wait_min_s, wait_max_s)
    return Punctual(found.next, found.at_s, found.failed, found.used_up, found.crash_count)


def deployed_by_the_clock(world: World) -> World:
    """What failed before a Deploy is told by its time."""

    def judged(wish: Wish) -> Wish:
        before = [epoch.number for epoch in wish.epochs if epoch.started_s < wish.fresh_since_s]
        return replace(wish, fresh_above=max(before, default=0))

    return replace(world, wishes=tuple(judged(wish) for wish in world.wishes))


def stays_where_it_is(world: World) -> World:
    """Of the nodes only that of the last epoch is looked at."""
    last = {wish.spec.model: wish.epochs[-1].node for wish in world.wishes if wish.epochs}
    return replace(world, audits={key: one for key, one in world.audits.items() if last.get(key[1], key[0]) == key[0]})


def never_sees_other_files(world: World) -> World:
    """The audit is taken for that of the last epoch."""
    last = {wish.spec.model: wish.epochs[-1].digest for wish in world.wishes if wish.epochs}
    audits = {key: replace(audit, digest=last.get(key[1], audit.digest)) for key, audit in world.audits.items()}
    return replace(world, audits=audits)


def never_loses_patience(world: World, now_s: float, waits: Waits, attempt: NextAttempt) -> Decision:
    return reconcile(world, now_s, replace(waits, prepare_s=math.inf), attempt)


def takes_sleep_for_time(world: World, now_s: float, waits: Waits, attempt: NextAttempt) -> Decision:
    """How long an epoch has lived is read from the clock on the wall."""
    ages_s = {wish.instance: abs(now_s - wish.current.started_s) for wish in world.wishes if wish.current}
    return reconcile(replace(world, ages_s=ages_s), now_s, waits, attempt)


def takes_any_epoch(fence: Fence, store: StoreId, rank: RankId, goal: Goal, placement: bytes) -> tuple[Verdict, Fence]:
    """A runner's fence that forgets at once what it has started."""
    verdict, _ = judge(Fence(store), store, rank, goal, placement)
    return verdict, fence


BUGS: dict[str, Core] = {
    "actions under way are issued again": Core(knowing(lambda world: replace(world, in_flight=frozenset()))),
    "the epoch of a rank is not checked": Core(seeing(takes_an_elder_for_the_living_epoch)),
    "a runner's fence does not check the epoch": Core(judge=takes_any_epoch),
    "ranks of older epochs are not waited for": Core(does_not_wait_for_elders),
    "a rank's memory is given away while it is STOPPING": Core(
        seeing(lambda view, _: without(view, lambda rank: rank.state is R.STOPPING))
    ),
    "an incomplete view is taken for a complete one": Core(seeing(lambda view, _: replace(view, complete=True))),
    "a runner that cannot be reached is taken for one without ranks": Core(
        seeing(lambda view, _: view if view.reachable else RunnerView(view.node, True, True))
    ),
    "a rank that nobody wants is never ended": Core(never_ends_a_rank),
    "a route is closed late": Core(keeps_a_route_open),
    "a WARMING rank is routed to": Core(
        seeing_ranks(lambda rank: replace(rank, state=R.READY) if rank.state is R.WARMING else rank)
    ),
    "a rank that is not dialled in is routed to": Core(seeing_ranks(lambda rank: replace(rank, attached=True))),
    "an epoch is started beside a living one": Core(knowing(starts_beside_a_living_epoch)),
    "epoch numbers are forgotten by a restart": Core(numbers_survive=False),
    "a failure is counted twice": Core(next_attempt=counts_twice),
    "a healthy epoch does not break the row of crashes": Core(
        next_attempt=recalling(lambda epoch: replace(epoch, ready_s=None, answered=False) if epoch.is_over else epoch)
    ),
    "crashes of last week open the circuit": Core(next_attempt=has_no_window),
    "a Deploy does not close the circuit": Core(next_attempt=counts_from_the_beginning),
    "other files do not close the circuit": Core(knowing(never_sees_other_files)),
    "another node does not close the circuit": Core(knowing(stays_where_it_is)),
    "a clock that is set back makes waits longer": Core(next_attempt=never_late),
    "what failed before a Deploy is told by the clock": Core(knowing(deployed_by_the_clock)),
    "a permanent cause is tried again": Core(
        next_attempt=recalling(
            lambda epoch: replace(epoch, cause=replace(epoch.cause, permanent=False)) if epoch.cause else epoch
        )
    ),
    "attempts are never used up": Core(next_attempt=never_rests),
    "the next epoch does not wait": Core(next_attempt=never_waits),
    "an epoch that never begins to load is waited for": Core(never_loses_patience),
    "a machine that slept has made an epoch late": Core(takes_sleep_for_time),
    "what is undeployed is forgotten before its rank is ABSENT": Core(knowing(forgets_too_early)),
}

# Seeds that are known to catch those that few of the first ones notice.
CAUGHT_AT = {
    "a healthy epoch does not break the row of crashes": 438,
    "crashes of last week open the circuit": 156,
    "a clock that is set back makes waits longer": 80,
}
