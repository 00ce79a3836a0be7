"""What is worth telling, from what a pass has seen and what the pass before had seen. Pure.

One event tells a change together with its cause and with what was done about it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler import attempts
from thunderline.scheduler.attempts import Next
from thunderline.scheduler.reconciler import Waits
from thunderline.scheduler.values import DeploymentState, Epoch, RankView, Standing, Wish, World
from thunderline.scheduler.wording import TEXT_LENGTH_MAX, counted, ended, short, span

DONE_LENGTH_MAX = 200


class Kind(StrEnum):
    """Stable names: programs look for them."""

    DEPLOYED = "DEPLOYED"
    UNDEPLOYED = "UNDEPLOYED"
    EPOCH_STARTED = "EPOCH_STARTED"
    EPOCH_ENDED = "EPOCH_ENDED"
    DEPLOYMENT_READY = "DEPLOYMENT_READY"
    DEPLOYMENT_CRASH_LOOP = "DEPLOYMENT_CRASH_LOOP"
    DEPLOYMENT_IMPOSSIBLE = "DEPLOYMENT_IMPOSSIBLE"
    RANK_ADOPTED = "RANK_ADOPTED"  # Found living after a start of the scheduler.
    RUNNER_LOST = "RUNNER_LOST"
    RUNNER_BACK = "RUNNER_BACK"
    STORE_ADOPTED = "STORE_ADOPTED"  # By `thunderline cluster adopt`.
    REQUEST_POISONED = "REQUEST_POISONED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STORE_BACK = "STORE_BACK"


# States in which nothing more is tried: told once, until something new happens to the deployment.
GIVEN_UP = {
    DeploymentState.CRASH_LOOP: Kind.DEPLOYMENT_CRASH_LOOP,
    DeploymentState.IMPOSSIBLE: Kind.DEPLOYMENT_IMPOSSIBLE,
}
SOMETHING_NEW = {Kind.DEPLOYED, Kind.EPOCH_STARTED, Kind.DEPLOYMENT_READY}
OVER = {RankState.ABSENT, RankState.FAILED, RankState.STOPPING}


@dataclass(frozen=True, slots=True)
class Event:
    """See Event in scheduler.proto. Without a number until it is told; `kind` may be one of a later version."""

    kind: str
    subject: str
    text: str
    time_s: float
    request_count: int = 0
    done: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class RankFacts:
    """What only events say of a rank. `request_count`: those that it has under way, or has just lost."""

    pid: int = 0
    uptime_s: float = 0.0
    request_count: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the next pass is compared with."""

    wishes: Mapping[InstanceId, Wish]
    # Current epochs that were told to be READY, written down or not.
    ready: frozenset[tuple[InstanceId, int]] = frozenset()
    # Epochs that the store had at the start and that no runner has shown yet.
    unadopted: frozenset[tuple[InstanceId, int]] = frozenset()
    reachable: frozenset[NodeId] = frozenset()
    # Nodes whose runner was told to be lost.
    lost: frozenset[NodeId] = frozenset()
    # What was told of deployments that were given up.
    given_up: Mapping[InstanceId, str] = field(default_factory=dict)


def at_start(wishes: Iterable[Wish], kept: Sequence[Event]) -> Seen:
    """Before the first pass: what the store holds is known, and not told again.

    But an end that was written down just before we were killed: the first pass tells it.
    """
    known = {wish.instance: wish for wish in wishes}
    last: dict[str, str] = {}
    for event in kept:
        if event.kind in GIVEN_UP.values():
            last[event.subject] = event.kind
        elif event.kind in SOMETHING_NEW:
            last.pop(event.subject, None)
    served = [wish for wish in known.values() if wish.current and wish.current.ready_s is not None]
    return Seen(
        wishes={wish.instance: wish if _is_told(wish, kept) else _living(wish) for wish in known.values()},
        ready=frozenset(key for wish in served if (key := _current(wish))),
        unadopted=frozenset(key for wish in known.values() if (key := _current(wish))),
        given_up={wish.instance: last[wish.spec.name] for wish in known.values() if wish.spec.name in last},
    )


def _is_told(wish: Wish, kept: Sequence[Event]) -> bool:
    """Whether the end of its last epoch is among the events; of those that are forgotten too."""
    ended_s = wish.epochs[-1].ended_s if wish.epochs else None
    if ended_s is None or not kept or _is_adoption(wish.epochs[-1]):
        return True
    if kept[0].number > 1 and ended_s <= kept[0].time_s:
        return True
    name = wish.spec.name
    return any((one.kind, one.subject, one.time_s) == (Kind.EPOCH_ENDED, name, ended_s) for one in kept)


def _is_adoption(epoch: Epoch) -> bool:
    """Told in words of its own."""
    return epoch.cause is not None and epoch.cause.name == "ADOPTED"


def _living(wish: Wish) -> Wish:
    """As it was before its last epoch ended."""
    return replace(wish, epochs=(*wish.epochs[:-1], replace(wish.epochs[-1], ended_s=None, cause=None)))


def with_known(seen: Seen, wishes: Iterable[Wish]) -> Seen:
    """These were rebuilt, in the place of others of their names, and told already with what they run."""
    found = {wish.instance: wish for wish in wishes}
    names = {wish.spec.name for wish in found.values()}
    others = {instance: wish for instance, wish in seen.wishes.items() if wish.spec.name not in names}
    served = {key for one in found.values() if (key := _current(one)) and one.epochs[-1].ready_s is not None}
    return replace(seen, wishes={**others, **found}, ready=seen.ready | served)


def happened(
    seen: Seen,
    world: World,
    standings: Mapping[InstanceId, Standing],
    facts: Mapping[RankId, RankFacts],
    now_s: float,
    waits: Waits,
) -> tuple[list[Event], Seen]:
    """What this pass tells, in the order in which it happened, and what the next is compared with."""
    told: list[Event] = []
    given_up: dict[InstanceId, str] = {}
    for wish in world.wishes:
        new = [*_wished(seen, wish, now_s), *_epochs(seen, wish, facts, waits), *_ready(seen, wish, standings, now_s)]
        before = None if any(event.kind in SOMETHING_NEW for event in new) else seen.given_up.get(wish.instance)
        new += _given_up(wish, standings, before, now_s)
        for kind in [before, *(event.kind for event in new if event.kind in GIVEN_UP.values())]:
            if kind is not None:
                given_up[wish.instance] = kind
        told += new
    there = {wish.instance for wish in world.wishes}
    for instance, wish in seen.wishes.items():
        if instance not in there:
            told.append(Event(Kind.UNDEPLOYED, wish.spec.name, "undeployed: nothing of it is left", now_s))
    adopted, unadopted = _adopted(seen, world, facts, now_s)
    runners, reachable, lost = _runners(seen, world, facts, now_s)
    after = Seen(
        wishes={wish.instance: wish for wish in world.wishes},
        ready=frozenset(key for wish in world.wishes if (key := _current(wish)) and _is_ready(seen, wish, standings)),
        unadopted=unadopted,
        reachable=reachable,
        lost=lost,
        given_up=given_up,
    )
    return sorted([*told, *adopted, *runners], key=lambda event: event.time_s), after


def _wished(seen: Seen, wish: Wish, now_s: float) -> Iterator[Event]:
    before = seen.wishes.get(wish.instance)
    if before is None:
        yield Event(Kind.DEPLOYED, wish.spec.name, f"deployed, from {wish.spec.model}", now_s)
    elif before.fresh_since_s != wish.fresh_since_s:
        text = f"deployed again, from {wish.spec.model}: what failed before does not count"
        yield Event(Kind.DEPLOYED, wish.spec.name, text, now_s)


def _epochs(seen: Seen, wish: Wish, facts: Mapping[RankId, RankFacts], waits: Waits) -> Iterator[Event]:
    before = seen.wishes.get(wish.instance)
    known = {epoch.number: epoch for epoch in before.epochs} if before else {}
    # Old ones are forgotten: of a number below those that were known nothing is new.
    newest = max(known, default=0)
    for position, epoch in enumerate(wish.epochs):
        if epoch.number > newest:
            text = f"epoch {epoch.number} is being started on node {short(epoch.node)}"
            yield Event(Kind.EPOCH_STARTED, wish.spec.name, text, epoch.started_s)
        was_over = epoch.number <= newest and (epoch.number not in known or known[epoch.number].is_over)
        if epoch.ended_s is not None and not was_over:
            fact = facts.get(RankId(wish.instance, epoch.number, 0), RankFacts())
            yield Event(
                kind=Kind.EPOCH_ENDED,
                subject=wish.spec.name,
                text=ended(epoch, fact.pid, fact.uptime_s),
                time_s=epoch.ended_s,
                request_count=fact.request_count,
                done=_next(wish, wish.epochs[: position + 1], waits),
            )


def _next(wish: Wish, epochs: Sequence[Epoch], waits: Waits) -> str:
    """What follows the end of the last of these epochs."""
    if wish.undeploying:
        return "undeployed"
    attempt = attempts.next_attempt(epochs, wish.fresh_above, waits.epoch_min_s, waits.epoch_max_s)
    wait_s = attempt.at_s - (epochs[-1].ended_s or 0.0)
    match attempt.next:
        case Next.OPEN:
            return "the circuit is open"
        case Next.NEVER:
            return "no next epoch starts until its cause has changed"
        case Next.AT if wait_s > 0:
            return f"the next epoch starts in {span(wait_s)}"
    return "the next epoch starts at once"


def _ready(seen: Seen, wish: Wish, standings: Mapping[InstanceId, Standing], now_s: float) -> Iterator[Event]:
    """The first time that an epoch is READY; when its runner is back, or it was adopted, that is told."""
    epoch, key = wish.current, _current(wish)
    if epoch is None or key in seen.ready or key in seen.unadopted or not _is_ready(seen, wish, standings):
        return
    text = f"epoch {epoch.number} is READY on node {short(epoch.node)} after {span(now_s - epoch.started_s)}"
    yield Event(Kind.DEPLOYMENT_READY, wish.spec.name, text, now_s, done="requests are let in")


def _is_ready(seen: Seen, wish: Wish, standings: Mapping[InstanceId, Standing]) -> bool:
    """Whether its epoch is READY, or was so once."""
    standing = standings.get(wish.instance)
    is_ready = standing is not None and standing.state is DeploymentState.READY
    return is_ready or _current(wish) in seen.ready


def _given_up(
    wish: Wish, standings: Mapping[InstanceId, Standing], before: str | None, now_s: float
) -> Iterator[Event]:
    standing = standings.get(wish.instance)
    kind = GIVEN_UP.get(standing.state) if standing else None
    if standing is not None and kind is not None and kind != before:
        done = "no next epoch starts; requests are refused at once"
        yield Event(kind, wish.spec.name, standing.reason, now_s, done=done)


def _adopted(
    seen: Seen, world: World, facts: Mapping[RankId, RankFacts], now_s: float
) -> tuple[list[Event], frozenset[tuple[InstanceId, int]]]:
    living = {
        (rank.id.instance, rank.id.epoch): rank
        for view in world.runners.values()
        if view.reachable
        for rank in view.ranks
        if rank.state not in OVER
    }
    told: list[Event] = []
    waiting = set()
    for wish in world.wishes:
        key = _current(wish)
        if key is None or key not in seen.unadopted:
            continue
        if rank := living.get(key):
            told.append(_adoption(wish, rank, facts.get(rank.id, RankFacts()), now_s))
        else:
            waiting.add(key)
    return told, frozenset(waiting)


def _adoption(wish: Wish, rank: RankView, fact: RankFacts, now_s: float) -> Event:
    process = f" (pid {fact.pid})" if fact.pid else ""
    where = f"on node {short(rank.node)}{process}"
    text = f"epoch {rank.id.epoch} was found {rank.state.name} {where} after a start of the scheduler"
    done = "it serves on: nothing was loaded again" if rank.state is RankState.READY else "it goes on"
    return Event(Kind.RANK_ADOPTED, wish.spec.name, text, now_s, done=done)


def _runners(
    seen: Seen, world: World, facts: Mapping[RankId, RankFacts], now_s: float
) -> tuple[list[Event], frozenset[NodeId], frozenset[NodeId]]:
    """Also who is reachable now, and who is lost. Back is one only when it says all that it has."""
    told: list[Event] = []
    reachable, lost = set(), set()
    for node, view in sorted(world.runners.items()):
        if view.reachable:
            reachable.add(node)
        subject = f"node {node}"
        here = [wish for wish in world.wishes if wish.current and wish.current.node == node]
        if node in seen.reachable and not view.reachable:
            count = sum(fact.request_count for rank, fact in facts.items() if _is_one_of(rank, here))
            names = ", ".join(wish.spec.name for wish in here)
            done = f"until it is back nothing new goes to {names}" if names else ""
            why = view.refusal or "its runner cannot be reached"
            told.append(Event(Kind.RUNNER_LOST, subject, why, now_s, count, done))
            lost.add(node)
        elif node in seen.lost and view.reachable and view.complete:
            found = [rank for rank in view.ranks if rank.state is RankState.READY and _is_one_of(rank.id, here)]
            done = f"{counted(len(found), 'rank')} of it found READY: nothing was loaded again" if found else ""
            told.append(Event(Kind.RUNNER_BACK, subject, "its runner answers again", now_s, done=done))
        elif node in seen.lost:
            lost.add(node)
    return told, frozenset(reachable), frozenset(lost)


def _is_one_of(rank: RankId, wishes: Iterable[Wish]) -> bool:
    return any(_current(wish) == (rank.instance, rank.epoch) for wish in wishes)


def poisoned(deployment: str, request_id: str, why: str, now_s: float) -> Event:
    done = "it was refused; the others go on"
    return Event(Kind.REQUEST_POISONED, deployment, f"request {request_id}: {why}", now_s, 1, done)


def store_unavailable(node: NodeId, why: str, now_s: float) -> Event:
    done = "nothing new starts; what serves goes on"
    return Event(Kind.STORE_UNAVAILABLE, f"node {node}", why, now_s, done=done)


def store_back(node: NodeId, away_s: float, dropped_count: int, now_s: float) -> Event:
    text = f"the scheduler's store can be written again, after {span(away_s)}"
    lost = f"; {counted(dropped_count, 'event')} could not be kept" if dropped_count else ""
    return Event(Kind.STORE_BACK, f"node {node}", text + lost, now_s, done="what waited is written")


def numbered(event: Event, number: int) -> Event:
    """As it is kept: bounded."""
    text, done = event.text[:TEXT_LENGTH_MAX], event.done[:DONE_LENGTH_MAX]
    return replace(event, kind=str(event.kind), number=number, text=text, done=done)


def _current(wish: Wish) -> tuple[InstanceId, int] | None:
    return (wish.instance, wish.current.number) if wish.current else None
