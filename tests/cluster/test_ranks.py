"""The states of a rank: a total table, and the numbers on the wire."""

import itertools

import pytest

from thunderline.cluster.ranks import LIVING, NEXT, RankState, may_follow
from thunderline.v1 import cluster_pb2

S = RankState
ALONE = [S.STARTING, S.PREPARED, S.LOADING, S.WARMING, S.READY, S.STOPPING, S.ABSENT]
GROUP = [S.STARTING, S.PREPARED, S.CONNECTING, S.VERIFYING, *ALONE[2:]]


def reachable(state: RankState) -> set[RankState]:
    """Every state that may come, however late, after this one."""
    found: set[RankState] = set()
    fresh = [state]
    while fresh:
        new = NEXT[fresh.pop()] - found
        found |= new
        fresh.extend(new)
    return found


def test_the_table_is_total() -> None:
    assert NEXT.keys() == set(S)


@pytest.mark.parametrize("path", [ALONE, GROUP], ids=["one rank alone", "a rank of a group"])
def test_a_whole_life_is_allowed(path: list[RankState]) -> None:
    assert all(may_follow(before, after) for before, after in itertools.pairwise(path))


@pytest.mark.parametrize("path", [ALONE, GROUP], ids=["one rank alone", "a rank of a group"])
def test_no_life_goes_backwards(path: list[RankState]) -> None:
    assert not [(a, b) for n, a in enumerate(path) for b in path[: n + 1] if may_follow(a, b)]


@pytest.mark.parametrize("state", [s for s in S if s not in (S.ABSENT, S.FAILED, S.UNKNOWN)], ids=lambda s: s.name)
def test_a_rank_that_has_a_process_may_fail(state: RankState) -> None:
    assert may_follow(state, S.FAILED)


@pytest.mark.parametrize("state", [s for s in S if s in LIVING], ids=lambda s: s.name)
def test_every_living_state_can_come_to_an_end(state: RankState) -> None:
    assert S.ABSENT in reachable(state)


def test_absent_is_the_end() -> None:
    assert reachable(S.ABSENT) == set()


def test_after_a_runner_that_could_not_be_asked_any_report_is_news() -> None:
    assert all(may_follow(S.UNKNOWN, state) for state in S)


@pytest.mark.parametrize("state", [s for s in S if s is not S.WARMING], ids=lambda s: s.name)
def test_ready_follows_only_a_warm_up_or_the_unknown(state: RankState) -> None:
    assert may_follow(state, S.READY) is (state is S.UNKNOWN)


def test_only_absent_holds_no_memory() -> None:
    assert set(S) - LIVING == {S.ABSENT}


def test_numbers_are_those_on_the_wire() -> None:
    wire = {name.removeprefix("RANK_STATE_"): number for name, number in cluster_pb2.RankState.items()}
    assert wire == {"UNSPECIFIED": 0, **{state.name: state.value for state in S}}
