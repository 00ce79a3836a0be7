"""Memory that one deployment is promised, no other gets: not between two starts, nor while a start is written down."""

from dataclasses import replace

import pytest

from scheduler.scenes import CRASHED, GIB, I1, I2, MODEL, NOW_S, STOPPED, USABLE, WAITS, A, epoch, runner, wish
from thunderline.cluster import InstanceId
from thunderline.scheduler.actions import StartEpoch
from thunderline.scheduler.reconciler import reconcile
from thunderline.scheduler.reservations import KEPT_S
from thunderline.scheduler.values import Wish, World

# One of them fits, two do not.
NARROW = replace(USABLE, usable_memory_bytes=8 * GIB)
RIVAL = wish(instance=I2, name="a rival, first by name")


def starts(mine: Wish, starting: bool = False, now_s: float = NOW_S) -> set[InstanceId]:
    found = World(
        wishes=(RIVAL, mine),
        runners={A: runner()},
        audits={(A, MODEL): replace(NARROW, at_s=now_s)},
        starting={I1: (A, 5 * GIB)} if starting else {},
    )
    decision = reconcile(found, now_s, WAITS)
    return {action.instance for action in decision.actions if isinstance(action, StartEpoch)}


@pytest.mark.parametrize(
    ("mine", "starting", "after_s", "started"),
    [
        pytest.param(wish(), False, 0.0, {I2}, id="who comes first starts first"),
        pytest.param(wish(), True, 0.0, {I1}, id="but not where another start is being written down"),
        pytest.param(wish(epoch(4, NOW_S, CRASHED)), False, 0.1, set(), id="a crashed one keeps its place"),
        pytest.param(wish(epoch(4, NOW_S, CRASHED)), False, 60.0, {I1}, id="and starts there"),
        pytest.param(wish(epoch(4, NOW_S, CRASHED)), False, KEPT_S + 1, {I2}, id="not for ever"),
        pytest.param(wish(epoch(4, NOW_S, STOPPED)), False, 0.1, {I2}, id="one that was stopped has no claim"),
        pytest.param(
            wish(epoch(4, NOW_S, CRASHED), undeploying=True), False, 0.1, {I2}, id="nor one that is undeployed"
        ),
    ],
)
def test_who_starts(mine: Wish, starting: bool, after_s: float, started: set[InstanceId]) -> None:
    assert starts(mine, starting, NOW_S + after_s) == started
