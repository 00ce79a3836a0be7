"""What must hold at every moment, of each decision and of the rank processes that came of it.

Written from the rules, in another way than the reconciler is: protocols of views, epochs and the circuit.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from simulation.runner_world import DEAD, Broken, Runner
from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.actions import Action, EndEpoch, Forget, MakePrepared, MakeReady, StartEpoch, targets
from thunderline.scheduler.reconciler import Decision, Waits
from thunderline.scheduler.values import DeploymentState, Epoch, RankView, Standing, Verdict, Wish, World

R, S = RankState, DeploymentState
# Of each instance everything that was ever started, oldest first; the store keeps less.
History = Mapping[InstanceId, Sequence[Epoch]]

LAWS = (
    "one action per target and pass, and none for a target that has one under way",
    "nothing is concluded from a view that is incomplete or not heard",
    "an epoch ends by what its rank did, by a complete view without it, or by its deadline, in which no sleep counts",
    "READY is wished only of a rank whose elders are ABSENT",
    "an epoch starts only when no rank of its instance lives, and its memory is free",
    "no epoch starts before its back-off is over, after a permanent cause, or with an open circuit",
    "attempts are used up after eight, or ten minutes, and then one a minute is made",
    "a deployment is forgotten only when nothing of it lives",
    "READY exactly while the rank of the living epoch is READY, dialled in and heard",
    "CRASH_LOOP exactly by the rule of five and where no node is left to try, IMPOSSIBLE exactly by a permanent cause",
    "REPAIRING only of what was READY",
    "every deployment has a state, a reason, and unless it is READY what it waits for",
    "a rank is started once",
    "a failure is written down only of a rank that failed, where it failed, once",
    "one READY epoch of an instance, none loading beside an elder on its node",
    "memory is promised once",
    "in the end all is READY or given up for its cause, nothing else lives, and nothing more is done",
    "what was mended serves",
)
CRASHES, ATTEMPTS, WINDOW_S, HEALTHY_S, ATTEMPT_AGAIN_S = 5, 8, 600.0, 30.0, 60.0
BEFORE_LOADING = {R.STARTING, R.PREPARED, R.CONNECTING, R.VERIFYING}


def of_a_decision(
    world: World,
    decision: Decision,
    history: History,
    now_s: float,
    waits: Waits,
    memory_bytes: int,
    lived_s: Mapping[InstanceId, float],
) -> None:
    """`lived_s`: for how long each living epoch has lived while nobody slept."""
    taken = set(world.in_flight)
    promised: dict[NodeId, int] = {}
    for action in decision.actions:
        if not taken.isdisjoint(targets(action)):
            raise Broken(f"{action} although its target has an action under way")
        taken |= targets(action)
        _of_an_action(world, action, lived_s, waits)
        if isinstance(action, StartEpoch):
            _of_a_start(world, action, history, now_s, waits)
            node = action.node
            promised[node] = promised.get(node, _held(world, node)) + action.memory_bytes
            if promised[node] > memory_bytes:
                raise Broken(f"{promised[node]} bytes are promised on {node}, which has {memory_bytes}")
    for wish in world.wishes:
        _of_a_standing(world, wish, decision.standings[wish.instance], history.get(wish.instance, ()))


def _of_an_action(world: World, action: Action, lived_s: Mapping[InstanceId, float], waits: Waits) -> None:
    match action:
        case MakeReady(rank, node):
            if elders := [one for one in _living(world, rank.instance) if one.id.epoch < rank.epoch]:
                raise Broken(f"{action} although {elders} are not ABSENT")
            if not _is_complete(world, node):
                raise Broken(f"{action} although an elder may not have been found yet")
        case MakePrepared(rank, node):
            if not _is_complete(world, node) or _rank(world, node, rank) is not None:
                raise Broken(f"{action} although its runner has not said that it lacks it")
        case EndEpoch(instance, number):
            wish = next(one for one in world.wishes if one.instance == instance)
            epoch = next(one for one in wish.epochs if one.number == number)
            _of_an_end(world, action, epoch, lived_s.get(instance, 0.0) >= waits.prepare_s)
        case Forget(instance):
            wish = next(one for one in world.wishes if one.instance == instance)
            if living := _living(world, instance):
                raise Broken(f"{action} although {living} live")
            if wish.current or any(not _is_complete(world, epoch.node) for epoch in wish.epochs[-1:]):
                raise Broken(f"{action} although nobody has said that nothing is left")


def _of_an_end(world: World, action: EndEpoch, epoch: Epoch, has_lived_long: bool) -> None:
    view = world.runners.get(epoch.node)
    if view is None or not view.reachable:
        raise Broken(f"{action} although its runner cannot be heard")
    rank = _rank(world, epoch.node, RankId(action.instance, action.epoch, 0))
    is_late = has_lived_long and epoch.ready_s is None
    if rank is None and not view.complete:
        raise Broken(f"{action} is concluded from an incomplete view")
    if rank is None and epoch.ready_s is None and not is_late and action.cause.name != "STOPPED":
        raise Broken(f"{action} although its runner was not asked")
    out_of_time = is_late and rank is not None and rank.state in BEFORE_LOADING
    if rank is not None and rank.state not in DEAD and not (out_of_time and action.cause.name == "PHASE_DEADLINE"):
        raise Broken(f"{action} although its rank is {rank.state.name}")


def _of_a_start(world: World, action: StartEpoch, history: History, now_s: float, waits: Waits) -> None:
    if living := _living(world, action.instance):
        raise Broken(f"{action} although {living} live")
    if not _is_complete(world, action.node):
        raise Broken(f"{action} although its node may hold what has not been found yet")
    wish = next(one for one in world.wishes if one.instance == action.instance)
    row = [epoch for epoch in history.get(action.instance, ()) if epoch.number > wish.fresh_above]
    if not row or row[-1].digest != action.digest:
        return
    last = row[-1]
    if last.cause is not None and last.cause.permanent:
        raise Broken(f"{action} although the same files failed for good")
    if circuit_is_open(row):
        if action.node in failed_on(row):
            raise Broken(f"{action} although the circuit is open, and it has failed there")
        return
    since_s = now_s - last.ended_s if last.ended_s is not None and not _is_stopped(last) else math.inf
    is_hasty = 0 <= since_s < waits.epoch_min_s and not _is_healthy(last)
    if is_hasty or (0 <= since_s < ATTEMPT_AGAIN_S and attempts_are_used_up(row)):
        raise Broken(f"{action} {since_s:.1f} s after its last epoch failed")


def _of_a_standing(world: World, wish: Wish, standing: Standing, history: Sequence[Epoch]) -> None:
    name = wish.instance
    if not standing.reason or not (standing.waits_for or standing.state is S.READY):
        raise Broken(f"{name} is {standing.state.name} without saying why, or what for")
    if (standing.state is S.READY) is not _serves(world, wish):
        raise Broken(f"{name} is {standing.state.name}, and its rank says otherwise")
    if standing.state is S.REPAIRING and name not in world.served:
        raise Broken(f"{name} is REPAIRING although nobody has seen it READY")
    if wish.undeploying or wish.current:
        if standing.state in {S.CRASH_LOOP, S.IMPOSSIBLE}:
            raise Broken(f"{name} is {standing.state.name} and has an epoch, or is being undeployed")
        return
    row = [epoch for epoch in history if epoch.number > wish.fresh_above]
    if standing.reason.startswith("attempts used up") and not attempts_are_used_up(row):
        raise Broken(f"{name} says {standing.reason}, and has attempts left")
    mended = bool(row) and _has_other_files(world, wish, row[-1])
    is_open = bool(row) and circuit_is_open(row) and not mended
    others = _other_nodes(world, wish, row) if is_open else {}
    if (standing.state is S.CRASH_LOOP) is not is_open and (not others or standing.state is S.CRASH_LOOP):
        raise Broken(f"{name} is {standing.state.name}, and its circuit is {'open' if is_open else 'closed'}")
    if standing.state is S.CRASH_LOOP and any(others.values()):
        raise Broken(f"{name} is CRASH_LOOP although it has failed nowhere but on {failed_on(row)}")
    heard = any(_is_complete(world, node) for node in world.runners)
    permanent = bool(row and row[-1].cause and row[-1].cause.permanent) and not mended and heard
    if (standing.state is S.IMPOSSIBLE) is not permanent:
        raise Broken(f"{name} is {standing.state.name}, and its last cause is {'' if permanent else 'not '}permanent")


def circuit_is_open(row: Sequence[Epoch]) -> bool:
    """Five crashes within ten minutes, no healthy epoch and no change of files between; the last is one of them."""
    ends: list[float] = []
    files = ""
    for epoch in row:
        if epoch.ended_s is None or _is_stopped(epoch) or epoch.digest != files:
            ends = []
        files = epoch.digest
        if epoch.ended_s is None or epoch.cause is None or _is_stopped(epoch):
            continue
        if _is_healthy(epoch):
            ends = []
        elif epoch.cause.state not in BEFORE_LOADING:
            ends.append(epoch.ended_s)
    last = row[-1]
    if last.ended_s is None or last.cause is None or last.cause.permanent or ends[-1:] != [last.ended_s]:
        return False
    return sum(end_s > last.ended_s - WINDOW_S for end_s in ends) >= CRASHES


def failed_on(row: Sequence[Epoch]) -> set[NodeId]:
    """Where it has failed since the last healthy epoch, with the newest files."""
    found: set[NodeId] = set()
    files = ""
    for epoch in row:
        if _is_stopped(epoch) or _is_healthy(epoch) or epoch.digest != files:
            found = set()
        files = epoch.digest
        if epoch.ended_s is not None and not _is_stopped(epoch) and not _is_healthy(epoch):
            found.add(epoch.node)
    return found


def _other_nodes(world: World, wish: Wish, row: Sequence[Epoch]) -> dict[NodeId, bool]:
    """Nodes that can be had and where it has not failed; whether nothing at all is there, nor on its way there."""
    busy = any(one is not wish and one.current is None and not one.undeploying for one in world.wishes)
    known = {node for node, model in world.audits if model == wish.spec.model and _is_complete(world, node)}
    return {node: not busy and not _held(world, node) for node in known - failed_on(row)}


def attempts_are_used_up(row: Sequence[Epoch]) -> bool:
    """Eight epochs in a row, or ten minutes of them, that ended before LOADING, since a crash, if there was one."""
    tried: list[Epoch] = []
    files = ""
    for epoch in row:
        if _is_stopped(epoch) or _is_healthy(epoch) or epoch.digest != files:
            tried = []
        files = epoch.digest
        if epoch.cause is None or _is_stopped(epoch):
            continue
        if epoch.cause.state in BEFORE_LOADING:
            tried.append(epoch)
        else:
            tried = []
    if not tried or tried[-1] is not row[-1]:
        return False
    lasted_s = (row[-1].ended_s or 0.0) - tried[0].started_s
    return len(tried) >= ATTEMPTS or lasted_s > WINDOW_S


def of_processes(runners: Iterable[Runner], wished: Collection[InstanceId], memory_bytes: int) -> None:
    """One epoch READY of each instance; no more memory taken than there is."""
    ready: dict[InstanceId, set[int]] = {}
    for runner in runners:
        views = [rank.view for rank in runner.living()]
        for view in views:
            if view.state is R.READY:
                ready.setdefault(view.id.instance, set()).add(view.id.epoch)
            if view.state in {R.LOADING, R.WARMING, R.READY}:
                elders = [one for one in views if one.id.instance == view.id.instance and one.id.epoch < view.id.epoch]
                if elders:
                    raise Broken(f"{view.id} is {view.state.name} beside {elders}")
        # Not of forgotten deployments: a start that was under way then is ended when it is seen.
        taken = sum(view.memory_bytes for view in views if view.id.instance in wished)
        if taken > memory_bytes:
            raise Broken(f"{taken} bytes are promised on {runner.node}, which has {memory_bytes}")
    for instance, epochs in ready.items():
        if len(epochs) > 1:
            raise Broken(f"epochs {sorted(epochs)} of {instance} are READY at once")


def _is_healthy(epoch: Epoch) -> bool:
    served_s = epoch.ended_s - epoch.ready_s if epoch.ended_s is not None and epoch.ready_s is not None else 0.0
    return epoch.answered or served_s >= HEALTHY_S


def _is_stopped(epoch: Epoch) -> bool:
    return epoch.cause is not None and epoch.cause.name == "STOPPED"


def _has_other_files(world: World, wish: Wish, last: Epoch) -> bool:
    """As far as is known, on the node of its last epoch."""
    audit = world.audits.get((last.node, wish.spec.model))
    is_known = audit is not None and audit.verdict is Verdict.USABLE and _is_complete(world, last.node)
    return is_known and audit is not None and audit.digest != last.digest


def _rank(world: World, node: NodeId, rank: RankId) -> RankView | None:
    view = world.runners.get(node)
    return next((one for one in view.ranks if one.id == rank), None) if view else None


def _living(world: World, instance: InstanceId) -> list[RankView]:
    return [
        rank
        for view in world.runners.values()
        for rank in view.ranks
        if rank.id.instance == instance and rank.state is not R.ABSENT
    ]


def _held(world: World, node: NodeId) -> int:
    """What living ranks and epochs hold there."""
    held = {rank.id: rank.memory_bytes for rank in world.runners[node].ranks if rank.state is not R.ABSENT}
    for wish in world.wishes:
        if wish.current is not None and wish.current.node == node:
            held[RankId(wish.instance, wish.current.number, 0)] = wish.current.memory_bytes
    return sum(held.values())


def _is_complete(world: World, node: NodeId) -> bool:
    view = world.runners.get(node)
    return view is not None and view.reachable and view.complete


def _serves(world: World, wish: Wish) -> bool:
    """In a view that is heard this moment."""
    if wish.undeploying or wish.current is None:
        return False
    view = world.runners.get(wish.current.node)
    rank = _rank(world, wish.current.node, RankId(wish.instance, wish.current.number, 0))
    return view is not None and view.reachable and rank is not None and rank.state is R.READY and rank.attached
