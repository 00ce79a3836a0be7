"""Where a model would run: asks the nodes about it, plans, and starts nothing."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from thunderline.cluster import NodeId
from thunderline.cluster.errors import (
    ClusterError,
    DeadlinePassed,
    InstanceFailed,
    InvalidRequest,
    NotFound,
    Unreachable,
)
from thunderline.scheduler import imagined, plan_wire, wire, wording
from thunderline.scheduler.control import Control
from thunderline.scheduler.known_model import model as known_model
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import Files, Node, Plan, Policy, Situation
from thunderline.scheduler.situation import known, planned, situation
from thunderline.scheduler.values import Audit, Verdict
from thunderline.v1 import cluster_pb2, planning_pb2, runner_pb2

NO_RUNNER = "no runner can be asked about the model: `thunderline nodes` shows who is there"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the nodes have said of a model, and one of them, `by`, all that it knows."""

    audits: Mapping[NodeId, Audit]
    by: NodeId
    facts: cluster_pb2.ModelFacts
    splits: cluster_pb2.SplitFacts | None


class Planning:
    def __init__(self, control: Control) -> None:
        self._control = control

    async def plan(self, model: str, request: planning_pb2.PlanPlacementRequest) -> planning_pb2.PlanPlacementResponse:
        """Raises InvalidRequest; NotFound, HubUnreachable of the model; InstanceFailed when no runner can be asked."""
        policy = plan_wire.policy(request.policy, request.spec.kv_budget_tokens)
        if not request.HasField("cluster"):
            policy = replace(policy, nodes=plan_wire.named(request.policy.nodes, self._nodes({})))
            asked = await self._ask(model)
            nodes, found = self._nodes(asked.audits), await self._here(model, asked, policy)
        else:
            written = await asyncio.to_thread(imagined.situation, request.cluster)
            policy = replace(policy, nodes=plan_wire.named(request.policy.nodes, written.nodes))
            asked = await self._ask(model)
            nodes, found = written.nodes, await _elsewhere(written, asked, policy)
        return plan_wire.plan_to_proto(found, nodes, asked.facts, asked.splits)

    async def _here(self, model: str, asked: Asked, policy: Policy) -> Plan:
        runners, promised = self._control.runners, self._control.promised
        # Of many nodes it has to be read by the side.
        await asyncio.to_thread(runners.network.read)
        known_here = runners.around(), tuple(runners.nodes), asked.audits, promised
        # Of many nodes it takes a good part of a second.
        found = await asyncio.to_thread(planned, plan, *known_here, policy)
        assert found is not None, "one of the audits has told what the model is like"
        words = {node.id: node.word for node in self._nodes({})}
        return replace(found, why=found.why + wording.runs_already(found, self._control.wishes(), model, words))

    def _nodes(self, audits: Mapping[NodeId, Audit]) -> tuple[Node, ...]:
        runners = self._control.runners
        return situation(runners.around(), runners.nodes, audits, {}).nodes

    async def _ask(self, model: str) -> Asked:
        """All nodes at once; then one of them for what takes longer: how the engine can split the model, and, where no
        node holds its files, what Hugging Face has of it."""
        nodes = sorted(node for node, runner in self._control.runners.nodes.items() if runner.view.reachable)
        answers = await asyncio.gather(*(self._audit(node, model) for node in nodes))
        audits = {node: one for node, one in zip(nodes, answers, strict=True) if isinstance(one, Audit)}
        if not audits:
            problems = [_of_runner(one) for one in answers if isinstance(one, ClusterError)]
            raise problems[0] if problems else InstanceFailed(NO_RUNNER)
        is_held = any(one.verdict is Verdict.USABLE for one in audits.values())
        fetchers = [node for node in sorted(audits) if audits[node].verdict is Verdict.FETCHABLE]
        askable = known(audits) if is_held or not fetchers else fetchers
        if not askable:
            raise NotFound("; ".join(dict.fromkeys(_problems(audits))), param="model")
        request = runner_pb2.AuditModelRequest(model=model, splits=True, look_up=not is_held)
        problem: ClusterError = InstanceFailed(NO_RUNNER)
        for node in askable:
            try:
                told = await self._control.runners.ask(node, request)
            except (InvalidRequest, NotFound):
                raise
            except ClusterError as error:
                # Another node may reach Hugging Face, or not be busy.
                problem = _of_runner(error)
                continue
            splits = told.splits if told.HasField("splits") else None
            audit = replace(wire.audit(told, time.time()), model=known_model(told.facts, splits))
            return Asked({**audits, node: audit}, node, told.facts, splits)
        raise problem

    async def _audit(self, node: NodeId, model: str) -> Audit | ClusterError:
        """What a node says at once. A refusal is its own, as is an error."""
        try:
            told = await self._control.runners.ask(node, runner_pb2.AuditModelRequest(model=model))
        except InvalidRequest as error:
            return Audit(Verdict.UNUSABLE, (error.message,))
        except ClusterError as error:
            return error
        return wire.audit(told, time.time())


async def _elsewhere(written: Situation, asked: Asked, policy: Policy) -> Plan:
    """In a cluster that is only written down."""
    audit = asked.audits[asked.by]
    assert audit.model is not None, "it is the one that was asked for all it knows"
    if audit.verdict is Verdict.UNUSABLE:
        problem = "; ".join(audit.problems)
        nodes = [replace(node, files=Files.UNUSABLE, file_problem=problem) for node in written.nodes]
        written = replace(written, nodes=tuple(nodes))
    return await asyncio.to_thread(plan, written, audit.model, policy)


def _of_runner(error: ClusterError) -> ClusterError:
    if isinstance(error, Unreachable | DeadlinePassed):
        return InstanceFailed(f"no runner has answered about the model: {error.message}")
    return error


def _problems(audits: Mapping[NodeId, Audit]) -> list[str]:
    return [problem for _, audit in sorted(audits.items()) for problem in audit.problems] or ["no node has the model"]
