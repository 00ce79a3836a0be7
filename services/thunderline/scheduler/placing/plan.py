"""Where a model runs: the same inputs give the same answer on any machine. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from thunderline.scheduler.placing import given, methods, settled, verdict
from thunderline.scheduler.placing.grounds import Grounds, Method
from thunderline.scheduler.placing.rejections import Rejections
from thunderline.scheduler.placing.search import Search
from thunderline.scheduler.placing.values import (
    Backend,
    Files,
    Model,
    Node,
    Placement,
    Plan,
    Policy,
    Reason,
    Rejected,
    Situation,
    Strategy,
    Verdict,
    Wait,
)
from thunderline.scheduler.placing.wording import counted, gib, listed


def plan(situation: Situation, model: Model, policy: Policy | None = None) -> Plan:
    """A placement; or for what it waits; or why there can be none. All that was not taken is told with it."""
    policy = policy or Policy()
    members = sorted(
        (one for one in situation.nodes if not policy.nodes or one.id in policy.nodes), key=lambda one: one.id
    )
    unfit = [one for node in members if (one := _unfit(node))]
    out = {one.nodes[0] for one in unfit}
    grounds = Grounds(situation, [node for node in members if node.id not in out], model, policy)
    if policy.hostfile is not None:
        return given.checked(grounds, policy.hostfile, unfit)
    rejections = Rejections(grounds)
    search = Search(grounds, rejections)
    if 1 in _sizes(grounds, 1) and methods.takes_one_node(policy) and (found := search.one_node()):
        return _placed(grounds, found, rejections, unfit, [])
    left, ruled_out, facts = methods.ruled(grounds)
    sizes = _sizes(grounds, 2)
    waiting = settled.unsettled_pairs(situation, grounds.nodes) if left and sizes else []
    if all(one.rails_do for one in waiting):
        found = search.several_nodes(left, sizes)
        if found and (not waiting or found.backend is Backend.JACCL):
            return _placed(grounds, found, rejections, unfit, ruled_out)
    if waiting and (settled_plan := _without_young(grounds, waiting, unfit)):
        return settled_plan
    rejected = [*unfit, *ruled_out, *_missing(grounds, members), *rejections.all()]
    if waiting:
        return _waiting([one.wait for one in waiting], rejected)
    if verdict.is_impossible(situation, members, model, policy):
        why = verdict.why_impossible(members, model, policy, rejected)
        return Plan(Verdict.IMPOSSIBLE, why, rejected=tuple(rejected))
    return _waiting(verdict.waits(situation, members, policy, rejected, facts), rejected)


def _without_young(grounds: Grounds, waiting: Sequence[settled.Unsettled], unfit: Sequence[Rejected]) -> Plan | None:
    """Who comes, or comes and goes, keeps nobody from what the others can do well without it. None: they cannot."""
    told = {node: one.wait.text for one in waiting for node in one.wait.nodes}
    young = {one.id: told[one.id] for one in grounds.nodes if one.id in told and one.alive_for_s < settled.SETTLE_S}
    if young.keys() & grounds.policy.nodes:
        return None
    others = [one for one in grounds.nodes if one.id not in young]
    older = Grounds(grounds.situation, others, grounds.model, grounds.policy)
    rejections = Rejections(older)
    search = Search(older, rejections)
    if methods.takes_one_node(grounds.policy):
        # None of them has room, as none of all had.
        search.one_node()
    left, ruled_out, _ = methods.ruled(older)
    found = search.several_nodes(left, _sizes(older, 2))
    if found is None or found.slow:
        return None
    come = [Rejected((node,), Reason.LINK, text) for node, text in sorted(young.items())]
    return _placed(older, found, rejections, [*unfit, *come], ruled_out)


def _waiting(waits: Sequence[Wait], rejected: Sequence[Rejected]) -> Plan:
    return Plan(
        Verdict.WAITING, f"waits for {waits[0].what.value}: {waits[0].text}", None, tuple(rejected), tuple(waits)
    )


def _unfit(node: Node) -> Rejected | None:
    """Of a node that no set has."""
    if not node.is_alive:
        return Rejected((node.id,), Reason.NODE, f"{node.word} is not ALIVE")
    if node.files is Files.UNUSABLE:
        return Rejected((node.id,), Reason.FILES, f"{node.word}: {node.file_problem or 'its files cannot be used'}")
    if node.memory_bytes is None:
        return Rejected((node.id,), Reason.NODE, f"{node.word} has not told its memory")
    return None


def _sizes(grounds: Grounds, least: int) -> Sequence[int]:
    """Of the sets that the operator allows."""
    count, policy = len(grounds.nodes), grounds.policy
    if policy.nodes:
        # All of those, or nothing.
        return [count] if count == len(policy.nodes) and count >= max(least, policy.node_count_min) else []
    return range(max(least, policy.node_count_min), count + 1)


def _missing(grounds: Grounds, members: Sequence[Node]) -> list[Rejected]:
    """Why there is no set at all to look at."""
    policy, count = grounds.policy, len(grounds.nodes)
    absent = sorted(policy.nodes - {one.id for one in members})
    found = [Rejected((node,), Reason.NODE, f"{node} is no member") for node in absent]
    if policy.nodes and len(policy.nodes) == 1 and not methods.takes_one_node(policy):
        found.append(Rejected((), Reason.PIN, "one node has nothing to divide"))
    elif count < policy.node_count_min:
        wants = counted(policy.node_count_min, "node")
        found.append(Rejected((), Reason.PIN, f"{wants} at least are asked for, {count} can take part"))
    elif count < 2 and not methods.takes_one_node(policy):
        found.append(Rejected((), Reason.PIN, f"two nodes at least are asked for, {count} can take part"))
    return found


def _placed(
    grounds: Grounds,
    found: Placement,
    rejections: Rejections,
    unfit: Sequence[Rejected],
    ruled_out: Sequence[Rejected],
) -> Plan:
    told = [_chosen(grounds, found), *_fallen_back(grounds, found, rejections, ruled_out), *_listener(grounds, found)]
    fetching = [grounds.words[grounds.numbers[rank.node]] for rank in found.ranks if rank.must_fetch]
    if fetching:
        told.append(f"the files must be fetched on {listed(fetching)}")
    placement = replace(found, reasons=tuple(told))
    return Plan(Verdict.PLACED, told[0], placement, (*unfit, *ruled_out, *rejections.all()))


def _chosen(grounds: Grounds, found: Placement) -> str:
    words = listed(grounds.words[grounds.numbers[node]] for node in found.nodes)
    room = f"{found.kv_budget_tokens} tokens of KV"
    if found.strategy is Strategy.WHOLE:
        rank = found.ranks[0]
        free = gib(rank.needed_bytes + rank.left_bytes)
        return f"{words}: the whole model and {room} take {gib(rank.needed_bytes)} of {free}"
    how = f"{found.strategy.value} over {found.backend.value if found.backend else ''}"
    slow = f", SLOW: {'; '.join(found.slow)}" if found.slow else ""
    return f"{words}: {how}, with {room}{slow}"


def _fallen_back(
    grounds: Grounds, found: Placement, rejections: Rejections, ruled_out: Sequence[Rejected]
) -> list[str]:
    """Better ways that these nodes have not, and why."""
    if found.backend is None:
        return []
    members = tuple(sorted(grounds.numbers[node] for node in found.nodes))
    better = methods.wanted(grounds.policy)
    better = better[: better.index(Method(found.strategy, found.backend))]
    # Of what no node has nobody thinks.
    offered = {backend for node in grounds.nodes for backend in node.backends or ()}
    told = []
    for method in better:
        general = [one.text for one in ruled_out if (one.strategy, one.backend) == method]
        why = next(iter(general), "") or rejections.why_not(members, method)
        if why and method.backend in offered:
            told.append(f"not {method.strategy.value} over {method.backend.value}: {why}")
    return told


def _listener(grounds: Grounds, found: Placement) -> list[str]:
    if len(found.ranks) < 2:
        return []
    members = [grounds.numbers[node] for node in found.nodes]
    heard = grounds.heard_by(members[0], members)
    return [f"rank 0 is {grounds.words[members[0]]}: {heard} of {len(members) - 1} others can dial it"]
