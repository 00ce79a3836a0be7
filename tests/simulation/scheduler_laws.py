"""What must hold at every moment, of each decision and of the rank processes that came of them."""

from collections.abc import Collection, Iterable

from simulation.runner_world import Broken, Runner
from thunderline.cluster import InstanceId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.actions import MakeReady, targets
from thunderline.scheduler.reconciler import Decision
from thunderline.scheduler.values import DeploymentState, RankView, Wish, World


def of_a_decision(world: World, decision: Decision) -> None:
    """One action per target; READY is wished only of a rank whose elders are ABSENT; states mean what they say."""
    taken = set(world.in_flight)
    for action in decision.actions:
        if not taken.isdisjoint(targets(action)):
            raise Broken(f"{action} although its target has an action under way")
        taken |= targets(action)
        if isinstance(action, MakeReady) and _elders(world, action.rank):
            raise Broken(f"{action} although {_elders(world, action.rank)} are not ABSENT")
    for wish in world.wishes:
        repairs = decision.standings[wish.instance].state is DeploymentState.REPAIRING
        if repairs and wish.instance not in world.served:
            raise Broken(f"{wish.instance} is REPAIRING although nobody has seen it READY")
        if decision.standings[wish.instance].state is DeploymentState.READY and not _is_ready(world, wish):
            raise Broken(f"{wish.instance} is routed to without a READY rank of its epoch")


def of_processes(runners: Iterable[Runner], wished: Collection[InstanceId], memory_bytes: int) -> None:
    """One epoch READY of each instance; no more memory taken than there is."""
    ready: dict[InstanceId, set[int]] = {}
    for runner in runners:
        views = [rank.view for rank in runner.living()]
        for view in views:
            if view.state is RankState.READY:
                ready.setdefault(view.id.instance, set()).add(view.id.epoch)
        # Not of forgotten deployments: a start that was under way then is ended when it is seen.
        taken = sum(view.memory_bytes for view in views if view.id.instance in wished)
        if taken > memory_bytes:
            raise Broken(f"{taken} bytes are promised on {runner.node}, which has {memory_bytes}")
    for instance, epochs in ready.items():
        if len(epochs) > 1:
            raise Broken(f"epochs {sorted(epochs)} of {instance} are READY at once")


def _ranks(world: World, instance: InstanceId) -> list[RankView]:
    return [rank for view in world.runners.values() for rank in view.ranks if rank.id.instance == instance]


def _elders(world: World, rank: RankId) -> list[str]:
    return [
        str(one.id)
        for one in _ranks(world, rank.instance)
        if one.id.epoch < rank.epoch and one.state is not RankState.ABSENT
    ]


def _is_ready(world: World, wish: Wish) -> bool:
    """In a view that is heard this moment."""
    if wish.undeploying or wish.current is None:
        return False
    view = world.runners.get(wish.current.node)
    ready = {rank.id for rank in view.ranks if rank.state is RankState.READY} if view and view.reachable else set()
    return RankId(wish.instance, wish.current.number, 0) in ready
