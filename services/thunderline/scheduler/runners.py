"""The runners of the cluster: found through discovery, watched, and told what to do."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection

import grpc
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from thunderline.cluster import NodeId, RankId, StoreId
from thunderline.cluster.errors import ClusterError, InstanceFailed, InvalidRequest, NotFound, Unreachable
from thunderline.cluster.graph import Graph
from thunderline.cluster.limits import DEFAULTS, Limits
from thunderline.process.trust import Wallet
from thunderline.rpc.errors import from_call
from thunderline.rpc.following import follow
from thunderline.rpc.moves import reach
from thunderline.rpc.moving import PATIENCE, Moving
from thunderline.rpc.ways import Ways
from thunderline.scheduler import wire, wording
from thunderline.scheduler.carried import Carried
from thunderline.scheduler.events import RankFacts
from thunderline.scheduler.members import Members
from thunderline.scheduler.network import Network
from thunderline.scheduler.values import Audit, Fetch, RunnerView, Surroundings, Verdict
from thunderline.v1 import (
    cluster_pb2,
    discovery_pb2,
    discovery_pb2_grpc,
    runner_pb2,
    runner_pb2_grpc,
)

COMMAND_DEADLINE_S = 5.0
# Longer than the runner gives its own child.
AUDIT_DEADLINE_S, SPLITS_DEADLINE_S = 70.0, 240.0
CANCEL_DEADLINE_S = 2.0
REDIAL_S = 0.1
COMMAND_COUNT = 3
FETCH_FAILURE_COUNT_SAID = 8

log = logging.getLogger(__name__)


class Runner:
    """One node's runner: a connection, which moves to the better link, and what it said last."""

    def __init__(self, node: NodeId, connection: Moving) -> None:
        self.node = node
        self.connection = connection
        self.stub = runner_pb2_grpc.RunnerServiceStub(connection)
        # Its messages as they come.
        self.generate: grpc.aio.UnaryStreamMultiCallable[runner_pb2.RunnerServiceGenerateRequest, bytes] = (
            connection.unary_stream(
                "/thunderline.v1.RunnerService/Generate",
                request_serializer=runner_pb2.RunnerServiceGenerateRequest.SerializeToString,
            )
        )
        self.tasks: list[asyncio.Task[None]] = []
        # Why it was lost, or not reached.
        self.problem = ""
        self.view = RunnerView(node, reachable=False, complete=False)
        self.reports: list[cluster_pb2.RankReport] = []
        # The highest epoch that it ever started.
        self.highest_epoch = 0

    def heard(self, told: runner_pb2.WatchRanksResponse, store: StoreId) -> None:
        """One that obeys another store is not commanded, and nothing is concluded from what it has."""
        self.reports = list(told.ranks)
        self.highest_epoch = told.highest_epoch
        obeyed = StoreId(told.store_id)
        refusal = wording.wrong_store(self.node, obeyed, store) if obeyed not in {"", store} else ""
        if refusal and refusal != self.view.refusal:
            log.warning(refusal)
        ranks = tuple(wire.rank_view(self.node, report) for report in told.ranks)
        self.view = RunnerView(self.node, not refusal, told.complete and not refusal, ranks, refusal)


class Runners:
    """All runners. `changed` is called at every change of a view, an audit or a fetch."""

    def __init__(
        self,
        discovery: Moving,
        store: StoreId,
        wallet: Wallet | None = None,
        ways: Ways | None = None,
        limits: Limits = DEFAULTS,
    ) -> None:
        """`discovery` and `ways` are of our own node's roles. Without ways the addresses of the cards are tried."""
        self._discovery = discovery
        self._store = store
        self._wallet = wallet
        self._ways = ways
        self._patience_s = PATIENCE * limits.probe_timeout_s
        self.changed: Callable[[], None] = lambda: None
        self.roster = discovery_pb2.Roster()
        self.nodes: dict[NodeId, Runner] = {}
        self.audits: dict[tuple[NodeId, str], Audit] = {}
        self.fetches: dict[tuple[NodeId, str], Fetch] = {}
        self._carried = Carried()
        self._members = Members()
        self.network = Network(ways)

    @property
    def complete(self) -> bool:
        """Whether every runner of a complete roster has been heard."""
        views = [runner.view for runner in self.nodes.values()]
        return self.roster.complete and bool(views) and all(view.reachable and view.complete for view in views)

    @property
    def heard(self) -> bool:
        """The same, whichever store they obey."""
        views = [runner.view for runner in self.nodes.values()]
        return self.roster.complete and bool(views) and all(view.reachable or view.refusal for view in views)

    @property
    def highest_epoch(self) -> int:
        """That any runner ever started, for whichever store."""
        return max((runner.highest_epoch for runner in self.nodes.values()), default=0)

    def around(self, nodes_max: int = 1024) -> Surroundings:
        """The members and how they are joined, as they are now; of more nodes than `nodes_max` not how."""
        graph = self.network.graph if len(self.nodes) <= nodes_max else Graph()
        return Surroundings(self._members.look(time.monotonic(), graph.incomplete), graph, self.roster.complete)

    def refusals(self) -> dict[NodeId, str]:
        """Why runners that obey another store take no commands."""
        return {node: runner.view.refusal for node, runner in sorted(self.nodes.items()) if runner.view.refusal}

    def facts(self) -> dict[RankId, RankFacts]:
        """For events: the process of each rank, and how many requests its end would touch, or has touched."""
        counts = self._carried.counts()
        found = {rank: RankFacts(request_count=count) for rank, count in counts.items()}
        for runner in self.nodes.values():
            for report in runner.reports:
                rank = wire.rank_view(runner.node, report).id
                pid = report.cause.pid or report.pid
                found[rank] = RankFacts(pid, report.cause.uptime_s, counts.get(rank, 0))
        return found

    async def run(self) -> None:
        """Follows the roster, and each runner in it, until cancelled. A roster that is lost stays as it was."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._discovery.run(), name="own discovery")
            if self._ways is not None:
                tasks.create_task(self._ways.run(), name="ways")
            stub = discovery_pb2_grpc.DiscoveryServiceStub(self._discovery)
            while True:
                try:
                    told = follow(self._discovery, lambda: stub.WatchRoster(discovery_pb2.WatchRosterRequest()))
                    async with contextlib.aclosing(told):
                        async for response in told:
                            self._hear(response.roster, tasks)
                except grpc.aio.AioRpcError as error:
                    log.debug("discovery cannot be heard", extra={"why": error.details()})
                await asyncio.sleep(REDIAL_S)

    def _hear(self, roster: discovery_pb2.Roster, tasks: asyncio.TaskGroup) -> None:
        self.roster = roster
        self._members.hear(roster, time.monotonic())
        for member in roster.members:
            node = NodeId(member.card.node_id)
            there = reach(member.card, "runner", own=node == roster.node_id)
            if member.state == discovery_pb2.MEMBER_STATE_LEFT:
                self._let_go(node)
            elif member.state == discovery_pb2.MEMBER_STATE_ALIVE and there is not None:
                if node not in self.nodes:
                    self._begin(node, tasks)
                self.nodes[node].connection.aim(there)
        self.changed()

    def _begin(self, node: NodeId, tasks: asyncio.TaskGroup) -> None:
        connection = Moving(node, self._ways, self._wallet, self._patience_s)
        self.nodes[node] = runner = Runner(node, connection)
        runner.tasks = [
            tasks.create_task(connection.run(), name=f"connection to the runner of {node}"),
            tasks.create_task(self._watch(runner), name=f"runner of {node}"),
        ]

    def _let_go(self, node: NodeId) -> None:
        """It is no member any more: nobody waits for its runner."""
        if runner := self.nodes.pop(node, None):
            for task in runner.tasks:
                task.cancel()

    async def _watch(self, runner: Runner) -> None:
        while True:
            try:
                told = follow(runner.connection, lambda: runner.stub.WatchRanks(runner_pb2.WatchRanksRequest()))
                async with contextlib.aclosing(told):
                    async for response in told:
                        runner.heard(response, self._store)
                        self.changed()
            except grpc.aio.AioRpcError as error:
                is_new = error.code() is grpc.StatusCode.UNAUTHENTICATED and error.details() != runner.problem
                if runner.view.reachable or is_new:
                    log.warning("a runner is lost", extra={"node": runner.node, "why": error.details()})
                runner.problem = error.details() or ""
            lost = RunnerView(runner.node, reachable=False, complete=False, ranks=runner.view.ranks)
            if runner.view != lost:
                runner.view = lost
                self.changed()
            await asyncio.sleep(REDIAL_S)

    async def set_rank(
        self,
        node: NodeId,
        rank: RankId,
        goal: runner_pb2.RankGoal.ValueType,
        placement: cluster_pb2.Placement | None,
        forget: bool = False,
    ) -> cluster_pb2.RankReport:
        """Tells a runner, three times when it does not answer. Raises its typed refusal, Unreachable."""
        runner = self.nodes.get(node)
        if runner is None:
            raise Unreachable(f"no runner of node {node} is known")
        request = runner_pb2.SetRankRequest(
            store_id=self._store, id=wire.rank_id_to_proto(rank), goal=goal, placement=placement, forget=forget
        )
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(COMMAND_COUNT),
            wait=wait_fixed(REDIAL_S),
            retry=retry_if_exception_type(Unreachable),
            reraise=True,
        ):
            with attempt:
                try:
                    return (await runner.stub.SetRank(request, timeout=COMMAND_DEADLINE_S)).rank
                except grpc.aio.AioRpcError as error:
                    raise from_call(error) from None
        raise AssertionError("tenacity raises after the last attempt")

    async def holding(self, node: NodeId) -> runner_pb2.AdoptStoreResponse:
        """Which store it obeys, and what it holds. Raises NotFound, InstanceFailed."""
        return await self._adopt(node, runner_pb2.AdoptStoreRequest())

    async def adopt(self, node: NodeId, former: StoreId, keep: Collection[RankId]) -> None:
        """Has it obey our store, with the ranks that are kept. Raises NotFound, InstanceFailed, its typed refusal."""
        kept = [wire.rank_id_to_proto(rank) for rank in keep]
        request = runner_pb2.AdoptStoreRequest(store_id=self._store, former_store_id=former, keep=kept)
        await self._adopt(node, request)

    async def _adopt(self, node: NodeId, request: runner_pb2.AdoptStoreRequest) -> runner_pb2.AdoptStoreResponse:
        runner = self.nodes.get(node)
        if runner is None:
            raise NotFound(f"no runner of node {node} is known", param="store_ids")
        try:
            return await runner.stub.AdoptStore(request, timeout=COMMAND_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            problem = from_call(error)
            if isinstance(problem, Unreachable):
                raise InstanceFailed(f"the runner of node {node} does not answer: {problem.message}") from None
            raise problem from None

    async def audit(self, node: NodeId, model: str, splits: bool = False) -> None:
        """Asks a node about a model; a refusal is a verdict, a broken call is asked again by the reconciler."""
        try:
            response = await self.ask(node, runner_pb2.AuditModelRequest(model=model, splits=splits))
            self.audits[(node, model)] = wire.audit(response, time.time())
        except InvalidRequest as problem:
            self.audits[(node, model)] = Audit(Verdict.UNUSABLE, (problem.message,), at_s=time.time())
        except ClusterError as problem:
            log.warning("an audit failed", extra={"node": node, "model": model, "why": problem.message})
            await asyncio.sleep(REDIAL_S)
        self.changed()

    async def ask(self, node: NodeId, request: runner_pb2.AuditModelRequest) -> runner_pb2.AuditModelResponse:
        """About a model. Raises Unreachable, and what its runner says."""
        runner = self.nodes.get(node)
        if runner is None:
            raise Unreachable(f"no runner of node {node} is known")
        try:
            return await runner.stub.AuditModel(
                request, timeout=SPLITS_DEADLINE_S if request.splits else AUDIT_DEADLINE_S
            )
        except grpc.aio.AioRpcError as error:
            raise from_call(error) from None

    async def fetch(self, node: NodeId, model: str) -> None:
        """Has a node download a model; the progress is in `fetches`."""
        runner = self.nodes.get(node)
        if runner is None:
            return
        failures = min(self.fetches.get((node, model), Fetch()).failure_count, FETCH_FAILURE_COUNT_SAID)
        self.fetches[(node, model)] = Fetch(failure_count=failures)
        try:
            request = runner_pb2.FetchModelRequest(model=model)
            async for progress in runner.stub.FetchModel(request):
                self.fetches[(node, model)] = Fetch(
                    progress.fetched_bytes, progress.total_bytes, failure_count=failures, at_s=time.time()
                )
                self.changed()
            # The audit of before says FETCHABLE.
            self.audits.pop((node, model), None)
            self.fetches.pop((node, model), None)
        except grpc.aio.AioRpcError as error:
            problem = from_call(error)
            permanent = isinstance(problem, NotFound | InvalidRequest)
            self.fetches[(node, model)] = Fetch(
                error=problem.message, permanent=permanent, failure_count=failures + 1, at_s=time.time()
            )
        self.changed()

    def forget(self, model: str) -> None:
        """A human deploys it again: what was found out about it is found out anew."""
        self.keep({key[1] for key in (*self.audits, *self.fetches)} - {model})

    def keep(self, models: Collection[str]) -> None:
        """What was found out about other models is of no use any more."""
        self.audits = {key: value for key, value in self.audits.items() if key[1] in models}
        self.fetches = {key: value for key, value in self.fetches.items() if key[1] in models}

    async def generate(
        self, node: NodeId, rank: RankId, generation: cluster_pb2.Generation, deadline_s: float
    ) -> AsyncGenerator[bytes, None]:
        """The runner's messages as they come, serialized. Raises its typed errors; a lost runner is InstanceFailed."""
        runner = self.nodes.get(node)
        if runner is None:
            raise InstanceFailed(f"the runner of node {node} is not known any more")
        request = runner_pb2.RunnerServiceGenerateRequest(generation=generation, target=wire.rank_id_to_proto(rank))
        with self._carried.on(rank, generation.request_id):
            try:
                async for message in runner.generate(request, timeout=deadline_s):
                    yield message
            except grpc.aio.AioRpcError as error:
                problem = from_call(error)
                if isinstance(problem, Unreachable):
                    raise InstanceFailed(f"the runner of the instance was lost: {problem.message}") from None
                raise problem from None

    async def cancel(self, node: NodeId, request_id: str) -> None:
        """Says that nobody waits for a request any more; who cannot be told will notice."""
        runner = self.nodes.get(node)
        if runner is None:
            return
        try:
            request = runner_pb2.CancelGenerationRequest(request_id=request_id)
            await runner.stub.CancelGeneration(request, timeout=CANCEL_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            log.info("a cancel did not arrive", extra={"request_id": request_id, "why": error.details()})


def is_stale(error: ClusterError) -> int | None:
    """The highest epoch that a runner knows, when that is what it refused for."""
    highest = error.facts.get("highest", "")
    return int(highest) if error.reason == "STALE_EPOCH" and highest.isdigit() else None
