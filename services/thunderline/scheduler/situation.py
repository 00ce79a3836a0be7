"""From what is known of the cluster and of a model to what a plan is decided on; and the plan. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from thunderline.cluster import NodeId
from thunderline.scheduler.placing.values import Files, Model, Node, Plan, Policy, Situation
from thunderline.scheduler.placing.values import Verdict as PlanVerdict
from thunderline.scheduler.values import Audit, Member, Surroundings, Verdict

# placing/plan.py, or something that remembers its answers.
Planner = Callable[[Situation, Model, Policy], Plan]
FILES = {Verdict.USABLE: Files.HELD, Verdict.FETCHABLE: Files.ABSENT, Verdict.UNUSABLE: Files.UNUSABLE}


def situation(
    around: Surroundings, others: Iterable[NodeId], audits: Mapping[NodeId, Audit], reserved: Mapping[NodeId, int]
) -> Situation:
    """`others`: nodes with a runner, of which the roster may not tell. `audits`: of those that could be asked, all of
    one model. `reserved`: bytes that are promised."""
    cards = {one.card.id: one for one in around.members}
    known = sorted({*cards, *others, *audits})
    nodes = [_node(cards.get(node) or Member(Node(node)), audits.get(node), reserved.get(node, 0)) for node in known]
    return Situation(tuple(nodes), around.graph, around.is_complete)


def _node(member: Member, audit: Audit | None, reserved_bytes: int) -> Node:
    """Without an audit its memory is not known: it takes no part."""
    node = replace(member.card, reserved_bytes=reserved_bytes)
    if audit is None:
        return node
    # 0: it was not told.
    bounds = [one for one in (audit.usable_memory_bytes, member.working_set_bytes) if one]
    return replace(
        node,
        memory_bytes=min(bounds) if audit.usable_memory_bytes else None,
        files=FILES[audit.verdict],
        file_problem="; ".join(audit.problems),
    )


def planned(
    plan: Planner,
    around: Surroundings,
    others: Iterable[NodeId],
    audits: Mapping[NodeId, Audit],
    reserved: Mapping[NodeId, int],
    policy: Policy,
) -> Plan | None:
    """Where the model would run. None: what it is like nobody has told.

    Its files may differ between nodes, and only those that have the same can share it: what the first node holds comes
    first, and what others hold where that has no place.
    """
    first = None
    words = {one.card.id: one.card.word for one in around.members}
    for model, told in _by_files(audits, words):
        found = plan(situation(around, others, told, reserved), model, policy)
        if found.verdict is PlanVerdict.PLACED:
            return found
        first = first or found
    return first


def known(audits: Mapping[NodeId, Audit]) -> list[NodeId]:
    """Who has told what the model is like: those that hold its files; else who has looked it up; else whose files are
    of no use."""
    told = sorted(node for node, audit in audits.items() if audit.model is not None)
    by_verdict = ([node for node in told if audits[node].verdict is verdict] for verdict in Verdict)
    return next((nodes for nodes in by_verdict if nodes), [])


def _by_files(
    audits: Mapping[NodeId, Audit], words: Mapping[NodeId, str]
) -> Iterator[tuple[Model, dict[NodeId, Audit]]]:
    """The model as each content of its files makes it, with the audits as they are for it."""
    told = known(audits)
    for digest in dict.fromkeys(audits[node].digest for node in told):
        same = [node for node in told if audits[node].digest == digest]
        # How it can be divided has not been tried everywhere.
        models = sorted(
            (model for node in same if (model := audits[node].model)), key=lambda one: one.pipeline.can is None
        )
        others = f"its files are others than those of {words.get(same[0], same[0][:8])}"
        yield models[0], {node: _for(audit, digest, others) for node, audit in audits.items()}


def _for(audit: Audit, digest: str, others: str) -> Audit:
    if audit.verdict is not Verdict.USABLE or audit.digest == digest:
        return audit
    return replace(audit, verdict=Verdict.UNUSABLE, problems=(others,))
