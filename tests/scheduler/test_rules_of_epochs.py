"""Rules about attempts, crashes and files, each of which was once broken."""

import math
from dataclasses import replace

import pytest

from scheduler.scenes import (
    CRASHED,
    FIVE_CRASHES,
    GIB,
    I1,
    MODEL,
    NEW,
    NOW_S,
    PERMANENT,
    SERVED,
    STARTED,
    USABLE,
    WAITS,
    A,
    R,
    epoch,
    rank,
    runner,
    wish,
    world,
)
from scheduler.test_attempts import WAIT_MAX_S, WAIT_MIN_S, attempt_at, crash_at
from scheduler.test_attempts import epoch as over
from thunderline.scheduler import reservations
from thunderline.scheduler.actions import Action, AuditModel, StartEpoch
from thunderline.scheduler.attempts import Next, next_attempt
from thunderline.scheduler.reconciler import reconcile
from thunderline.scheduler.values import Cause, Spec, Standing, World


def run(seen: World) -> tuple[Standing, list[Action]]:
    decision = reconcile(seen, NOW_S, WAITS)
    return decision.standings[I1], list(decision.actions)


def test_a_healthy_epoch_is_not_one_of_the_five_crashes() -> None:
    row = [over(10, R.READY, lasted_s=9, answered=True, served_s=5), *crash_at(20, 30, 40, 50)]
    assert next_attempt(row, 0.0, WAIT_MIN_S, WAIT_MAX_S).next is Next.AT


def test_ten_minutes_of_attempts_use_them_up() -> None:
    assert next_attempt(attempt_at(10, 300, 611), 0.0, WAIT_MIN_S, WAIT_MAX_S).used_up


def test_a_crash_after_eight_attempts_has_not_used_them_up() -> None:
    found = next_attempt([*attempt_at(*range(10, 90, 10)), *crash_at(100)], 0.0, WAIT_MIN_S, WAIT_MAX_S)
    assert found.at_s < 160
    assert not found.used_up


def test_other_files_start_the_next_epoch_after_a_permanent_cause() -> None:
    changed = replace(USABLE, at_s=NOW_S - 1, digest="another")
    _, actions = run(world(wish(epoch(4, 980.0, PERMANENT)), runner(), audit=changed))
    assert any(isinstance(action, StartEpoch) for action in actions)


def test_the_same_files_do_not() -> None:
    _, actions = run(world(wish(epoch(4, 980.0, PERMANENT)), runner(), audit=replace(USABLE, at_s=NOW_S - 1)))
    assert not any(isinstance(action, StartEpoch) for action in actions)


def test_what_does_not_fit_is_audited_again() -> None:
    small = replace(USABLE, usable_memory_bytes=2 * GIB, at_s=900.0)
    _, actions = run(world(NEW, runner(), audit=small))
    assert actions == [AuditModel(A, MODEL)]


def test_memory_of_a_report_without_a_placement_is_the_epochs() -> None:
    bare = replace(rank(4, R.LOADING), memory_bytes=0)
    assert reservations.held(world(STARTED, runner(bare)))[A] == reservations.held(world(STARTED, runner()))[A] > 0


def test_the_sentence_of_many_failures_stays_short() -> None:
    epochs = [epoch(number, 990.0, Cause("SPAWN_FAILED", "x" * 300, R.STARTING)) for number in range(1, 51)]
    standing, _ = run(world(wish(*epochs), runner()))
    assert len(standing.reason) < 4000


def test_it_is_looked_at_again_when_the_next_epoch_is_due() -> None:
    seen = world(wish(epoch(4, NOW_S - 0.2, CRASHED)), runner())
    assert reconcile(seen, NOW_S, WAITS).look_again_s == pytest.approx(0.3)
    assert reconcile(seen, NOW_S + 0.3, WAITS).look_again_s == math.inf, "it is due: nothing is waited for"


def test_it_is_looked_at_again_when_an_epoch_is_late() -> None:
    assert reconcile(world(STARTED, runner(rank(4, R.STARTING))), NOW_S, WAITS).look_again_s == pytest.approx(110)


def test_what_serves_needs_no_other_look() -> None:
    assert reconcile(world(SERVED, runner(rank(4, R.READY))), NOW_S, WAITS).look_again_s == math.inf


COMMANDS = {
    "by its model alone": (Spec("m", "org/M"), "thunderline deploy org/M"),
    "by a name of its own": (Spec("mine", "org/m"), "thunderline deploy org/m --name mine"),
    "with its KV budget": (Spec("m", "/models/m/", 9_000), "thunderline deploy /models/m/ --kv-budget-tokens 9000"),
    "from a folder with a space": (Spec("m", "/my models/m"), "thunderline deploy '/my models/m'"),
}


@pytest.mark.parametrize(("spec", "command"), COMMANDS.values(), ids=COMMANDS.keys())
def test_the_circuit_names_the_command_that_closes_it(spec: Spec, command: str) -> None:
    given_up = replace(FIVE_CRASHES, spec=spec)
    assert f"`{command}`" in reconcile(world(given_up, runner()), NOW_S, WAITS).standings[I1].reason


def test_a_wait_says_the_same_a_second_later() -> None:
    seen = world(wish(*(epoch(n, 990.0 + n / 10, Cause("S", "x", R.STARTING)) for n in range(1, 9))), runner())
    assert reconcile(seen, NOW_S, WAITS).standings == reconcile(seen, NOW_S + 1, WAITS).standings
