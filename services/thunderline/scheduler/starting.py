"""Where the next epoch of a deployment starts, or what it waits for: files, memory, nodes, links. Pure.

An epoch has one rank in this version: what one node cannot hold is not started, though several might.
"""

from collections.abc import Mapping
from dataclasses import replace

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Graph
from thunderline.scheduler import wording
from thunderline.scheduler.actions import Action, AuditModel, FetchModel
from thunderline.scheduler.attempts import has_passed
from thunderline.scheduler.placing.values import Plan, Policy, Strategy, WaitFor
from thunderline.scheduler.placing.values import Verdict as PlanVerdict
from thunderline.scheduler.situation import Planner, planned
from thunderline.scheduler.values import Audit, DeploymentState, Standing, Verdict, Wish, World

AUDIT_AGAIN_S = 10.0
FETCH_AGAIN_S = 60.0
OTHER_FILES = "other files"
ANOTHER_DEPLOY = "another deploy"
# Of more nodes a plan for several takes longer than a pass may: `thunderline plan` makes it.
PLANNED_NODES_MAX = 8
# Nodes that a placement says it was not placed on.
REASON_COUNT_MAX = 16

Audits = Mapping[NodeId, Audit]
Reserved = Mapping[NodeId, int]


def on_one_node(plan: Planner, world: World, wish: Wish, audits: Audits, reserved: Reserved) -> Plan | None:
    """With the others' reasons beside its own. None: no node has told what the model is like."""
    found = _planned(plan, world, wish, audits, reserved, Strategy.WHOLE)
    if found is None or found.placement is None:
        return found
    others = wording.why_not_there(found, _words(world))[:REASON_COUNT_MAX]
    return replace(found, placement=replace(found.placement, reasons=(*found.placement.reasons, *others)))


def _words(world: World) -> dict[NodeId, str]:
    return {one.card.id: one.card.word for one in world.around.members}


def _planned(
    plan: Planner, world: World, wish: Wish, audits: Audits, reserved: Reserved, strategy: Strategy | None
) -> Plan | None:
    policy = Policy(kv_budget_tokens=wish.spec.kv_budget_tokens, strategy=strategy)
    known = {node: _as_fetched(world, wish, node, audit) for node, audit in audits.items()}
    # One node needs no links, of which something changes all the time.
    around = replace(world.around, graph=Graph()) if strategy is Strategy.WHOLE else world.around
    return planned(plan, around, world.runners.keys(), known, reserved, policy)


def _as_fetched(world: World, wish: Wish, node: NodeId, audit: Audit) -> Audit:
    """What the hub does not have, no node can fetch."""
    fetch = world.fetches.get((node, wish.spec.model))
    if audit.verdict is not Verdict.FETCHABLE or fetch is None or not (fetch.error and fetch.permanent):
        return audit
    return replace(audit, verdict=Verdict.UNUSABLE, problems=(fetch.error,))


def unplaced(plan: Planner, world: World, wish: Wish, audits: Audits, reserved: Reserved, found: Plan) -> Standing:
    """`found`: what kept it from every single node."""
    told = dict.fromkeys([*wording.why_not_there(found, _words(world)), *(one.text for one in found.waits)])
    why = "; ".join(told) or found.why
    model = wish.spec.model
    if found.verdict is PlanVerdict.WAITING:
        what = found.waits[0].what
        how = "does not fit now" if what is WaitFor.MEMORY else f"waits for {what.value}"
        return Standing(DeploymentState.WAITING, f"{model} {how}: {why}", what.value)
    alone = Standing(
        DeploymentState.IMPOSSIBLE,
        f"{model} does not fit on one node: {why}; {wording.on_several(model)}",
        "more memory on one node",
    )
    if max(len(world.around.members), len(world.runners)) > PLANNED_NODES_MAX:
        return alone
    several = _planned(plan, world, wish, audits, reserved, None)
    assert several is not None, "the same audits have told what it is like"
    if several.verdict is PlanVerdict.WAITING and several.waits[0].what is WaitFor.LINKS:
        pairs = "; ".join(one.text for one in several.waits if one.what is WaitFor.LINKS)
        text = f"{model} does not fit on one node: {why}; for several it waits for links: {pairs}"
        return Standing(DeploymentState.WAITING, text, WaitFor.LINKS.value)
    if several.verdict is PlanVerdict.IMPOSSIBLE:
        return Standing(DeploymentState.IMPOSSIBLE, f"{model} does not fit: {why}", "more memory")
    return alone


def asked_again(wish: Wish, audits: Audits, found: Plan, now_s: float) -> list[Action]:
    """About what has no place: there may be more memory by now; and one node says how several could share it."""
    usable = {node: audit for node, audit in audits.items() if audit.verdict is Verdict.USABLE}
    due = [node for node in sorted(usable) if has_passed(usable[node].at_s, usable[node].at_s + AUDIT_AGAIN_S, now_s)]
    is_tried = any(audit.model and audit.model.pipeline.can is not None for audit in usable.values())
    wants_splits = found.verdict is PlanVerdict.IMPOSSIBLE and len(audits) > 1 and not is_tried
    return [AuditModel(node, wish.spec.model, wants_splits and node == due[0]) for node in due]


def without_files(world: World, wish: Wish, audits: Audits, now_s: float) -> tuple[Standing, list[Action]]:
    """No node holds them."""
    node = next((node for node in sorted(audits) if audits[node].verdict is Verdict.FETCHABLE), None)
    if node is not None:
        return fetching(world, wish, node, now_s)
    why = "; ".join(problem for _, audit in sorted(audits.items()) for problem in audit.problems)
    return Standing(DeploymentState.IMPOSSIBLE, why or f"{wish.spec.model} cannot be used", OTHER_FILES), []


def fetching(world: World, wish: Wish, node: NodeId, now_s: float) -> tuple[Standing, list[Action]]:
    """The node has to get them first."""
    model = wish.spec.model
    fetch = world.fetches.get((node, model))
    if fetch is None:
        begins = Standing(DeploymentState.WAITING, f"{model} is about to be fetched", "its files")
        return begins, [FetchModel(node, model)]
    if fetch.error and fetch.permanent:
        return Standing(DeploymentState.IMPOSSIBLE, fetch.error, ANOTHER_DEPLOY), []
    if fetch.error:
        again: list[Action] = (
            [FetchModel(node, model)] if has_passed(fetch.at_s, fetch.at_s + FETCH_AGAIN_S, now_s) else []
        )
        text = f"{fetch.error} (tried {fetch.failure_count} times, again every {FETCH_AGAIN_S:.0f} s)"
        return Standing(DeploymentState.WAITING, text, "its files"), again
    share = f"{fetch.fetched_bytes / fetch.total_bytes:.0%}" if fetch.total_bytes else "0%"
    return Standing(DeploymentState.WAITING, f"{model} is being fetched, {share}", "its files"), []
