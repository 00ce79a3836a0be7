"""Which commands are asked when."""

import itertools
from dataclasses import dataclass

import pytest

from process.macos.little_mac import ANSWERS
from thunderline.process.macos import outputs, system
from thunderline.process.macos.commands import (
    CHANGE_GAP_S,
    MAC,
    MLX,
    PERIOD_S,
    SELDOM_S,
    SETTLED_S,
    Command,
    Run,
    RunState,
    commands,
    due,
    holds,
    lost,
    state,
)
from thunderline.process.macos.outputs import Output

USUAL = Command(("rdma_ctl", "status"))
OF_INTERFACES = Command(("ifconfig",), follows_interfaces=True)
ONCE = Command(("thunderline", "rank", "--probe"), once=system.mlx)
UNDER_WAY, ANSWERED, FAILED, HUNG = RunState


@dataclass(frozen=True)
class Case:
    command: Command
    last: Run | None
    changed_s: float | None
    now_s: float
    is_due: bool


CASES: dict[str, Case] = {
    "one that was never run": Case(USUAL, None, None, 0.0, True),
    "one that has just answered": Case(USUAL, Run(100.0, ANSWERED), None, 100.5, False),
    "one whose period is nearly over": Case(USUAL, Run(100.0, ANSWERED), None, 100.0 + PERIOD_S - 0.1, False),
    "one whose period is over": Case(USUAL, Run(100.0, ANSWERED), None, 100.0 + PERIOD_S, True),
    "one that runs, however long": Case(USUAL, Run(100.0, UNDER_WAY), None, 10_000.0, False),
    "one that runs, though the interfaces change": Case(OF_INTERFACES, Run(100.0, UNDER_WAY), 150.0, 160.0, False),
    "one that failed waits for its period too": Case(USUAL, Run(100.0, FAILED), None, 130.0, False),
    "one that failed, after its period": Case(USUAL, Run(100.0, FAILED), None, 100.0 + PERIOD_S, True),
    "one that hung waits for its period": Case(USUAL, Run(100.0, HUNG), None, 130.0, False),
    "one that hung, after its period": Case(USUAL, Run(100.0, HUNG), None, 100.0 + PERIOD_S, True),
    "one that hung is not asked for a change": Case(OF_INTERFACES, Run(100.0, HUNG), 120.0, 121.0, False),
    "the interfaces have changed": Case(OF_INTERFACES, Run(100.0, ANSWERED), 120.0, 120.0, True),
    "they have changed, and it had failed": Case(OF_INTERFACES, Run(100.0, FAILED), 120.0, 120.0, True),
    "they have changed, and it does not follow them": Case(USUAL, Run(100.0, ANSWERED), 120.0, 120.0, False),
    "they have changed right after it was asked": Case(OF_INTERFACES, Run(100.0, ANSWERED), 101.0, 101.0, False),
    "they have, and it was asked a little while ago": Case(
        OF_INTERFACES, Run(100.0, ANSWERED), 101.0, 100.0 + CHANGE_GAP_S, True
    ),
    "they had changed before it was asked": Case(OF_INTERFACES, Run(100.0, ANSWERED), 99.0, 107.0, False),
    "they had, and what is plugged in has settled now": Case(
        OF_INTERFACES, Run(100.0, ANSWERED), 99.0, 99.0 + SETTLED_S, True
    ),
    "it was asked after that": Case(OF_INTERFACES, Run(110.0, ANSWERED), 99.0, 116.0, False),
    "one answer is enough": Case(ONCE, Run(100.0, ANSWERED), None, 10_000.0, False),
    "one answer is enough, and there was none": Case(ONCE, Run(100.0, FAILED), None, 100.0 + PERIOD_S, True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_due(case: Case) -> None:
    runs = {case.command.line: case.last} if case.last is not None else {}
    expected = (case.command,) if case.is_due else ()
    assert due((case.command,), runs, case.changed_s, case.now_s) == expected


def timeline(length_s: float, changes_every_s: float | None = None, state: RunState = ANSWERED) -> dict[str, int]:
    """How often each is run when one looks twice a second, and each run ends at once."""
    runs: dict[str, Run] = {}
    count = dict.fromkeys((one.line for one in MAC), 0)
    changed_s = None
    for half in range(int(length_s * 2)):
        now_s = half / 2
        if changes_every_s and now_s % changes_every_s == 0 and now_s:
            changed_s = now_s
        for one in due(MAC, runs, changed_s, now_s):
            runs[one.line] = Run(now_s, state)
            count[one.line] += 1
    return count


ONCE_LINES = {outputs.MLX}
SELDOM_LINES = {outputs.SYSTEM_VERSION, outputs.POWER, outputs.FILEVAULT}
CHANGING_LINES = {
    outputs.THUNDERBOLT,
    outputs.HARDWARE_PORTS,
    outputs.SERVICE_ORDER,
    outputs.IFCONFIG,
    outputs.RDMA_DEVICES,
    outputs.RDMA_PORTS,
}


def test_at_rest_nothing_runs_more_often_than_it_can_change() -> None:
    for line, count in timeline(SELDOM_S).items():
        assert count == (1 if line in ONCE_LINES | SELDOM_LINES else SELDOM_S / PERIOD_S), line


def test_one_cable_costs_two_runs_of_what_tells_of_it() -> None:
    for line, count in timeline(PERIOD_S, changes_every_s=20.0).items():
        # At 0 s; at 20 and 40 s, and when each has settled.
        assert count == (5 if line in CHANGING_LINES else 1), line


def test_an_interface_that_comes_and_goes_is_followed_within_bounds() -> None:
    for line, count in timeline(PERIOD_S, changes_every_s=1.0).items():
        assert count == (PERIOD_S / CHANGE_GAP_S if line in CHANGING_LINES else 1), line


def test_what_hangs_is_never_asked_more_often_than_its_period() -> None:
    for line, count in timeline(PERIOD_S, changes_every_s=1.0, state=HUNG).items():
        assert count == 1, line


def test_a_last_answer_holds_for_three_periods_of_its_command() -> None:
    for one in MAC:
        assert holds(one, 100.0, 100.0 + 2.5 * one.every_s), one.line
        assert not holds(one, 100.0, 100.0 + 3 * one.every_s), one.line


@dataclass(frozen=True)
class End:
    command: Command
    output: Output
    is_hung: bool
    state: RunState


ENDS: dict[str, End] = {
    "an answer": End(USUAL, Output("enabled\n"), False, ANSWERED),
    "nonsense is an answer": End(USUAL, Output("?"), False, ANSWERED),
    "no answer": End(USUAL, Output(problem="ended with 1"), False, FAILED),
    "no end": End(USUAL, Output(problem="took longer than 5 s"), True, HUNG),
    "one answer that is enough": End(ONCE, Output('{"backends": []}'), False, ANSWERED),
    "nonsense is not enough": End(ONCE, Output("Killed"), False, FAILED),
    "half an answer is not enough": End(ONCE, Output('{"backends": 1}'), False, FAILED),
    "no answer where one is enough": End(ONCE, Output(problem="ended with 1"), False, FAILED),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_how_a_run_ended(end: End) -> None:
    assert state(end.command, end.output, is_hung=end.is_hung) is end.state


# It has answered at 100 s, and holds until 280 s. The last run; now; whether the answer is lost.
LOST: dict[str, tuple[Run | None, float, bool]] = {
    "it hung, a while ago": (Run(160.0, HUNG), 279.0, False),
    "it hung, and that was long ago": (Run(160.0, HUNG), 280.0, True),
    "it failed, long ago": (Run(160.0, FAILED), 280.0, True),
    "it hangs, and cannot be killed": (Run(160.0, UNDER_WAY), 280.0, True),
    "it has been asked again just now": (Run(276.0, UNDER_WAY), 280.0, False),
    "it has been, and its time is over": (Run(274.0, UNDER_WAY), 280.0, True),
    "it was fine": (Run(160.0, ANSWERED), 280.0, False),
    "it was not asked again": (None, 280.0, False),
}


@pytest.mark.parametrize(("last", "now_s", "is_lost"), LOST.values(), ids=LOST.keys())
def test_what_a_command_has_answered_last_is_lost(last: Run | None, now_s: float, is_lost: bool) -> None:
    assert lost(USUAL, 100.0, last, now_s) == ("took longer than 5 s" if is_lost else "")


def test_the_order_is_that_of_the_commands() -> None:
    for few in itertools.permutations((USUAL, OF_INTERFACES, ONCE)):
        assert due(few, {}, None, 0.0) == few


def test_a_mac_is_asked_for_the_service_of_each_bridge_once_they_are_known() -> None:
    order = outputs.SERVICE_ORDER
    assert commands("darwin", {}) == MAC
    assert commands("darwin", {order: Output(problem="took longer than 5 s")}) == MAC
    (asked,) = commands("darwin", {order: Output(ANSWERS[order])})[len(MAC) :]
    assert asked.words == ("networksetup", "-getnetworkserviceenabled", "Little Bridge")
    assert asked.line == "networksetup -getnetworkserviceenabled Little Bridge"
    assert asked.follows_interfaces


def test_other_systems_are_asked_what_their_mlx_can_do() -> None:
    assert commands("linux", {outputs.SERVICE_ORDER: Output(ANSWERS[outputs.SERVICE_ORDER])}) == (MLX,)


def test_every_command_has_its_time_and_its_own_line() -> None:
    assert len({one.line for one in MAC}) == len(MAC)
    assert all(0 < one.timeout_s < one.every_s for one in MAC)
    # Whoever waits for all of them waits no longer than this.
    assert max(one.timeout_s for one in MAC if not one.is_heavy) <= 10
