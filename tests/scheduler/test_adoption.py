"""What is rebuilt from the placements of a runner that obeyed another store, and what is ended."""

from dataclasses import replace

import pytest

from thunderline.cluster import InstanceId, NodeId, RankId, StoreId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler import adoption, attempts
from thunderline.scheduler.adoption import Fate, Found, Held, Plan
from thunderline.scheduler.events import Kind
from thunderline.scheduler.values import Cause, Epoch, Spec, Wish

A, B = NodeId("a"), NodeId("b")
NOW_S, READY_S = 1000.0, 400.0
COUNT_MAX = 3
R = RankState
M, X = Spec("m", "org/m", 500), Spec("x", "org/x")


def held(number: int, spec: Spec | None = M, state: RankState = R.READY, instance: str = "i1") -> Held:
    rank = RankId(InstanceId(instance), number, 0)
    return Held(rank, spec, b"placement", 500, 2000, state, READY_S, pid=77)


def found(*ranks: Held, node: NodeId = A, highest: int = 9) -> Found:
    return Found(node, StoreId("lost"), highest, ranks)


def wish(spec: Spec, instance: str, *epochs: Epoch, undeploying: bool = False) -> Wish:
    return Wish(spec, InstanceId(instance), 100.0, undeploying, epochs)


def epoch(number: int, is_over: bool = False) -> Epoch:
    over = (200.0, Cause("SIGNAL", "SIGABRT", R.READY)) if is_over else (None, None)
    return Epoch(number, 150.0, A, 500, 2000, 160.0, *over)


def planned(wishes: list[Wish], *runners: Found) -> Plan:
    return adoption.plan(wishes, runners, NOW_S, COUNT_MAX)


# What this store has, what the runner holds -> the fate of each rank, by epoch.
CASES: dict[str, tuple[list[Wish], list[Held], dict[int, Fate]]] = {
    "a lost store is rebuilt": ([], [held(3)], {3: Fate.REBUILT}),
    "... while its rank loads": ([], [held(3, state=R.LOADING)], {3: Fate.REBUILT}),
    "... without a process": ([], [held(3, state=R.ABSENT)], {3: Fate.REBUILT}),
    "a rank of an older epoch is ended": ([], [held(3), held(2, None)], {3: Fate.REBUILT, 2: Fate.ENDED}),
    "a rank of no deployment is ended": ([], [held(3, None)], {3: Fate.ENDED}),
    "two deployments": ([], [held(3), held(4, X, instance="i2")], {3: Fate.REBUILT, 4: Fate.REBUILT}),
    "this store has the very epoch": ([wish(M, "i1", epoch(3))], [held(3)], {3: Fate.KNOWN}),
    "this store has it with an older epoch": ([wish(M, "i1", epoch(2))], [held(3)], {3: Fate.ENDED}),
    "this store has ended the epoch": ([wish(M, "i1", epoch(3, True))], [held(3)], {3: Fate.ENDED}),
    "this store undeploys it": ([wish(M, "i1", epoch(3), undeploying=True)], [held(3)], {3: Fate.ENDED}),
    "another deployment has the name": ([wish(replace(M, model="o/n"), "i7")], [held(3)], {3: Fate.ENDED}),
    "another of the name serves": ([wish(M, "i7", epoch(8))], [held(3)], {3: Fate.ENDED}),
    "it was deployed again and has started nothing": ([wish(M, "i7")], [held(3)], {3: Fate.REBUILT}),
    "... and nothing lives": ([wish(M, "i7")], [held(3, state=R.ABSENT)], {3: Fate.ENDED}),
    "... and is undeployed": ([wish(M, "i7", undeploying=True)], [held(3)], {3: Fate.ENDED}),
    "another lives with the epoch's number": ([wish(X, "i7", epoch(3))], [held(3)], {3: Fate.ENDED}),
    "another has ended with the number": ([wish(X, "i7", epoch(3, True))], [held(3)], {3: Fate.REBUILT}),
    "of two of one name the one that lives": (
        [],
        [held(5, state=R.FAILED, instance="i2"), held(3)],
        {3: Fate.REBUILT, 5: Fate.ENDED},
    ),
    "of two that have ended the newer": (
        [],
        [held(3, state=R.ABSENT), held(5, state=R.ABSENT, instance="i2")],
        {3: Fate.ENDED, 5: Fate.REBUILT},
    ),
    "there is room for one more": (
        [wish(Spec("1", "1"), "i7"), wish(Spec("2", "2"), "i8")],
        [held(3), held(4, X, instance="i2")],
        {3: Fate.ENDED, 4: Fate.REBUILT},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_becomes_of_ranks(case: str) -> None:
    wishes, ranks, fates = CASES[case]
    plan = planned(wishes, found(*ranks))
    assert {ruling.held.id.epoch: ruling.fate for ruling in plan.rulings[A]} == fates
    assert {rank.epoch for rank in plan.keep(A)} == {number for number, fate in fates.items() if fate is not Fate.ENDED}
    assert {new.epochs[0].number for new, _ in plan.rebuilt} == {n for n, fate in fates.items() if fate is Fate.REBUILT}
    assert all(ruling.why for ruling in plan.rulings[A])
    assert plan.highest_epoch == 9
    names = [one.spec.name for one in (*wishes, *(new for new, _ in plan.rebuilt)) if one not in plan.replaced]
    assert len(names) == len(set(names)), "a name is a deployment's alone"


def test_a_rank_that_serves_goes_on_as_its_deployments_epoch() -> None:
    ((new, placement),) = planned([], found(held(3))).rebuilt
    assert (new.spec, new.instance, new.fresh_since_s, placement) == (M, "i1", NOW_S, b"placement")
    assert new.current == Epoch(3, READY_S, A, 500, 2000, ready_s=READY_S)


def test_one_that_is_still_loading_gets_its_whole_time() -> None:
    ((new, _),) = planned([], found(held(3, state=R.LOADING))).rebuilt
    assert new.current == Epoch(3, NOW_S, A, 500, 2000)


@pytest.mark.parametrize("state", [R.ABSENT, R.FAILED, R.STOPPING])
def test_one_without_a_process_is_started_again_at_once(state: RankState) -> None:
    ((new, _),) = planned([], found(held(3, state=state))).rebuilt
    (last,) = new.epochs
    assert last.is_over and last.cause is not None and last.cause.name == "ADOPTED"
    attempt = attempts.next_attempt(new.epochs, new.fresh_above, 1.0, 30.0)
    assert attempt.next is attempts.Next.NOW


def test_a_deployment_that_was_made_again_is_replaced_by_what_serves() -> None:
    again, other = wish(M, "i7"), wish(X, "i8")
    plan = planned([again, other], found(held(3)))
    assert plan.replaced == (again,)
    refused = planned([again, wish(X, "i8", epoch(3))], found(held(3)))
    assert (refused.replaced, refused.rebuilt) == ((), ())


def test_two_runners_of_one_lost_store() -> None:
    plan = planned([], found(held(3)), found(held(4, X, instance="i2"), node=B, highest=12))
    assert [(new.spec.name, new.epochs[0].node) for new, _ in plan.rebuilt] == [("x", B), ("m", A)]
    assert (plan.keep(A), plan.keep(B)) == ([held(3).id], [held(4, instance="i2").id])
    assert plan.highest_epoch == 12


def test_it_is_told_to_the_node_and_to_each_deployment() -> None:
    runner = found(held(3), held(2, None))
    told = list(adoption.told(planned([], runner), [runner], NOW_S))
    assert {event.kind for event in told} == {Kind.STORE_ADOPTED}
    assert [event.subject for event in told] == ["node a", "m"]
    assert "lost" in told[0].text
    assert told[0].done == "1 rebuilt, 1 ended"
    assert told[1].text == "rebuilt from epoch 3 (READY, pid 77), found at a runner of store lost"
    assert told[1].done == "it goes on, nothing is loaded again"
