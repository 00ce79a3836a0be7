"""Whether what has no place now may get one. Pure.

IMPOSSIBLE is said only of what would not run with every link UP and nothing promised to others.
"""

from collections.abc import Sequence

from thunderline.cluster.machine_facts import RdmaState
from thunderline.scheduler.placing.capacity import Capacity
from thunderline.scheduler.placing.grounds import Method
from thunderline.scheduler.placing.memory import Needs, least_tokens
from thunderline.scheduler.placing.methods import sizes_problem, takes_one_node, wanted
from thunderline.scheduler.placing.values import (
    Backend,
    Files,
    Model,
    Node,
    Policy,
    Reason,
    Rejected,
    Situation,
    Strategy,
    Wait,
    WaitFor,
)
from thunderline.scheduler.placing.wording import counted, gib

# What more links, or better ones, may mend.
OF_LINKS = (Reason.LINK, Reason.RAIL, Reason.SLOW, Reason.COORDINATOR)
NO_RDMA = {RdmaState.DISABLED, RdmaState.UNAVAILABLE}


def is_impossible(situation: Situation, members: Sequence[Node], model: Model, policy: Policy) -> bool:
    """Of what was not placed. `members`: all that the operator allows, ALIVE or not."""
    if not takes_one_node(policy) and not _divisible(model, policy):
        return True
    if unknown(situation, members, policy):
        return False
    return not _may_fit(members, model, policy)


def why_impossible(members: Sequence[Node], model: Model, policy: Policy, rejected: Sequence[Rejected]) -> str:
    """With the figures of all members, where memory is what they lack; else why not the largest set."""
    if not members:
        return "there is no node"
    able = [one for one in members if one.files is not Files.UNUSABLE]
    needs = Needs(model, least_tokens(model, policy)).pipeline_bytes(len(able))
    has = sum(one.memory_bytes or 0 for one in able)
    of_memory = [one.text for one in rejected if one.reason is Reason.MEMORY]
    if of_memory and needs > has:
        who = f"{able[0].word} has" if len(able) == 1 else f"{counted(len(able), 'node')} together have"
        return f"needs {gib(needs)}, {who} {gib(has)}"
    of_sets = [one.text for one in rejected if one.nodes and one.reason is not Reason.NODE]
    # That nobody has a backend which nobody asked for says nothing.
    telling = {Reason.ENGINE, Reason.PIN} | ({Reason.BACKEND} if policy.backend else set())
    ruled_out = [one.text for one in rejected if not one.nodes and one.reason in telling]
    told = [*(of_memory[-1:] or of_sets[-1:]), *dict.fromkeys(ruled_out)]
    return "; ".join(told) or next(one.text for one in rejected)


def unknown(situation: Situation, members: Sequence[Node], policy: Policy) -> list[Wait]:
    """What has to be known before anything is called impossible."""
    found = []
    if policy.nodes:
        absent = sorted(policy.nodes - {one.id for one in members})
        found += [Wait(WaitFor.NODES, (node,), f"{node} is no member") for node in absent]
    elif not situation.is_complete:
        found.append(Wait(WaitFor.NODES, (), "discovery does not know all members yet"))
    # One node needs no links.
    several = members if wanted(policy) else []
    silent = [one for one in several if one.is_alive and one.id in situation.graph.incomplete]
    found += [Wait(WaitFor.NODES, (one.id,), f"{one.word} has not told of all its links") for one in silent]
    untold = [one for one in members if one.memory_bytes is None and one.files is not Files.UNUSABLE]
    return found + [Wait(WaitFor.FACTS, (one.id,), f"{one.word} has not told its memory") for one in untold]


def waits(
    situation: Situation, members: Sequence[Node], policy: Policy, rejected: Sequence[Rejected], facts: Sequence[Wait]
) -> list[Wait]:
    """For what a model waits that may get a place: links first, then what others hold, nodes, and what is not known."""
    # Of the smallest set that lacks nothing but links; plain ones before rails, which many do without.
    of_links = [one for one in rejected if one.reason in OF_LINKS and one.pairs]
    nearest = min(of_links, key=lambda one: (len(one.nodes), one.nodes, one.reason is Reason.RAIL), default=None)
    found = [Wait(WaitFor.LINKS, pair, nearest.text) for pair in nearest.pairs] if nearest else []
    found += [
        Wait(WaitFor.MEMORY, (one.id,), f"{gib(one.reserved_bytes)} of {one.word} are promised to others")
        for one in members
        if one.reserved_bytes and one.is_alive
    ]
    dead = [one for one in members if not one.is_alive]
    found += [Wait(WaitFor.NODES, (one.id,), f"{one.word} is not ALIVE") for one in dead]
    found += [*unknown(situation, members, policy), *facts]
    return found or [Wait(WaitFor.LINKS, (), rejected[-1].text if rejected else "no node can take part")]


def _divisible(model: Model, policy: Policy) -> list[Method]:
    """Ways that the engine has, or may turn out to have. A backend that has failed too often may work again."""
    found = []
    for method in wanted(policy):
        ability = model.tensor if method.strategy is Strategy.TENSOR else model.pipeline
        found += [method] if ability.can is not False else []
    return found


def _may_fit(members: Sequence[Node], model: Model, policy: Policy) -> bool:
    """On empty nodes with every link UP."""
    nodes = [one for one in members if one.files is not Files.UNUSABLE]
    needs = Needs(model, least_tokens(model, policy))
    is_one = len(policy.nodes) == 1 or (not policy.nodes and policy.node_count_min <= 1)
    if takes_one_node(policy) and is_one:
        bytes_ = needs.whole().of(needs.tokens)
        if any((one.memory_bytes or 0) >= bytes_ for one in nodes):
            return True
    return any(_may_fit_so(nodes, needs, policy, method) for method in _divisible(model, policy))


def _may_fit_so(nodes: Sequence[Node], needs: Needs, policy: Policy, method: Method) -> bool:
    able = [one for one in nodes if _may_offer(one, method.backend)]
    # The larger ones hold whatever smaller ones would.
    free = sorted((one.memory_bytes or 0 for one in able), reverse=True)
    sizes = [len(policy.nodes)] if policy.nodes else range(max(2, policy.node_count_min), len(able) + 1)
    for size in sizes:
        if size < 2 or size > len(able) or sizes_problem(method, needs.model, size):
            continue
        capacity = Capacity(needs, free[:size])
        if method.strategy is Strategy.TENSOR:
            fits = capacity.fits_tensor(range(size))
        else:
            fits = capacity.layers(tuple(range(size))) >= needs.layer_count
        if fits:
            return True
    return False


def _may_offer(node: Node, backend: Backend) -> bool:
    if node.backends is not None and backend not in node.backends:
        return False
    return backend is not Backend.JACCL or node.rdma not in NO_RDMA
