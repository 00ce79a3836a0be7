"""Memory that is promised on each node, and that no other deployment gets. Pure."""

from collections.abc import Mapping

from thunderline.cluster import InstanceId, NodeId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.attempts import Attempt, Next, has_passed
from thunderline.scheduler.values import World

# A deployment that crashed finds its place again if its next start comes within this time.
KEPT_S = 120.0

Kept = Mapping[InstanceId, tuple[NodeId, int]]


def held(world: World) -> dict[NodeId, int]:
    """By every rank that is not ABSENT, and by epochs whose rank is not seen yet."""
    found: dict[tuple[NodeId, InstanceId, int], int] = {}
    for wish in world.wishes:
        if epoch := wish.current:
            found[(epoch.node, wish.instance, epoch.number)] = epoch.memory_bytes
    for view in world.runners.values():
        for rank in view.ranks:
            if rank.state is not RankState.ABSENT:
                place = (view.node, rank.id.instance, rank.id.epoch)
                found[place] = max(found.get(place, 0), rank.memory_bytes)
    total: dict[NodeId, int] = {}
    for (node, _, _), memory_bytes in found.items():
        total[node] = total.get(node, 0) + memory_bytes
    return total


def kept(world: World, attempts: Mapping[InstanceId, Attempt], now_s: float) -> Kept:
    """For a start that is being written down, and for one that comes again after a crash."""
    found: dict[InstanceId, tuple[NodeId, int]] = {}
    for wish in world.wishes:
        if wish.current or wish.undeploying:
            continue
        attempt = attempts[wish.instance]
        if wish.instance in world.starting:
            found[wish.instance] = world.starting[wish.instance]
        elif attempt.failed and not attempt.used_up and attempt.next in {Next.NOW, Next.AT}:
            last = attempt.failed[-1]
            ended_s = last.ended_s or 0.0
            if not has_passed(ended_s, ended_s + KEPT_S, now_s):
                found[wish.instance] = (last.node, last.memory_bytes)
    return found


def against(instance: InstanceId, held: Mapping[NodeId, int], kept: Kept) -> dict[NodeId, int]:
    """What a deployment finds taken: all that is held, and what is kept for others."""
    total = dict(held)
    for other, (node, memory_bytes) in kept.items():
        if other != instance:
            total[node] = total.get(node, 0) + memory_bytes
    return total
