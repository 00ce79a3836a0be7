"""When the next epoch may start: attempts, crashes, the circuit. Times are seconds after the Deploy."""

from collections.abc import Iterator
from itertools import count

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.attempts import BEFORE_LOADING, Next, is_crash, next_attempt
from thunderline.scheduler.values import Cause, Epoch

WAIT_MIN_S, WAIT_MAX_S = 0.5, 30.0
NUMBERS: Iterator[int] = count(1)


def epoch(
    ended_s: float,
    state: RankState = RankState.LOADING,
    *,
    lasted_s: float = 1.0,
    served_s: float | None = None,
    answered: bool = False,
    name: str = "EXIT_CODE",
    permanent: bool = False,
    digest: str = "",
) -> Epoch:
    """An epoch that is over; `state` is where its rank was."""
    return Epoch(
        number=next(NUMBERS),
        started_s=ended_s - lasted_s,
        node=NodeId("a"),
        kv_budget_tokens=8192,
        memory_bytes=1,
        ready_s=None if served_s is None else ended_s - served_s,
        ended_s=ended_s,
        cause=Cause(name, "said so", state, permanent),
        answered=answered,
        digest=digest,
    )


def attempt_at(*ends_s: float) -> list[Epoch]:
    return [epoch(end_s, RankState.PREPARED) for end_s in ends_s]


def crash_at(*ends_s: float) -> list[Epoch]:
    return [epoch(end_s, RankState.LOADING) for end_s in ends_s]


DAY_S = 86_400.0

CASES = {
    "nothing failed yet: the first epoch starts now": ([], Next.NOW, 0.0),
    "an epoch that still lives is no failure": (
        [Epoch(1, 1.0, NodeId("a"), 8192, 1)],
        Next.NOW,
        0.0,
    ),
    "after the first failure it waits the least": (crash_at(100), Next.AT, 100.5),
    "the wait doubles at each failure": (crash_at(100, 102, 104), Next.AT, 106.0),
    "the wait has a greatest": (attempt_at(10, 20, 30, 40, 50, 60, 70), Next.AT, 100.0),
    "eight attempts are used up: one more every 60 s": (attempt_at(*range(10, 90, 10)), Next.AT, 140.0),
    "ten minutes of attempts are used up as well": (attempt_at(10, 300, 611), Next.AT, 671.0),
    "just under ten minutes of attempts are not": (attempt_at(10, 300, 608), Next.AT, 610.0),
    "an attempt before a crash is not one of the ten minutes": (
        [*attempt_at(10), *crash_at(300), *attempt_at(660)],
        Next.AT,
        662.0,
    ),
    "nor one of the eight": ([*attempt_at(*range(10, 80, 10)), *crash_at(80), *attempt_at(90)], Next.AT, 120.0),
    "ten minutes of attempts after a crash are used up": (
        [*crash_at(5), *attempt_at(10, 300, 611)],
        Next.AT,
        671.0,
    ),
    "so are eight after a crash": ([*crash_at(5), *attempt_at(*range(10, 90, 10))], Next.AT, 140.0),
    "four crashes in ten minutes wait longer and longer": (crash_at(10, 20, 30, 40), Next.AT, 44.0),
    "the fifth crash in ten minutes opens the circuit": (crash_at(10, 20, 30, 40, 50), Next.OPEN, 0.0),
    "five crashes over more than ten minutes do not": (crash_at(10, 200, 400, 500, 611), Next.AT, 619.0),
    "five crashes in four days do not": (
        crash_at(10, DAY_S, 2 * DAY_S, 3 * DAY_S, 4 * DAY_S),
        Next.AT,
        4 * DAY_S + 8,
    ),
    "crashes with other files do not count": (
        [*crash_at(10, 20, 30, 40), epoch(50, digest="another")],
        Next.AT,
        50.5,
    ),
    "five with the same other files do": (
        [*crash_at(10, 20), *(epoch(end_s, digest="another") for end_s in (30, 40, 50, 60, 70))],
        Next.OPEN,
        0.0,
    ),
    "attempts among the crashes do not keep the circuit closed": (
        [*crash_at(10, 20, 30, 40), *attempt_at(50), *crash_at(60)],
        Next.OPEN,
        0.0,
    ),
    "after an epoch that served 30 s, which ends the row of crashes before it, the next follows at once": (
        [*crash_at(10, 20, 30, 40), epoch(100, RankState.READY, lasted_s=32, served_s=30)],
        Next.NOW,
        0.0,
    ),
    "an epoch that served less is a crash like the others": (
        [*crash_at(10, 20, 30, 40), epoch(100, RankState.READY, lasted_s=32, served_s=29.9)],
        Next.OPEN,
        0.0,
    ),
    "an epoch that answered a request ends the row, however short it was": (
        [*crash_at(10, 20, 30, 40), epoch(50, RankState.READY, served_s=0.5, answered=True)],
        Next.NOW,
        0.0,
    ),
    "the first failure after it waits the least": (
        [epoch(50, RankState.READY, served_s=0.5, answered=True), *crash_at(60)],
        Next.AT,
        60.5,
    ),
    "a permanent cause ends the attempts after one epoch": (
        [epoch(100, permanent=True)],
        Next.NEVER,
        110.0,
    ),
    "a permanent cause is not outvoted by older failures": (
        [*attempt_at(10, 20), epoch(30, permanent=True)],
        Next.NEVER,
        40.0,
    ),
    "a later failure of another kind is not permanent": (
        [epoch(30, permanent=True), *attempt_at(50)],
        Next.AT,
        51.0,
    ),
    "an epoch that we stopped is no failure": ([epoch(50, name="STOPPED")], Next.NOW, 0.0),
    "nor are five that ended with their runner, by Ctrl-C": (
        [epoch(end_s, RankState.READY, served_s=1, name="STOPPED") for end_s in (10, 20, 30, 40, 50)],
        Next.NOW,
        0.0,
    ),
    "nor those under which the machine was restarted": (
        [epoch(end_s, name="REBOOTED") for end_s in (10, 20, 30, 40, 50)],
        Next.NOW,
        0.0,
    ),
    "a crash after such an end is the first": (
        [*crash_at(10, 20, 30), epoch(40, name="STOPPED"), *crash_at(50)],
        Next.AT,
        50.5,
    ),
    "crashes count, and wait, after the clock was set back an hour": (
        [*crash_at(3610, 3620), *crash_at(30, 40, 50)],
        Next.OPEN,
        0.0,
    ),
}


@pytest.mark.parametrize(("epochs", "kind", "at_s"), CASES.values(), ids=CASES.keys())
def test_next_attempt(epochs: list[Epoch], kind: Next, at_s: float) -> None:
    found = next_attempt(epochs, 0, WAIT_MIN_S, WAIT_MAX_S)
    assert found.next is kind
    assert found.at_s == pytest.approx(at_s)


@pytest.mark.parametrize(
    "epochs",
    [
        pytest.param(crash_at(10, 20, 30, 40, 50), id="an open circuit"),
        pytest.param(attempt_at(*range(10, 90, 10)), id="attempts that are used up"),
        pytest.param([epoch(50, permanent=True)], id="a permanent cause"),
    ],
)
def test_deploy_again_closes(epochs: list[Epoch]) -> None:
    found = next_attempt(epochs, epochs[-1].number, WAIT_MIN_S, WAIT_MAX_S)
    assert (found.next, found.failed) == (Next.NOW, ())


def test_what_fails_after_a_deploy_counts_though_the_clock_was_set_back() -> None:
    old, new = crash_at(3600, 3610), crash_at(10, 20, 30, 40, 50)
    found = next_attempt([*old, *new], old[-1].number, WAIT_MIN_S, WAIT_MAX_S)
    assert (found.next, found.failed) == (Next.OPEN, tuple(new))


def test_no_wait_is_longer_because_the_clock_was_set_back() -> None:
    found = next_attempt(crash_at(3600), 0, WAIT_MIN_S, WAIT_MAX_S)
    due = {now_s: found.is_due(now_s) for now_s in (3600.0, 3600.4, 3600.5, 3599.9, 0.0)}
    assert due == {3600.0: False, 3600.4: False, 3600.5: True, 3599.9: True, 0.0: True}


def test_the_circuit_says_how_many_crashes_opened_it() -> None:
    row = [epoch(5, RankState.READY, served_s=40), *crash_at(10, 20, 30, 40), *attempt_at(50), *crash_at(60)]
    found = next_attempt(row, 0, WAIT_MIN_S, WAIT_MAX_S)
    assert (found.next, found.crash_count) == (Next.OPEN, 5)


def test_only_what_is_not_near_its_next_epoch_has_given_up() -> None:
    given_up = [attempt_at(*range(10, 90, 10)), crash_at(10, 20, 30, 40, 50), [epoch(10, permanent=True)]]
    assert all(next_attempt(row, 0, WAIT_MIN_S, WAIT_MAX_S).has_given_up for row in given_up)
    assert not any(next_attempt(row, 0, WAIT_MIN_S, WAIT_MAX_S).has_given_up for row in ([], crash_at(10)))


def test_only_failures_since_the_last_deploy_are_told() -> None:
    epochs = crash_at(10, 20, 30)
    assert next_attempt(epochs, epochs[0].number, WAIT_MIN_S, WAIT_MAX_S).failed == tuple(epochs[1:])


def test_eight_attempts_are_used_up_and_seven_are_not() -> None:
    spent = next_attempt(attempt_at(*range(10, 90, 10)), 0, WAIT_MIN_S, WAIT_MAX_S)
    left = next_attempt(attempt_at(*range(10, 80, 10)), 0, WAIT_MIN_S, WAIT_MAX_S)
    assert spent.used_up and not left.used_up


@pytest.mark.parametrize("state", RankState, ids=lambda state: state.name)
def test_an_end_before_loading_is_an_attempt_and_any_other_a_crash(state: RankState) -> None:
    assert is_crash(epoch(10, state)) is (state not in BEFORE_LOADING)


def test_an_end_without_a_cause_is_a_crash() -> None:
    assert is_crash(Epoch(1, 0.0, NodeId("a"), 8192, 1, ended_s=1.0))


def test_no_row_of_failures_makes_the_wait_longer_than_its_greatest() -> None:
    for length in range(1, 60):
        found = next_attempt(attempt_at(*(10.0 + n for n in range(length))), 0, WAIT_MIN_S, WAIT_MAX_S)
        assert found.at_s - (9.0 + length) <= 60.0
