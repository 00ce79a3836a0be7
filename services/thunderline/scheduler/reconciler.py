"""What to do next, from what is wanted and what is seen. Pure and level-triggered: the same world, the same actions.

At most one action per target and pass; an action whose target is in flight is not repeated. Nobody's absence is
concluded from an incomplete or broken view.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.limits import DEFAULTS
from thunderline.cluster.ranks import RankState
from thunderline.scheduler import attempts, reservations, starting, wording
from thunderline.scheduler.actions import (
    UNDEPLOYED,
    Action,
    AuditModel,
    EndEpoch,
    Forget,
    MakeAbsent,
    MakePrepared,
    MakeReady,
    MarkReady,
    StartEpoch,
    targets,
)
from thunderline.scheduler.attempts import BEFORE_LOADING, Attempt, Next, NextAttempt, has_passed
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.situation import Planner
from thunderline.scheduler.starting import ANOTHER_DEPLOY, AUDIT_AGAIN_S, OTHER_FILES
from thunderline.scheduler.values import (
    Audit,
    Cause,
    DeploymentState,
    Epoch,
    RankView,
    RunnerView,
    Standing,
    Verdict,
    Wish,
    World,
)

NEXT_ATTEMPT = "the next attempt"
# Whose runner can be reached, and where it has not failed.
ANOTHER_NODE = "another node"
NOBODY = InstanceId("")


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the next epoch waits, and how long an epoch may take to begin to load; seconds."""

    epoch_min_s: float
    epoch_max_s: float
    # Its runner ends a rank that is slow to start; one that does not is not believed for ever.
    prepare_s: float = 2 * DEFAULTS.prepare_s


@dataclass(frozen=True, slots=True)
class Decision:
    actions: tuple[Action, ...]
    standings: Mapping[InstanceId, Standing]
    # After this many seconds time alone may change an epoch's fate: look again then, whatever is heard meanwhile.
    look_again_s: float = math.inf
    # Bytes by node that nobody else gets, those of `actions` included.
    promised: Mapping[NodeId, int] = field(default_factory=dict)


def reconcile(
    world: World,
    now_s: float,
    waits: Waits,
    next_attempt: NextAttempt = attempts.next_attempt,
    planner: Planner = plan,
) -> Decision:
    """One pass. `planner`: what answers as placing/plan.py does."""
    due_s = math.inf
    actions: list[Action] = []
    standings: dict[InstanceId, Standing] = {}
    tries = {
        wish.instance: next_attempt(wish.epochs, wish.fresh_above, waits.epoch_min_s, waits.epoch_max_s)
        for wish in world.wishes
    }
    held, kept = reservations.held(world), reservations.kept(world, tries, now_s)
    for wish in world.wishes:
        attempt, reserved = tries[wish.instance], reservations.against(wish.instance, held, kept)
        standing, wanted = _one(world, wish, attempt, reserved, now_s, waits, planner)
        standings[wish.instance] = standing
        due_s = min(due_s, _due_s(world, wish, attempt, now_s, waits))
        actions += wanted
        for action in wanted:
            if isinstance(action, StartEpoch):
                # Memory is never promised twice, not even within one pass.
                held = {**held, action.node: held.get(action.node, 0) + action.memory_bytes}
    actions += _unwanted(world)
    chosen: list[Action] = []
    taken = set(world.in_flight)
    for action in actions:
        if taken.isdisjoint(targets(action)):
            taken |= targets(action)
            chosen.append(action)
    promised = reservations.against(NOBODY, held, kept)
    return Decision(tuple(chosen), standings, due_s - now_s, promised)


def _due_s(world: World, wish: Wish, attempt: Attempt, now_s: float, waits: Waits) -> float:
    """When time alone lets an epoch start, or ends one; infinity for never."""
    due_s = math.inf
    if epoch := wish.current:
        due_s = now_s + waits.prepare_s - world.age_s(wish) if epoch.ready_s is None else math.inf
    elif attempt.next is Next.AT:
        due_s = attempt.at_s
    return due_s if due_s > now_s and not wish.undeploying else math.inf


def _unwanted(world: World) -> list[Action]:
    """Ranks of epochs that nobody means to have. One not of our wishes is ended too: the runner obeys our store."""
    wanted = {(wish.instance, wish.current.number) for wish in world.wishes if wish.current and not wish.undeploying}
    return [
        MakeAbsent(rank.id, view.node)
        for view in world.runners.values()
        if view.reachable
        for rank in view.ranks
        if (rank.id.instance, rank.id.epoch) not in wanted and rank.state not in {RankState.ABSENT, RankState.STOPPING}
    ]


def _one(
    world: World,
    wish: Wish,
    attempt: Attempt,
    reserved: Mapping[NodeId, int],
    now_s: float,
    waits: Waits,
    planner: Planner,
) -> tuple[Standing, list[Action]]:
    if wish.undeploying:
        return _undeploy(world, wish)
    if epoch := wish.current:
        # One that was READY is beyond that, whatever an old report says. A machine that slept makes nobody late.
        is_late = epoch.ready_s is None and world.age_s(wish) >= waits.prepare_s
        return _follow(world, wish, epoch, is_late)
    return _begin(world, wish, attempt, reserved, now_s, planner)


def _undeploy(world: World, wish: Wish) -> tuple[Standing, list[Action]]:
    living = _living(world, wish.instance)
    unseen = [epoch.node for epoch in wish.epochs[-1:] if not _is_seen(world.runners.get(epoch.node))]
    actions: list[Action] = []
    if epoch := wish.current:
        rank_id = RankId(wish.instance, epoch.number, 0)
        seen = {rank.id for rank in _ranks(world, wish.instance)}
        if not living and not unseen and rank_id in seen:
            actions.append(EndEpoch(wish.instance, epoch.number, UNDEPLOYED))
        elif not living and not unseen:
            # Started, and not seen yet: its runner says whether there is anything to end.
            actions.append(MakeAbsent(rank_id, epoch.node))
    elif not living and not unseen:
        forgets = Standing(DeploymentState.UNDEPLOYING, "its ranks have ended", "it to be forgotten")
        return forgets, [Forget(wish.instance)]
    waits_for = f"rank {living[0].id} to end" if living else "its rank to end"
    waits_for = f"the runner of node {wording.short(unseen[0])}" if unseen else waits_for
    return Standing(DeploymentState.UNDEPLOYING, f"undeploying: waits for {waits_for}", waits_for), actions


def _follow(world: World, wish: Wish, epoch: Epoch, is_late: bool) -> tuple[Standing, list[Action]]:
    """An epoch is meant to live: move it on, or write down that it is over."""
    rank_id = RankId(wish.instance, epoch.number, 0)
    view = world.runners.get(epoch.node)
    was_ready = epoch.ready_s is not None
    where = f"node {wording.short(epoch.node)}"
    if view is None or not view.reachable:
        return wording.unheard(epoch.node, view), []
    rank = next((one for one in view.ranks if one.id == rank_id), None)
    if rank is None and not view.complete:
        waits_for = f"the runner of {where} to say what it has"
        return Standing(DeploymentState.WAITING, f"waits for {waits_for}", waits_for), []
    if rank is None and was_ready:
        return _over(world, wish, epoch, Cause("LOST", "its runner does not have it any more", RankState.READY))
    if rank is None:
        if is_late:
            return _over(world, wish, epoch, _too_late(RankState.STARTING))
        # Written down, not yet heard by the runner: say it again; one that it has ended answers with its report.
        return _starting(world, wish, epoch, "is being started"), [MakePrepared(rank_id, epoch.node)]
    if rank.state in {RankState.ABSENT, RankState.FAILED, RankState.STOPPING}:
        silent = Cause("LOST", f"it is {rank.state.name} and nobody told it to", RankState.UNKNOWN)
        return _over(world, wish, epoch, rank.cause or silent)
    if rank.state is RankState.READY:
        mark: list[Action] = [] if was_ready else [MarkReady(wish.instance, epoch.number)]
        if not rank.attached:
            waits_for = "its rank to dial in to the runner"
            return Standing(DeploymentState.WAITING, f"epoch {epoch.number} waits for {waits_for}", waits_for), mark
        return Standing(DeploymentState.READY, f"epoch {epoch.number} serves on {where}{wording.how(rank)}"), mark
    older = _living(world, wish.instance, below=epoch.number)
    if rank.state in BEFORE_LOADING and is_late and not older:
        return _over(world, wish, epoch, _too_late(rank.state))
    if rank.state is RankState.PREPARED and not view.complete:
        # An older rank may live on that has not been found yet.
        return _starting(world, wish, epoch, "is PREPARED", f"the runner of {where} to say what it has"), []
    if rank.state is RankState.PREPARED and not older:
        return _starting(world, wish, epoch, "is PREPARED"), [MakeReady(rank_id, epoch.node)]
    if rank.state is RankState.PREPARED:
        # Ranks of older epochs hold memory until they are ABSENT.
        return _starting(world, wish, epoch, "is PREPARED", f"rank {older[0].id} to end"), []
    share = "" if rank.loaded_share is None else f", {rank.loaded_share:.0%}"
    return _starting(world, wish, epoch, f"is {rank.state.name}{share}"), []


def _over(world: World, wish: Wish, epoch: Epoch, cause: Cause) -> tuple[Standing, list[Action]]:
    return _between(world, wish, cause), [EndEpoch(wish.instance, epoch.number, cause)]


def _too_late(state: RankState) -> Cause:
    return Cause("PHASE_DEADLINE", "its runner neither brought it further nor ended it in time", state)


def _begin(
    world: World, wish: Wish, attempt: Attempt, reserved: Mapping[NodeId, int], now_s: float, planner: Planner
) -> tuple[Standing, list[Action]]:
    """No epoch lives: find out whether one may start, and where."""
    reachable = {node: view for node, view in world.runners.items() if view.reachable and view.complete}
    model = wish.spec.model
    audits = {node: audit for node in reachable if (audit := world.audits.get((node, model))) is not None}
    unasked = reachable.keys() - audits.keys()
    again = _audits_due(wish, attempt, reachable.keys(), audits, now_s)
    if attempt.has_given_up and (digest := _changed_digest(attempt, audits)) is not None:
        attempt = Attempt(Next.NOW, 0.0, attempt.failed)
        audits = {node: audit for node, audit in audits.items() if audit.digest == digest}
    if attempt.next is Next.OPEN and (untried := _untried(world, wish, attempt, audits, reserved, planner)):
        attempt, audits = Attempt(Next.NOW, 0.0, attempt.failed), untried
    if attempt.next is Next.OPEN:
        waits_for = f"{ANOTHER_DEPLOY}, {OTHER_FILES} or {ANOTHER_NODE}"
        return Standing(DeploymentState.CRASH_LOOP, wording.crashed(attempt, wish.spec), waits_for), again
    if not reachable:
        return wording.no_runner(world.runners.values()), []
    if attempt.next is Next.NEVER:
        return Standing(DeploymentState.IMPOSSIBLE, wording.last(attempt), OTHER_FILES), again
    usable = {node: audit for node, audit in audits.items() if audit.verdict is Verdict.USABLE}
    being_checked = Standing(DeploymentState.WAITING, f"the files of {model} are being checked", "the audit")
    if not usable and unasked:
        return being_checked, again
    if older := _living(world, wish.instance):
        # It holds its memory until it is ABSENT: placed beside it, the next epoch would get less for its whole life.
        waits_for = f"rank {older[0].id} to end"
        return replace(_after(world, wish, attempt), waits_for=waits_for), again
    found = starting.on_one_node(planner, world, wish, audits, reserved) if usable else None
    if found is None:
        standing, fetch = starting.without_files(world, wish, audits, now_s)
        return standing, again + fetch
    if found.placement is None:
        again += starting.asked_again(wish, audits, found, now_s)
        return starting.unplaced(planner, world, wish, audits, reserved, found), again
    rank = found.placement.ranks[0]
    if rank.must_fetch and unasked:
        return being_checked, again
    if rank.must_fetch:
        standing, fetch = starting.fetching(world, wish, rank.node, now_s)
        return standing, again + fetch
    if attempt.next is Next.AT and not attempt.is_due(now_s):
        return _after(world, wish, attempt), again
    start = StartEpoch(wish.instance, found.placement, usable[rank.node].digest)
    return _starting(world, wish, None, "is being started"), [*again, start]


def _audits_due(
    wish: Wish, attempt: Attempt, nodes: Collection[NodeId], audits: Mapping[NodeId, Audit], now_s: float
) -> list[Action]:
    """What is not known, not usable, or may have been mended since it was given up."""
    due: list[Action] = []
    for node in sorted(nodes):
        audit = audits.get(node)
        if audit is not None:
            is_early = not has_passed(audit.at_s, audit.at_s + AUDIT_AGAIN_S, now_s)
            if attempt.next is Next.NEVER:
                is_early = is_early or not attempt.is_due(now_s)
            if is_early or (audit.verdict is Verdict.USABLE and not attempt.has_given_up):
                continue
        due.append(AuditModel(node, wish.spec.model))
    return due


def _untried(
    world: World,
    wish: Wish,
    attempt: Attempt,
    audits: Mapping[NodeId, Audit],
    reserved: Mapping[NodeId, int],
    planner: Planner,
) -> dict[NodeId, Audit]:
    """Nodes on which it fits and has not failed: what is wrong may be wrong with the node."""
    failed = {epoch.node for epoch in attempt.failed if not attempts.was_healthy(epoch)}
    usable = {node: one for node, one in audits.items() if node not in failed and one.verdict is Verdict.USABLE}
    found = starting.on_one_node(planner, world, wish, usable, reserved)
    return usable if found is not None and found.placement is not None else {}


def _changed_digest(attempt: Attempt, audits: Mapping[NodeId, Audit]) -> str | None:
    """Of the files on the last epoch's node, when they are others than it had."""
    last = attempt.failed[-1]
    audit = audits.get(last.node)
    is_other = audit is not None and audit.verdict is Verdict.USABLE and audit.digest != last.digest
    return audit.digest if audit is not None and is_other else None


def _after(world: World, wish: Wish, attempt: Attempt) -> Standing:
    """After a failure, before the next epoch."""
    if attempt.used_up:
        return Standing(DeploymentState.WAITING, wording.used_up(attempt), NEXT_ATTEMPT)
    return _between(world, wish, attempt.failed[-1].cause if attempt.failed else None)


def _between(world: World, wish: Wish, cause: Cause | None) -> Standing:
    state = DeploymentState.REPAIRING if _is_repair(world, wish, cause) else DeploymentState.WAITING
    return Standing(state, f"the last epoch ended: {wording.explain(cause)}", NEXT_ATTEMPT)


def _starting(
    world: World, wish: Wish, epoch: Epoch | None, what: str, waits_for: str = "its rank to become READY"
) -> Standing:
    last = next((one.cause for one in reversed(wish.epochs) if one.is_over), None)
    state = DeploymentState.REPAIRING if _is_repair(world, wish, last) else DeploymentState.STARTING
    which = "the next epoch" if epoch is None else f"epoch {epoch.number} on node {wording.short(epoch.node)}"
    return Standing(state, f"{which} {what}", waits_for)


def _is_repair(world: World, wish: Wish, cause: Cause | None) -> bool:
    """Whether it served, and ended without having been told to. After a restart of everything it is a plain start."""
    return wish.instance in world.served and (cause is None or cause.name != UNDEPLOYED.name)


def _ranks(world: World, instance: InstanceId) -> list[RankView]:
    return [rank for view in world.runners.values() for rank in view.ranks if rank.id.instance == instance]


def _living(world: World, instance: InstanceId, below: float = math.inf) -> list[RankView]:
    """Ranks that may have a process, of epochs below a number."""
    return [rank for rank in _ranks(world, instance) if rank.state is not RankState.ABSENT and rank.id.epoch < below]


def _is_seen(view: RunnerView | None) -> bool:
    return view is not None and view.reachable and view.complete
