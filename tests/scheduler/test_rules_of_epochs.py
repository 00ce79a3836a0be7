"""Rules about attempts, crashes and files, each of which was once broken."""

import math
from dataclasses import replace

import pytest

from scheduler.scenes import (
    CRASHED,
    FETCHABLE,
    FIVE_CRASHES,
    GIB,
    I1,
    MODEL,
    NEW,
    NOW_S,
    PERMANENT,
    RECOGNISED,
    SERVED,
    STARTED,
    USABLE,
    WAITS,
    A,
    B,
    R,
    S,
    epoch,
    rank,
    runner,
    wish,
    world,
)
from scheduler.test_attempts import WAIT_MAX_S, WAIT_MIN_S, attempt_at, crash_at
from scheduler.test_attempts import epoch as over
from thunderline.cluster import NodeId
from thunderline.scheduler import reservations
from thunderline.scheduler.actions import Action, AuditModel, MakePrepared, StartEpoch
from thunderline.scheduler.attempts import Next, next_attempt
from thunderline.scheduler.reconciler import reconcile
from thunderline.scheduler.values import Audit, Cause, DeploymentState, Epoch, Fetch, RunnerView, Spec, Standing, World

NOW = replace(USABLE, at_s=NOW_S)
FIVE = FIVE_CRASHES.epochs


def run(seen: World) -> tuple[Standing, list[Action]]:
    decision = reconcile(seen, NOW_S, WAITS)
    return decision.standings[I1], list(decision.actions)


def test_a_healthy_epoch_is_not_one_of_the_five_crashes() -> None:
    row = [over(10, R.READY, lasted_s=9, answered=True, served_s=5), *crash_at(20, 30, 40, 50)]
    assert next_attempt(row, 0, WAIT_MIN_S, WAIT_MAX_S).next is Next.AT


def test_ten_minutes_of_attempts_use_them_up() -> None:
    assert next_attempt(attempt_at(10, 300, 611), 0, WAIT_MIN_S, WAIT_MAX_S).used_up


def test_a_crash_after_eight_attempts_has_not_used_them_up() -> None:
    found = next_attempt([*attempt_at(*range(10, 90, 10)), *crash_at(100)], 0, WAIT_MIN_S, WAIT_MAX_S)
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
    for age_s in (10.0, 30.0):
        seen = world(STARTED, runner(rank(4, R.STARTING)), age_s=age_s)
        assert reconcile(seen, NOW_S, WAITS).look_again_s == pytest.approx(WAITS.prepare_s - age_s)


HOUR_S = 3600.0
AN_HOUR_BACK = {
    "the next attempt": world(wish(epoch(4, NOW_S + HOUR_S, CRASHED)), runner(), audit=replace(USABLE, at_s=NOW_S)),
    "an audit of what does not fit": world(NEW, runner(), audit=replace(USABLE, usable_memory_bytes=1, at_s=NOW_S + 9)),
    "a failed fetch": world(NEW, runner(), audit=FETCHABLE, fetch=Fetch(error="no network", at_s=NOW_S + HOUR_S)),
    "an epoch that its runner forgot": world(
        wish(replace(epoch(4), started_s=NOW_S + HOUR_S)), runner(), age_s=WAITS.prepare_s
    ),
}


@pytest.mark.parametrize("seen", AN_HOUR_BACK.values(), ids=AN_HOUR_BACK.keys())
def test_nothing_waits_for_an_hour_by_which_the_clock_was_set_back(seen: World) -> None:
    """What is waited for is at most two minutes, and its beginning is to come."""
    _, actions = run(seen)
    assert [type(action) for action in actions] != [], "it goes on"
    assert not any(isinstance(action, MakePrepared) for action in actions)


def test_memory_is_not_kept_for_an_hour_by_which_the_clock_was_set_back() -> None:
    failed = wish(epoch(4, NOW_S + HOUR_S, CRASHED))
    tries = {I1: next_attempt(failed.epochs, 0, WAIT_MIN_S, WAIT_MAX_S)}
    assert reservations.kept(world(failed), tries, NOW_S) == {}
    assert reservations.kept(world(failed), tries, NOW_S + HOUR_S + 1) != {}


BOTH = {A: runner(), B: runner(node=B)}
B_AWAY = {A: runner(), B: runner(reachable=False, node=B)}
NODES: dict[str, tuple[dict[NodeId, RunnerView], dict[NodeId, Audit], tuple[Epoch, ...], NodeId | None]] = {
    "another node closes the circuit": (BOTH, {A: NOW, B: NOW}, FIVE, B),
    "also when that of the crashes is away": ({B: runner(node=B)}, {B: NOW}, FIVE, B),
    "one that cannot be reached does not": (
        B_AWAY,
        {A: NOW, B: NOW},
        FIVE,
        None,
    ),
    "nor one without its files": (
        BOTH,
        {A: NOW, B: replace(FETCHABLE, at_s=NOW_S)},
        FIVE,
        None,
    ),
    "nor one without room": (
        BOTH,
        {A: NOW, B: replace(NOW, usable_memory_bytes=GIB)},
        FIVE,
        None,
    ),
    "nor one where it has failed too": (
        BOTH,
        {A: NOW, B: NOW},
        (replace(FIVE[0], node=B), *FIVE[1:]),
        None,
    ),
    "one where it served before does": (
        BOTH,
        {A: NOW, B: NOW},
        (replace(epoch(0, 980.0, CRASHED, ready_s=940.0), node=B, answered=True), *FIVE),
        B,
    ),
}


@pytest.mark.parametrize(("runners", "audits", "epochs", "node"), NODES.values(), ids=NODES.keys())
def test_a_node_on_which_it_has_not_failed_closes_the_circuit(
    runners: dict[NodeId, RunnerView], audits: dict[NodeId, Audit], epochs: tuple[Epoch, ...], node: NodeId | None
) -> None:
    known = {(at, MODEL): audit for at, audit in audits.items()}
    standing, actions = run(World((wish(*epochs),), runners, known))
    starts = [action.node for action in actions if isinstance(action, StartEpoch)]
    assert starts == ([node] if node else [])
    assert (standing.state is S.CRASH_LOOP) is (node is None)
    assert node or standing.waits_for == "another deploy, other files or another node"


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


EARLY = replace(RECOGNISED, state=R.STARTING)
HINTED: dict[str, tuple[tuple[Epoch, ...], DeploymentState]] = {
    "before the next epoch": ((epoch(4, NOW_S - 0.1, RECOGNISED),), S.WAITING),
    "when the circuit is open": (tuple(replace(one, cause=RECOGNISED) for one in FIVE), S.CRASH_LOOP),
    "when its attempts are used up": (
        tuple(epoch(number, NOW_S - 9 + number, EARLY) for number in range(1, 9)),
        S.WAITING,
    ),
    "of a cause for good": ((epoch(4, NOW_S - 5, replace(RECOGNISED, permanent=True)),), S.IMPOSSIBLE),
}


@pytest.mark.parametrize(("epochs", "state"), HINTED.values(), ids=HINTED.keys())
def test_a_recognised_end_is_told_with_its_likely_cause_and_its_remedy_once(
    epochs: tuple[Epoch, ...], state: DeploymentState
) -> None:
    standing, _ = run(world(wish(*epochs), runner(), audit=NOW))
    assert standing.state is state
    assert standing.reason.count(": likely the GPU waited (mlx#3830); send fewer") == 1


def test_of_an_end_that_nobody_has_met_no_cause_is_guessed() -> None:
    standing, _ = run(world(wish(epoch(4, NOW_S - 0.1, CRASHED)), runner(), audit=NOW))
    assert "likely" not in standing.reason
