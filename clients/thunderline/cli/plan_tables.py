"""What `plan` shows: where a model would run, over what, how fast; and what was not taken, with the reasons. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from thunderline.cli.links import called, medium_name, milliseconds, state_name
from thunderline.cli.plan_words import way
from thunderline.v1 import cluster_pb2, planning_pb2, topology_pb2

REJECTED_COLUMNS = ("reason", "nodes", "way", "evidence")
# Of a cluster of 8 there are a thousand; `--all` shows them.
REJECTED_COUNT_MAX = 20
# So many sets that nobody counts further.
COUNT_MAX = 2**31 - 1
# Of what tells of the model, or of what was asked for, not of one set.
GENERAL = "any"
WAITS = "waits for "

Names = Mapping[str, str]


class Table(NamedTuple):
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def names(plan: planning_pb2.PlanPlacementResponse) -> dict[str, str]:
    """How to call each node that it names."""
    hostnames = {one.node_id: one.hostname for one in plan.placement.ranks}
    for rejected in plan.rejected:
        hostnames |= zip(rejected.node_ids, rejected.hostnames, strict=False)
    return called(hostnames, {node for one in plan.waits for node in one.node_ids})


def model_line(model: str, facts: cluster_pb2.ModelFacts) -> str:
    """What was planned for; what nobody knows of it is left out."""
    told = [
        facts.architecture,
        f"{facts.layer_count} layers" if facts.layer_count else "",
        f"{gib(facts.weight_bytes)} of weights" if facts.weight_bytes else "",
        facts.quantization,
        f"{facts.kv_bytes_per_token} bytes of KV a token" if facts.kv_bytes_per_token else "",
    ]
    found = ", ".join(one for one in told if one)
    return f"{model}: {found}" if found else model


def verdict_line(model: str, plan: planning_pb2.PlanPlacementResponse) -> str:
    """Of what has no place: as `deploy` says it of a deployment."""
    if plan.verdict == planning_pb2.PLAN_VERDICT_WAITING and plan.why.startswith(WAITS):
        return f"{model} is WAITING for {plan.why.removeprefix(WAITS)}"
    state = planning_pb2.PlanVerdict.Name(plan.verdict).removeprefix("PLAN_VERDICT_")
    return f"{model} is {state}: {plan.why}"


def placement_table(placement: planning_pb2.PlannedPlacement, facts: cluster_pb2.ModelFacts, names: Names) -> Table:
    """A row a rank."""
    is_tensor = placement.strategy == planning_pb2.SPLIT_STRATEGY_TENSOR
    columns = ("rank", "node", "heads" if is_tensor else "layers", "needed", "left", "dials")
    rows = [
        (
            str(rank.rank),
            names[rank.node_id],
            _heads(rank, facts) if is_tensor else _layers(rank),
            gib(rank.needed_bytes),
            gib(rank.left_bytes),
            "; ".join(dial_text(dial, rank.node_id) for dial in rank.dials),
        )
        for rank in placement.ranks
    ]
    if len(rows) == 1:
        # It dials nobody.
        return Table(columns[:-1], [row[:-1] for row in rows])
    return Table(columns, rows)


def _layers(rank: planning_pb2.PlannedRank) -> str:
    """ "16 (0-15)"."""
    return f"{rank.end_layer - rank.first_layer} ({rank.first_layer}-{rank.end_layer - 1})"


def _heads(rank: planning_pb2.PlannedRank, facts: cluster_pb2.ModelFacts) -> str:
    return f"{rank.head_count} of {facts.head_count}" if facts.head_count else str(rank.head_count)


def dial_text(dial: planning_pb2.PlannedDial, node: str) -> str:
    """ "rank 1 at 10.10.0.2 (THUNDERBOLT, en5 to en4, 0.40 ms)", or by which rails; `node` is the one that dials."""
    if dial.rails:
        return f"rank {dial.to_rank} over {' and '.join(rail_text(rail, node) for rail in dial.rails)}"
    link = dial.link
    below = f", below its minimum: {dial.below}" if dial.below else ""
    return f"rank {dial.to_rank} at {link.peer_address} ({', '.join(_of_link(link))}){below}"


def _of_link(link: topology_pb2.Link) -> Iterable[str]:
    if link.medium:
        yield medium_name(link.medium)
    if link.local_interface or link.peer_interface:
        yield " to ".join(name or "?" for name in (link.local_interface, link.peer_interface))
    yield milliseconds(link.rtt_us)
    if link.state != topology_pb2.LINK_STATE_UP:
        yield state_name(link.state)


def rail_text(rail: topology_pb2.Rail, node: str) -> str:
    """ "rdma_en3 to rdma_en5 (80 Gb/s)", from this node."""
    here, there = (rail.one, rail.other) if rail.one.node_id == node else (rail.other, rail.one)
    speed = f" ({rail.speed_gbps} Gb/s)" if rail.speed_gbps else ""
    return f"{here.device} to {there.device}{speed}"


def placement_lines(plan: planning_pb2.PlanPlacementResponse) -> list[str]:
    """What stands below the ranks."""
    placement = plan.placement
    how = way(placement.strategy, placement.backend)
    kind = ", from neighbour to neighbour" if placement.rail_ring else ""
    found = [f"strategy: {how}{kind}; {placement.kv_budget_tokens} tokens of KV for all requests"]
    if placement.coordinator:
        found.append(f"coordinator: rank 0 listens at {placement.coordinator}")
    # The first is the sentence of the whole, which stands above.
    found += [f"why: {one}" for one in placement.reasons if one != plan.why]
    found += [f"SLOW: {one}" for one in placement.slow]
    found += [f"DEGRADED: {one}" for one in placement.degraded]
    found.append(estimate_line(placement))
    return found + unknown_lines(plan.facts)


def estimate_line(placement: planning_pb2.PlannedPlacement) -> str:
    if not placement.HasField("estimate"):
        return "estimate: none, the memory bandwidth of a node is not known"
    told = placement.estimate
    links = f" + links {_ms(told.links_s)}" if len(placement.ranks) > 1 else ""
    speed = f"about {_few(told.tokens_per_s)} tokens/s for one request"
    return f"estimate: {speed}: memory {_ms(told.memory_s)}{links} a token"


def unknown_lines(facts: cluster_pb2.ModelFacts) -> list[str]:
    return [f"not known: {one}" for one in facts.unknowns]


def waits_lines(plan: planning_pb2.PlanPlacementResponse, names: Names) -> list[str]:
    """For what it waits: one line for one sentence, with all pairs of which it is said. Less what the verdict says."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for wait in plan.waits:
        said = pairs.setdefault((wait.what, wait.sentence), [])
        if len(wait.node_ids) > 1:
            said.append(" → ".join(names[node] for node in wait.node_ids))
    found = []
    for (what, sentence), said in pairs.items():
        of = f" ({', '.join(said)})" if said else ""
        if plan.why not in (sentence, f"{WAITS}{what}: {sentence}"):
            found.append(f"{WAITS}{what}{of}: {sentence}")
    return found


def rejected_table(plan: planning_pb2.PlanPlacementResponse, names: Names, count_max: int | None) -> Table:
    """A row for each that is `shown`."""
    return Table(REJECTED_COLUMNS, [_rejected_row(one, names) for one in shown(plan, count_max)])


def shown(plan: planning_pb2.PlanPlacementResponse, count_max: int | None) -> list[planning_pb2.RejectedCandidate]:
    """In their order, what is of no one set first. Of more than `count_max`: of each reason and way the first few."""
    rows = sorted(plan.rejected, key=lambda one: bool(one.node_ids))
    seen: Counter[tuple[str, int, int]] = Counter()
    places = []
    for place, one in enumerate(rows):
        group = (one.reason, one.strategy, one.backend)
        places.append((seen[group], place))
        seen[group] += 1
    return [rows[place] for _, place in sorted(sorted(places)[:count_max], key=lambda one: one[1])]


def _rejected_row(one: planning_pb2.RejectedCandidate, names: Names) -> tuple[str, ...]:
    nodes = ", ".join(names[node] for node in one.node_ids) or GENERAL
    count = f"{one.count - 1} more" if one.count < COUNT_MAX else "more than 2 billion"
    more = f" and {count} like it" if one.count > 1 else ""
    return one.reason, f"{nodes}{more}", way(one.strategy, one.backend), one.sentence


def rest_line(plan: planning_pb2.PlanPlacementResponse, count_max: int | None) -> str:
    """What the table leaves out, by reason; "" where that is nothing."""
    kept = Counter(one.reason for one in plan.rejected)
    kept.subtract(one.reason for one in shown(plan, count_max))
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(kept.items()) if count)
    return f"and {kept.total()} more ({told}): `--all` shows them" if told else ""


def gib(bytes_: int) -> str:
    return f"{bytes_ / 2**30:.2f} GiB"


def _ms(seconds: float) -> str:
    return milliseconds(round(seconds * 1e6))


def _few(figure: float) -> str:
    """As exact as an estimate is: two digits."""
    rounded = float(f"{figure:.2g}")
    return f"{rounded:.0f}" if rounded >= 10 else f"{rounded:g}"
