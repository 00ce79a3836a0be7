"""What to do next, from what is wanted and what is seen. Pure and level-triggered: the same world, the same actions.

At most one action per target and pass; an action whose target is in flight is not repeated. Nobody's absence is
concluded from an incomplete or broken view.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler import attempts, placement
from thunderline.scheduler.actions import (
    UNDEPLOYED,
    Action,
    AuditModel,
    EndEpoch,
    FetchModel,
    Forget,
    MakeAbsent,
    MakePrepared,
    MakeReady,
    MarkReady,
    StartEpoch,
    targets,
)
from thunderline.scheduler.attempts import Attempt, Next
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

AUDIT_AGAIN_S = 10.0
FETCH_AGAIN_S = 60.0
NEXT_ATTEMPT = "the next attempt"
# Causes in a sentence: the newest so many, each so long.
CAUSE_COUNT_MAX, CAUSE_LENGTH_MAX = 8, 200


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the next epoch waits; seconds."""

    epoch_min_s: float
    epoch_max_s: float


@dataclass(frozen=True, slots=True)
class Decision:
    actions: tuple[Action, ...]
    standings: Mapping[InstanceId, Standing]


def reconcile(world: World, now_s: float, waits: Waits) -> Decision:
    """One pass."""
    actions: list[Action] = []
    standings: dict[InstanceId, Standing] = {}
    reserved = reservations(world)
    for wish in world.wishes:
        standing, wanted = _one(world, wish, reserved, now_s, waits)
        standings[wish.instance] = standing
        actions += wanted
        for action in wanted:
            if isinstance(action, StartEpoch):
                # Memory is never promised twice, not even within one pass.
                node = action.placed.node
                reserved = {**reserved, node: reserved.get(node, 0) + action.placed.memory_bytes}
    actions += _unwanted(world)
    chosen: list[Action] = []
    taken = set(world.in_flight)
    for action in actions:
        if taken.isdisjoint(targets(action)):
            taken |= targets(action)
            chosen.append(action)
    return Decision(tuple(chosen), standings)


def reservations(world: World) -> dict[NodeId, int]:
    """Memory promised on each node: to every rank that is not ABSENT, and to epochs whose rank is not seen yet."""
    held: dict[tuple[NodeId, InstanceId, int], int] = {}
    for wish in world.wishes:
        if epoch := wish.current:
            held[(epoch.node, wish.instance, epoch.number)] = epoch.memory_bytes
    for view in world.runners.values():
        for rank in view.ranks:
            if rank.state is not RankState.ABSENT:
                place = (view.node, rank.id.instance, rank.id.epoch)
                held[place] = max(held.get(place, 0), rank.memory_bytes)
    total: dict[NodeId, int] = {}
    for (node, _, _), memory in held.items():
        total[node] = total.get(node, 0) + memory
    return total


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
    world: World, wish: Wish, reserved: Mapping[NodeId, int], now_s: float, waits: Waits
) -> tuple[Standing, list[Action]]:
    if wish.undeploying:
        return _undeploy(world, wish)
    if epoch := wish.current:
        return _follow(world, wish, epoch)
    return _begin(world, wish, reserved, now_s, waits)


def _undeploy(world: World, wish: Wish) -> tuple[Standing, list[Action]]:
    living = [rank for rank in _ranks(world, wish.instance) if rank.state is not RankState.ABSENT]
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
        return Standing(DeploymentState.UNDEPLOYING, "its ranks have ended"), [Forget(wish.instance)]
    waits_for = f"rank {living[0].id} to end" if living else "its rank to end"
    waits_for = f"the runner of node {_short(unseen[0])}" if unseen else waits_for
    return Standing(DeploymentState.UNDEPLOYING, f"undeploying: waits for {waits_for}", waits_for), actions


def _follow(world: World, wish: Wish, epoch: Epoch) -> tuple[Standing, list[Action]]:
    """An epoch is meant to live: move it on, or write down that it is over."""
    rank_id = RankId(wish.instance, epoch.number, 0)
    view = world.runners.get(epoch.node)
    was_ready = epoch.ready_s is not None
    if view is None or not view.reachable:
        waits_for = f"the runner of node {_short(epoch.node)}"
        return Standing(DeploymentState.WAITING, f"{waits_for} cannot be reached", waits_for), []
    rank = next((one for one in view.ranks if one.id == rank_id), None)
    if rank is None:
        if not view.complete:
            waits_for = f"the runner of node {_short(epoch.node)} to say what it has"
            return Standing(DeploymentState.WAITING, f"waits for {waits_for}", waits_for), []
        if not was_ready:
            # Written down, not yet heard by the runner: say it again; one that it has ended answers with its report.
            return _starting(world, wish, epoch, "is being started"), [MakePrepared(rank_id, epoch.node)]
        lost = Cause("LOST", "its runner does not have it any more", RankState.READY)
        return _between(world, wish, lost), [EndEpoch(wish.instance, epoch.number, lost)]
    if rank.state in {RankState.ABSENT, RankState.FAILED, RankState.STOPPING}:
        cause = rank.cause or Cause("LOST", f"it is {rank.state.name} and nobody told it to", RankState.UNKNOWN)
        return _between(world, wish, cause), [EndEpoch(wish.instance, epoch.number, cause)]
    if rank.state is RankState.READY:
        mark: list[Action] = [] if was_ready else [MarkReady(wish.instance, epoch.number)]
        serves = f"epoch {epoch.number} serves on node {_short(epoch.node)}{_how(rank)}"
        return Standing(DeploymentState.READY, serves), mark
    if rank.state is RankState.PREPARED and not _older_living(world, wish, epoch):
        return _starting(world, wish, epoch, "is PREPARED"), [MakeReady(rank_id, epoch.node)]
    share = "" if rank.loaded_share is None else f", {rank.loaded_share:.0%}"
    return _starting(world, wish, epoch, f"is {rank.state.name}{share}"), []


def _begin(
    world: World, wish: Wish, reserved: Mapping[NodeId, int], now_s: float, waits: Waits
) -> tuple[Standing, list[Action]]:
    """No epoch lives: find out whether one may start, and where."""
    attempt = attempts.next_attempt(wish.epochs, wish.fresh_since_s, waits.epoch_min_s, waits.epoch_max_s)
    if attempt.next is Next.OPEN:
        return Standing(DeploymentState.CRASH_LOOP, f"crashed {len(attempt.failed)} times: {_last(attempt)}"), []
    reachable = {node: view for node, view in world.runners.items() if view.reachable and view.complete}
    if not reachable:
        return Standing(DeploymentState.WAITING, "no runner can be reached", "a runner"), []
    model = wish.spec.model
    audits = {node: audit for node in reachable if (audit := world.audits.get((node, model))) is not None}
    again: list[Action] = [
        AuditModel(node, model)
        for node in sorted(reachable)
        if node not in audits
        or (audits[node].verdict is not Verdict.USABLE and now_s >= audits[node].at_s + AUDIT_AGAIN_S)
        or (attempt.next is Next.NEVER and now_s >= max(attempt.at_s, audits[node].at_s + AUDIT_AGAIN_S))
    ]
    if attempt.next is Next.NEVER and not _files_changed(attempt, audits):
        return Standing(DeploymentState.IMPOSSIBLE, _last(attempt)), again
    if not audits:
        return Standing(DeploymentState.WAITING, f"the files of {model} are being checked", "the audit"), again
    if older := [rank for rank in _ranks(world, wish.instance) if rank.state is not RankState.ABSENT]:
        # It holds its memory until it is ABSENT: placed beside it, the next epoch would get less for its whole life.
        waits_for = f"rank {older[0].id} to end"
        return replace(_after(world, wish, attempt), waits_for=waits_for), again
    usable = {node: audit for node, audit in audits.items() if audit.verdict is Verdict.USABLE}
    if not usable:
        standing, fetch = _without_files(world, wish, audits, now_s)
        return standing, again + fetch
    placed = placement.place(wish.spec, usable, reserved)
    if isinstance(placed, placement.NotPlaced):
        asked = {action.node for action in again if isinstance(action, AuditModel)}
        again += [
            AuditModel(node, model)
            for node in sorted(usable)
            if node not in asked and now_s >= usable[node].at_s + AUDIT_AGAIN_S
        ]
        why = "; ".join(placed.reasons)
        if placed.permanent:
            return Standing(DeploymentState.IMPOSSIBLE, f"{model} does not fit: {why}"), again
        return Standing(DeploymentState.WAITING, f"{model} does not fit now: {why}", "memory"), again
    if attempt.next is Next.AT and now_s < attempt.at_s:
        return _after(world, wish, attempt), again
    audit = usable[placed.node]
    start = StartEpoch(wish.instance, placed, audit.layer_count, audit.digest)
    return _starting(world, wish, None, "is being started"), [*again, start]


def _without_files(
    world: World, wish: Wish, audits: Mapping[NodeId, Audit], now_s: float
) -> tuple[Standing, list[Action]]:
    model = wish.spec.model
    node = next((node for node in sorted(audits) if audits[node].verdict is Verdict.FETCHABLE), None)
    if node is None:
        why = "; ".join(problem for _, audit in sorted(audits.items()) for problem in audit.problems)
        return Standing(DeploymentState.IMPOSSIBLE, why or f"{model} cannot be used"), []
    fetch = world.fetches.get((node, model))
    if fetch is None:
        return Standing(DeploymentState.WAITING, f"{model} is about to be fetched", "its files"), [
            FetchModel(node, model)
        ]
    if fetch.error and fetch.permanent:
        return Standing(DeploymentState.IMPOSSIBLE, fetch.error), []
    if fetch.error:
        again: list[Action] = [FetchModel(node, model)] if now_s >= fetch.at_s + FETCH_AGAIN_S else []
        text = f"{fetch.error} (tried {fetch.failure_count} times, again every {FETCH_AGAIN_S:.0f} s)"
        return Standing(DeploymentState.WAITING, text, "its files"), again
    share = f"{fetch.fetched_bytes / fetch.total_bytes:.0%}" if fetch.total_bytes else "0%"
    return Standing(DeploymentState.WAITING, f"{model} is being fetched, {share}", "its files"), []


def _files_changed(attempt: Attempt, audits: Mapping[NodeId, Audit]) -> bool:
    """Whether the files are others than those of the epoch that ended for good."""
    last = attempt.failed[-1]
    audit = audits.get(last.node)
    return audit is not None and audit.verdict is Verdict.USABLE and audit.digest != last.digest


def _after(world: World, wish: Wish, attempt: Attempt) -> Standing:
    """After a failure, before the next epoch."""
    if attempt.used_up:
        causes = "; ".join(f"epoch {epoch.number}: {_say(epoch.cause)}" for epoch in attempt.failed[-CAUSE_COUNT_MAX:])
        return Standing(DeploymentState.WAITING, f"attempts used up: {causes}", NEXT_ATTEMPT)
    return _between(world, wish, attempt.failed[-1].cause if attempt.failed else None)


def _between(world: World, wish: Wish, cause: Cause | None) -> Standing:
    state = DeploymentState.REPAIRING if _is_repair(world, wish, cause) else DeploymentState.WAITING
    return Standing(state, f"the last epoch ended: {_say(cause)}", NEXT_ATTEMPT)


def _starting(world: World, wish: Wish, epoch: Epoch | None, what: str) -> Standing:
    last = next((one.cause for one in reversed(wish.epochs) if one.is_over), None)
    state = DeploymentState.REPAIRING if _is_repair(world, wish, last) else DeploymentState.STARTING
    which = "the next epoch" if epoch is None else f"epoch {epoch.number} on node {_short(epoch.node)}"
    return Standing(state, f"{which} {what}", "its rank to become READY")


def _is_repair(world: World, wish: Wish, cause: Cause | None) -> bool:
    """Whether it served, and ended without having been told to. After a restart of everything it is a plain start."""
    return wish.instance in world.served and (cause is None or cause.name != UNDEPLOYED.name)


def _how(rank: RankView) -> str:
    """How its requests are batched, where that is not the plain way."""
    if rank.batching in {"", "batch"}:
        return ""
    return f", {rank.batching.replace('_', ' ')}" + (f" ({rank.batching_reason})" if rank.batching_reason else "")


def _older_living(world: World, wish: Wish, epoch: Epoch) -> bool:
    """Ranks of older epochs hold memory until they are ABSENT."""
    return any(
        rank.id.epoch < epoch.number and rank.state is not RankState.ABSENT for rank in _ranks(world, wish.instance)
    )


def _ranks(world: World, instance: InstanceId) -> list[RankView]:
    return [rank for view in world.runners.values() for rank in view.ranks if rank.id.instance == instance]


def _is_seen(view: RunnerView | None) -> bool:
    return view is not None and view.reachable and view.complete


def _last(attempt: Attempt) -> str:
    return _say(attempt.failed[-1].cause) if attempt.failed else "unknown"


def _say(cause: Cause | None) -> str:
    if cause is None:
        return "unknown"
    where = "" if cause.state is RankState.UNKNOWN else f" while {cause.state.name}"
    return f"{cause.name}{where}: {cause.detail[:CAUSE_LENGTH_MAX]}"


def _short(node: NodeId) -> str:
    """Enough of a UUID to tell nodes apart."""
    return node[:8]


def ended(wish: Wish, epoch: int, cause: Cause, now_s: float) -> Wish:
    """The wish after one of its epochs is over."""
    epochs = tuple(replace(e, ended_s=now_s, cause=cause) if e.number == epoch else e for e in wish.epochs)
    return replace(wish, epochs=epochs)
