"""Worlds for the reconciler: one deployment, one node. Now is 1,000 s after the Deploy."""

from dataclasses import replace

from thunderline.cluster import InstanceId, NodeId, RankId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.actions import Action, EndEpoch, StartEpoch
from thunderline.scheduler.known_model import even
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.reconciler import Waits
from thunderline.scheduler.starting import on_one_node
from thunderline.scheduler.values import (
    Audit,
    Cause,
    DeploymentState,
    Epoch,
    Fetch,
    RankView,
    RunnerView,
    Spec,
    Verdict,
    Wish,
    World,
)

# The world, the state that it gives, words that the sentence must have, and the actions.
Situation = tuple[World, DeploymentState, str, list[Action]]

NOW_S = 1_000.0
WAITS = Waits(0.5, 30.0)
GIB = 2**30
A, B = NodeId("a"), NodeId("b")
I1, I2 = InstanceId("i1"), InstanceId("i2")
MODEL = "org/m"
R = RankState
S = DeploymentState
CRASHED = Cause("SIGNAL", "SIGSEGV", R.LOADING)
LOST = Cause("LOST", "its runner does not have it any more", R.READY)
STOPPED = Cause("STOPPED", "told to end", R.READY)
USABLE = Audit(Verdict.USABLE, (), even(4 * GIB, 65_536, 32_768, 30), 16 * GIB, at_s=900.0)
FETCHABLE = Audit(Verdict.FETCHABLE, at_s=995.0)
UNUSABLE = Audit(Verdict.UNUSABLE, ("no config.json in the folder",), at_s=995.0)


def epoch(number: int, ended_s: float | None = None, cause: Cause | None = None, ready_s: float | None = None) -> Epoch:
    return Epoch(number, 990.0, A, 8_192, 5 * GIB, ready_s, ended_s, cause)


def wish(*epochs: Epoch, undeploying: bool = False, instance: InstanceId = I1, name: str = "m") -> Wish:
    return Wish(Spec(name, MODEL), instance, 0.0, undeploying, epochs)


def rank(
    number: int, state: RankState, cause: Cause | None = None, share: float | None = None, attached: bool = True
) -> RankView:
    return RankView(RankId(I1, number, 0), A, state, cause, share, memory_bytes=5 * GIB, attached=attached)


def runner(*ranks: RankView, reachable: bool = True, complete: bool = True, node: NodeId = A) -> RunnerView:
    return RunnerView(node, reachable, complete, ranks)


def world(
    wished: Wish | None,
    view: RunnerView | None = None,
    audit: Audit | None = USABLE,
    fetch: Fetch | None = None,
    in_flight: frozenset[object] = frozenset(),
    served: bool = False,
    age_s: float | None = None,
) -> World:
    """`served`: whether this scheduler has seen the deployment READY. `age_s`: else as if nobody had slept."""
    if age_s is None and wished is not None and wished.current is not None:
        age_s = NOW_S - wished.current.started_s
    return World(
        wishes=() if wished is None else (wished,),
        runners={} if view is None else {view.node: view},
        audits={} if audit is None else {(A, MODEL): audit},
        fetches={} if fetch is None else {(A, MODEL): fetch},
        in_flight=in_flight,
        served=frozenset({I1}) if served else frozenset(),
        ages_s={} if age_s is None else {I1: age_s},
    )


def too_late(state: RankState) -> EndEpoch:
    return EndEpoch(I1, 4, Cause("PHASE_DEADLINE", "its runner neither brought it further nor ended it in time", state))


def id_of(number: int) -> RankId:
    return RankId(I1, number, 0)


NEW = wish()
PLACED = on_one_node(plan, world(NEW, runner()), NEW, {A: USABLE}, {})
assert PLACED is not None and PLACED.placement is not None
START = StartEpoch(I1, PLACED.placement)
STARTED = wish(epoch(4))
SERVED = wish(epoch(4, ready_s=991.0))
ENDED_JUST_NOW = wish(epoch(4, ended_s=999.9, cause=CRASHED))
ENDED_A_WHILE_AGO = wish(epoch(4, ended_s=999.0, cause=CRASHED))
SERVED_AND_ENDED = wish(epoch(4, ended_s=999.9, cause=CRASHED, ready_s=995.0))
# What its runner has recognised.
RECOGNISED = Cause(
    "SIGNAL",
    "SIGABRT: Caused GPU Timeout Error",
    R.READY,
    signature="the GPU waited (mlx#3830)",
    remedy="send fewer",
)
PERMANENT = Cause("LOAD_FAILED", "the architecture 'x' is not known", R.LOADING, permanent=True)
# Two minutes ago: it should be LOADING by now.
LATE = wish(replace(epoch(4), started_s=880.0))
FIVE_CRASHES = wish(*(epoch(n, 990.0 + n, CRASHED) for n in range(1, 6)))
EIGHT_ATTEMPTS = wish(*(epoch(n, 990.0 + n, Cause("SPAWN_FAILED", f"try {n}", R.STARTING)) for n in range(1, 9)))
GONE = wish(epoch(4, ready_s=991.0), undeploying=True)
