"""In which ways a model may be divided here, the best first, and why not in the others. Pure."""

from thunderline.cluster.machine_facts import RdmaState
from thunderline.scheduler.placing import rdma
from thunderline.scheduler.placing.grounds import Grounds, Method
from thunderline.scheduler.placing.values import (
    Backend,
    Model,
    Policy,
    Reason,
    Rejected,
    Strategy,
    Wait,
    WaitFor,
)

# NCCL cannot send from one rank to another: no pipeline over it.
PREFERENCE = (
    Method(Strategy.TENSOR, Backend.JACCL),
    Method(Strategy.TENSOR, Backend.NCCL),
    Method(Strategy.PIPELINE, Backend.JACCL),
    Method(Strategy.PIPELINE, Backend.RING),
    Method(Strategy.TENSOR, Backend.RING),
)
# Two sums a layer over TCP cost more than they save: for who asks for it.
ASKED_FOR = Method(Strategy.TENSOR, Backend.RING)
NEITHER = "strategy and backend do not go together: one node needs no backend, and NCCL makes no pipeline"
# Nodes that a sentence names.
TOLD_MAX = 4


def wanted(policy: Policy) -> list[Method]:
    """What the operator's wishes leave."""
    is_asked_for = policy.strategy is not None or policy.backend is not None
    return [
        one
        for one in PREFERENCE
        if policy.strategy in (None, one.strategy)
        and policy.backend in (None, one.backend)
        and (is_asked_for or one != ASKED_FOR)
    ]


def takes_one_node(policy: Policy) -> bool:
    is_divided = policy.strategy in (Strategy.TENSOR, Strategy.PIPELINE) or policy.backend is not None
    return not is_divided and policy.node_count_min <= 1


def problem(method: Method, model: Model, policy: Policy) -> tuple[Reason, str] | None:
    """Why not so, whatever the nodes are; None: nothing is against it."""
    ability = model.tensor if method.strategy is Strategy.TENSOR else model.pipeline
    if ability.can is None:
        return Reason.ENGINE, f"whether the engine can split it ({method.strategy.value}) has not been tried yet"
    if not ability.can:
        return Reason.ENGINE, ability.problem or f"the engine cannot split it ({method.strategy.value})"
    if method.backend in policy.given_up:
        return Reason.BACKEND, policy.given_up[method.backend]
    return None


def sizes_problem(method: Method, model: Model, size: int) -> str:
    """Why not over so many nodes; "" where they can divide it."""
    if method.strategy is Strategy.PIPELINE:
        too_many = size > model.layer_count
        return f"{size} ranks for {model.layer_count} layers" if too_many else ""
    if not model.head_count or not model.kv_head_count:
        return "how many heads it has is not known"
    sizes = [("attention heads", model.head_count), ("key-value heads", model.kv_head_count), *model.also_divided]
    odd = [f"{count} {what}" for what, count in sizes if count % size]
    return f"{size} ranks do not divide its {' and '.join(odd)} evenly" if odd else ""


def ruled(grounds: Grounds) -> tuple[list[Method], list[Rejected], list[Wait]]:
    """Those that remain, the others with the reason, and what may change that."""
    left, rejected, waits = [], [], []
    offered = {
        backend: sum(not grounds.problem(number, backend) for number in range(len(grounds.nodes)))
        for backend in Backend
    }
    for method in wanted(grounds.policy):
        against = problem(method, grounds.model, grounds.policy)
        if against is None and offered[method.backend] < 2:
            against = Reason.BACKEND, _few(grounds, method.backend)
        if against is None:
            left.append(method)
            continue
        rejected.append(Rejected((), *against, strategy=method.strategy, backend=method.backend))
        ability = grounds.model.tensor if method.strategy is Strategy.TENSOR else grounds.model.pipeline
        if ability.can is None:
            waits.append(Wait(WaitFor.FACTS, (), against[1]))
    if not wanted(grounds.policy) and not takes_one_node(grounds.policy):
        rejected.append(Rejected((), Reason.PIN, NEITHER))
    waits += [
        Wait(WaitFor.FACTS, (node.id,), f"{node.word} has not said yet what its MLX offers")
        for node in grounds.nodes
        if node.backends is None and wanted(grounds.policy)
    ]
    if grounds.policy.backend is Backend.JACCL:
        unsure = [node for node in grounds.nodes if node.rdma is RdmaState.UNKNOWN]
        waits += [Wait(WaitFor.FACTS, (node.id,), rdma.node_problem(node)) for node in unsure]
    return left, rejected, sorted(set(waits), key=lambda one: (one.nodes, one.text))


def _few(grounds: Grounds, backend: Backend) -> str:
    found = (grounds.problem(number, backend) for number in range(len(grounds.nodes)))
    problems = [why for why in found if why]
    more = f" and {len(problems) - TOLD_MAX} more" if len(problems) > TOLD_MAX else ""
    told = f": {'; '.join(problems[:TOLD_MAX])}{more}" if problems else ""
    return f"{backend.value} needs two nodes{told}"
