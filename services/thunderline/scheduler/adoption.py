"""Runners that obey another store: which deployments are rebuilt from what they hold, and what is ended. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from thunderline.cluster import InstanceId, NodeId, RankId, StoreId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.events import DONE_LENGTH_MAX, OVER, Event, Kind
from thunderline.scheduler.values import Cause, Epoch, Spec, Wish


class Fate(Enum):
    """Numbers are those of Fate in scheduler.proto."""

    REBUILT = 1
    KNOWN = 2
    ENDED = 3


@dataclass(frozen=True, slots=True)
class Held:
    """The newest epoch of an instance as its runner keeps it, or a rank of an older one, which has no `spec`."""

    id: RankId
    spec: Spec | None = None
    # Serialized as the runner has it: the same bytes are the same placement.
    placement: bytes = b""
    kv_budget_tokens: int = 0
    memory_bytes: int = 0
    # ABSENT for one without a process; since when, by the wall clock.
    state: RankState = RankState.ABSENT
    since_s: float = 0.0
    pid: int = 0

    @property
    def lives(self) -> bool:
        return self.state not in OVER


@dataclass(frozen=True, slots=True)
class Found:
    """A runner, and the store that it obeys."""

    node: NodeId
    store: StoreId
    highest_epoch: int
    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of it, and why."""

    held: Held
    fate: Fate
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes into the store before any runner is told; its counter is raised above `highest_epoch`."""

    rulings: Mapping[NodeId, tuple[Ruling, ...]]
    # Each with the placement of its one epoch.
    rebuilt: tuple[tuple[Wish, bytes], ...]
    # Deployments of ours that are the same, and of which nothing was started yet.
    replaced: tuple[Wish, ...]
    highest_epoch: int

    def keep(self, node: NodeId) -> list[RankId]:
        return [ruling.held.id for ruling in self.rulings[node] if ruling.fate is not Fate.ENDED]


def plan(wishes: Collection[Wish], found: Sequence[Found], now_s: float, wish_count_max: int) -> Plan:
    """Of two that cannot both be had, the one that lives is rebuilt, else the one of the newer epoch."""
    held = [(one.node, rank) for one in found for rank in one.held]
    wanted = [rank.spec for _, rank in held if rank.lives]
    # Somebody has deployed it again, and it could not start: it goes on instead.
    replaced = [wish for wish in wishes if not wish.epochs and not wish.undeploying and wish.spec in wanted]
    known = {wish.instance: wish for wish in wishes if wish not in replaced}
    rebuilt: list[tuple[Wish, bytes]] = []
    rulings: dict[NodeId, list[Ruling]] = {one.node: [] for one in found}
    for node, one in sorted(held, key=lambda pair: (not pair[1].lives, -pair[1].id.epoch, pair[1].id, pair[0])):
        fate, why = _rule(one, known, replaced, wish_count_max)
        rulings[node].append(Ruling(one, fate, why))
        if fate is Fate.REBUILT and one.spec is not None:
            wish = known[one.id.instance] = _rebuild(node, one, one.spec, now_s)
            rebuilt.append((wish, one.placement))
    highest_epoch = max((one.highest_epoch for one in found), default=0)
    ruled = {node: tuple(some) for node, some in rulings.items()}
    names = {wish.spec.name for wish, _ in rebuilt}
    gone = tuple(wish for wish in replaced if wish.spec.name in names)
    return Plan(ruled, tuple(rebuilt), gone, highest_epoch)


def _rule(
    held: Held, known: Mapping[InstanceId, Wish], replaced: Collection[Wish], wish_count_max: int
) -> tuple[Fate, str]:
    spec, number = held.spec, held.id.epoch
    if spec is None:
        return Fate.ENDED, "it is of no deployment that its runner keeps"
    if wish := known.get(held.id.instance):
        if wish.current is not None and wish.current.number == number and not wish.undeploying:
            return Fate.KNOWN, "it is deployed here, with this very epoch"
        return Fate.ENDED, "it is deployed here, and this is no epoch that is meant to live"
    others = [*known.values(), *(wish for wish in replaced if wish.spec != spec)]
    if any(wish.spec.name == spec.name for wish in others):
        return Fate.ENDED, f"another deployment has the name {spec.name}"
    if any(wish.current is not None and wish.current.number == number for wish in known.values()):
        return Fate.ENDED, f"another deployment has epoch {number}; deploy this one again"
    if len(known) >= wish_count_max:
        return Fate.ENDED, f"there are {wish_count_max} deployments already"
    if held.lives:
        return Fate.REBUILT, "it goes on, nothing is loaded again"
    return Fate.REBUILT, "it is started again: it has no process"


def _rebuild(node: NodeId, held: Held, spec: Spec, now_s: float) -> Wish:
    """As if it had been deployed just now, with an epoch that is older than that."""
    is_ready = held.state is RankState.READY
    epoch = Epoch(
        number=held.id.epoch,
        started_s=held.since_s if is_ready else now_s,
        node=node,
        kv_budget_tokens=held.kv_budget_tokens,
        memory_bytes=held.memory_bytes,
        ready_s=held.since_s if is_ready else None,
    )
    if not held.lives:
        cause = Cause("ADOPTED", "it had no process when its runner was adopted", RankState.UNKNOWN)
        epoch = replace(epoch, ended_s=now_s, cause=cause)
    return Wish(spec, held.id.instance, fresh_since_s=now_s, epochs=(epoch,))


def told(planned: Plan, found: Sequence[Found], now_s: float) -> Iterator[Event]:
    """What has happened: to each node, and to each deployment that was rebuilt."""
    for one in found:
        rulings = planned.rulings[one.node]
        counts = [(fate, sum(ruling.fate is fate for ruling in rulings)) for fate in Fate]
        done = ", ".join(f"{count} {fate.name.lower()}" for fate, count in counts if count) or "it held nothing"
        text = f"its runner obeyed store {one.store}; it obeys this one now"
        yield Event(Kind.STORE_ADOPTED, f"node {one.node}", text, now_s, done=done)
        for ruling in rulings:
            spec, held = ruling.held.spec, ruling.held
            if ruling.fate is Fate.REBUILT and spec is not None:
                process = f"{held.state.name}, pid {held.pid}" if held.lives else "without a process"
                text = f"rebuilt from epoch {held.id.epoch} ({process}), found at a runner of store {one.store}"
                yield Event(Kind.STORE_ADOPTED, spec.name, text, now_s, done=ruling.why[:DONE_LENGTH_MAX])
