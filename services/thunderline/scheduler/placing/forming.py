"""A placement from a set of nodes and a method: the order of the ranks, their layers, what they dial. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from thunderline.cluster.links import Link, LinkState
from thunderline.scheduler.placing import rdma, reasons
from thunderline.scheduler.placing.dialling import describe
from thunderline.scheduler.placing.estimate import estimate
from thunderline.scheduler.placing.grounds import Grounds, Method
from thunderline.scheduler.placing.hostfiles import matrix_problems
from thunderline.scheduler.placing.memory import Need, budget_tokens
from thunderline.scheduler.placing.rings import EXACT_MAX, Ring, best_ring, quick_ring, rings_by_ends
from thunderline.scheduler.placing.splitting import split
from thunderline.scheduler.placing.values import (
    Backend,
    Dial,
    Files,
    Placement,
    Rank,
    Reason,
    Strategy,
)
from thunderline.scheduler.placing.wording import gib

# Above EXACT_MAX nodes: rotations of the one ring that are tried for room at its ends.
ROTATIONS_MAX = 8
# Why one order fails where another may do.
DEPENDS_ON_ORDER = {Reason.MEMORY, Reason.COORDINATOR}


@dataclass(frozen=True, slots=True)
class Failed:
    """`pairs`: at which links it fails, where it is a matter of links."""

    reason: Reason
    text: str
    pairs: tuple[tuple[int, int], ...] = ()


def form(grounds: Grounds, members: Sequence[int], method: Method, takes_slow: bool) -> Placement | Failed:
    """In the first order in which everything fits; or why the best order does not do.

    `takes_slow`: whether a link may be below its minimums.
    """
    failed = None
    for order in orders(grounds, members, method):
        if not takes_slow and _has_slow(grounds, order, method.backend):
            continue
        found = formed(grounds, order, method)
        if isinstance(found, Placement):
            return found
        failed = failed or found
        if found.reason not in DEPENDS_ON_ORDER:
            break
    return failed or Failed(Reason.LINK, "no ring passes all of them")


def whole(grounds: Grounds, number: int) -> Placement | Failed:
    """All of it on one node."""
    need = grounds.needs.whole()
    tokens = budget_tokens(grounds.model, grounds.policy, [need], [grounds.free[number]])
    if tokens is None:
        return Failed(Reason.MEMORY, "")
    rank = _rank(grounds, number, (0, grounds.model.layer_count), need.of(tokens), grounds.model.head_count, ())
    return estimate(Placement(Strategy.WHOLE, None, (rank,), tokens), grounds)


def orders(grounds: Grounds, members: Sequence[int], method: Method) -> Iterator[Ring]:
    """Rank 0 first. The best ring, begun at the node that most others can dial, then its rotations.

    Then, up to EXACT_MAX, the best ring for each pair of ends: a slower one may have room where this one has not.
    """
    joined = grounds.joined(method.backend)
    if len(members) > EXACT_MAX:
        # A good one costs a lot to find: only where an order of these nodes has room at all.
        quick = quick_ring(members, joined)
        if quick is None or not any(_layers(grounds, order, method.strategy) for order in _rotations(grounds, quick)):
            yield from [quick] if quick else []
            return
    ring = best_ring(members, joined)
    if ring is None:
        return
    rotations = _rotations(grounds, ring)
    yield from rotations
    if len(members) > EXACT_MAX:
        yield from _rotations(grounds, quick or [])
    else:
        yield from (one for one in rings_by_ends(members, joined) if one not in rotations)


def _rotations(grounds: Grounds, ring: Ring) -> list[Ring]:
    """Begun at the node that most others can dial, then at the next; above EXACT_MAX a few."""
    found = [ring[place:] + ring[:place] for place in range(len(ring))]
    found.sort(key=lambda one: (-grounds.heard_by(one[0], ring), one[0]))
    return found if len(ring) <= EXACT_MAX else found[:ROTATIONS_MAX]


def _has_slow(grounds: Grounds, order: Sequence[int], backend: Backend) -> bool:
    if backend is Backend.JACCL:
        return False
    ways, passed = grounds.dialling.ways, pairwise([*order, order[0]])
    return any(ways[grounds.pair(*pair)].cost.quality.is_below for pair in passed)


def formed(
    grounds: Grounds, order: Sequence[int], method: Method, is_ring: bool | None = None, listener: str = ""
) -> Placement | Failed:
    """In this order, or what keeps it from that. `is_ring`: of JACCL; None: where the rails make no mesh. `listener`:
    the address of rank 0 for the others; "": the best that there is."""
    coordinator = ""
    if method.backend is not Backend.RING:
        coordinator = listener or grounds.coordinator(order, order[0])
        if not coordinator and grounds.needs_coordinator(order, method.backend):
            return _unheard(grounds, order, method.backend)
    layers = _layers(grounds, order, method.strategy)
    if layers is None:
        return _no_room(grounds, order, method.strategy)
    needs = [_need(grounds, span, len(order), method.strategy) for span in layers]
    free = [grounds.free[i] for i in order]
    tokens = budget_tokens(grounds.model, grounds.policy, needs, free)
    if tokens is None:
        return _no_room(grounds, order, method.strategy)
    if is_ring is None:
        ids = [grounds.ids[i] for i in order]
        is_ring = method.backend is Backend.JACCL and not rdma.is_mesh(ids, grounds.rails)
    dials = dialled(grounds, order, method.backend, is_ring, coordinator)
    devices = _devices(grounds, order, is_ring) if method.backend is Backend.JACCL else ()
    if devices and (problems := matrix_problems(devices, is_ring)):
        return Failed(Reason.RAIL, "; ".join(problems))
    heads = grounds.model.head_count // (len(order) if method.strategy is Strategy.TENSOR else 1)
    ranks = tuple(
        _rank(grounds, number, span, need.of(tokens), heads, each)
        for number, span, need, each in zip(order, layers, needs, dials, strict=True)
    )
    passed = [dial for rank in ranks for dial in rank.dials]
    if method.backend is Backend.NCCL:
        # Its own sockets go from neighbour to neighbour, whatever the coordinator's do.
        passed += [ring_dial(grounds, order, rank) for rank in range(len(order))]
    links = sorted({dial.link: dial.below for dial in passed if dial.link}.items(), key=lambda one: one[0].id)
    placement = Placement(
        strategy=method.strategy,
        backend=method.backend,
        ranks=ranks,
        kv_budget_tokens=tokens,
        coordinator=coordinator,
        devices=devices,
        is_rail_ring=is_ring,
        slow=tuple(f"{_who(grounds, link)}: {why}" for link, why in links if why),
        degraded=tuple(_who(grounds, link) for link, _ in links if link.state is LinkState.DEGRADED),
    )
    return estimate(placement, grounds)


def dialled(
    grounds: Grounds, order: Sequence[int], backend: Backend, is_ring: bool, coordinator: str
) -> list[tuple[Dial, ...]]:
    """By rank. In a ring each dials the next; JACCL has rails, and all dial rank 0 where that is needed."""
    if backend is Backend.RING:
        return [(ring_dial(grounds, order, rank),) for rank in range(len(order))]
    found: list[tuple[Dial, ...]] = [()] * len(order)
    if backend is Backend.JACCL:
        rails = rdma.used([grounds.ids[i] for i in order], grounds.rails, is_ring)
        for rank in range(len(order)):
            pairs = [(pair, one) for pair, one in sorted(rails.items()) if rank in pair and one]
            found[rank] = tuple(Dial(sum(pair) - rank, rails=one) for pair, one in pairs)
    if grounds.needs_coordinator(order, backend):
        for rank in range(1, len(order)):
            links = grounds.dialling.links.get(grounds.pair(order[rank], order[0]), [])
            link = next(one for one in links if one.address == coordinator)
            # It carries a few bytes once: no minimum is asked of it.
            found[rank] = (*found[rank], Dial(0, link))
    return found


def ring_dial(grounds: Grounds, order: Sequence[int], rank: int) -> Dial:
    """To the next rank."""
    to_rank = (rank + 1) % len(order)
    link = grounds.dialling.ways[grounds.pair(order[rank], order[to_rank])].link
    return Dial(to_rank, link, below=grounds.dialling.below(link))


def _layers(grounds: Grounds, order: Sequence[int], strategy: Strategy) -> list[tuple[int, int]] | None:
    if strategy is not Strategy.PIPELINE:
        return [(0, grounds.model.layer_count)] * len(order)
    # The first layers are on the last rank.
    if not grounds.capacity.fits_ends(order[-1], order[0]):
        return None
    return split(grounds.needs, [grounds.free[i] for i in order])


def _need(grounds: Grounds, span: tuple[int, int], rank_count: int, strategy: Strategy) -> Need:
    return grounds.needs.part(*span) if strategy is Strategy.PIPELINE else grounds.needs.tensor(rank_count)


def _rank(
    grounds: Grounds,
    number: int,
    span: tuple[int, int],
    needed_bytes: int,
    head_count: int,
    dials: tuple[Dial, ...],
) -> Rank:
    node = grounds.nodes[number]
    return Rank(
        node=node.id,
        first_layer=span[0],
        end_layer=span[1],
        head_count=head_count,
        needed_bytes=needed_bytes,
        left_bytes=node.free_bytes - needed_bytes,
        dials=dials,
        must_fetch=node.files is Files.ABSENT,
    )


def _devices(grounds: Grounds, order: Sequence[int], is_ring: bool) -> tuple[tuple[tuple[str, ...], ...], ...]:
    ids = [grounds.ids[i] for i in order]
    return rdma.matrix(ids, rdma.used(ids, grounds.rails, is_ring))


def _who(grounds: Grounds, link: Link) -> str:
    words = [grounds.words[grounds.numbers[node]] for node in (link.from_node, link.to_node)]
    return f"{' → '.join(words)} over {describe(link)}"


def _no_room(grounds: Grounds, order: Sequence[int], strategy: Strategy) -> Failed:
    if strategy is Strategy.TENSOR:
        return Failed(Reason.MEMORY, reasons.memory(grounds, strategy)(tuple(order)))
    free = ", ".join(f"{grounds.words[i]} {gib(grounds.free[i])}" for i in order)
    return Failed(Reason.MEMORY, f"no split of its {grounds.model.layer_count} layers fits in this order: {free} free")


def _unheard(grounds: Grounds, order: Sequence[int], backend: Backend) -> Failed:
    """Of the node that most others can dial."""
    listener = order[0]
    deaf = [(i, listener) for i in order[1:] if not grounds.hearing[listener] >> i & 1]
    pairs = deaf or [(i, listener) for i in order[1:]]
    told = "; ".join(grounds.evidence(*pair) for pair in pairs)
    what = "not all of them can dial" if deaf else "no one address that all of them can dial has"
    return Failed(Reason.COORDINATOR, f"{backend.value}: {what} {grounds.words[listener]}: {told}", tuple(pairs))
