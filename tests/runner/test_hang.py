import pytest

from thunderline.cluster.rank_map import RankMark, Stand
from thunderline.cluster.ranks import RankState
from thunderline.runner.hang import LATE_S, UNTAKEN_S, AwakeClock, Watched, hangs_s, look


def mark(step: int = 7, stand: Stand = Stand.COMPUTE, allowed_s: float = 11.0) -> RankMark:
    return RankMark(state=RankState.READY, step=step, stand=stand, entered_s=500.0, deadline_s=500.0 + allowed_s)


@pytest.mark.parametrize(
    ("seen", "has_work", "after_s", "hangs"),
    [
        pytest.param(mark(), True, 10.9, False, id="a step may take what the rank allows it"),
        pytest.param(mark(), True, 11.1, True, id="and no longer"),
        pytest.param(mark(), False, 11.1, True, id="whoever waits for it"),
        pytest.param(mark(allowed_s=60), True, 59.0, False, id="a long prompt is no hang"),
        pytest.param(mark(stand=Stand.IDLE), False, 9999.0, False, id="who has no work does not hang"),
        pytest.param(mark(stand=Stand.IDLE), True, UNTAKEN_S - 0.1, False, id="work may wait a little"),
        pytest.param(mark(stand=Stand.IDLE), True, UNTAKEN_S + 0.1, True, id="but is taken up by who lives"),
    ],
)
def test_hang(seen: RankMark, has_work: bool, after_s: float, hangs: bool) -> None:
    watched = look(None, seen, has_work, 100.0)
    watched = look(watched, seen, has_work, 100.0 + after_s)
    assert (hangs_s(watched, seen, 100.0 + after_s) is not None) is hangs


@pytest.mark.parametrize(
    ("after", "has_work", "since_s"),
    [
        pytest.param(mark(), True, 100.0, id="nothing has moved"),
        pytest.param(mark(step=8), True, 105.0, id="a step"),
        pytest.param(mark(stand=Stand.IDLE), True, 105.0, id="the step has ended"),
        pytest.param(mark(), False, 105.0, id="nobody waits any more"),
    ],
)
def test_any_move_begins_anew(after: RankMark, has_work: bool, since_s: float) -> None:
    assert look(Watched(7, Stand.COMPUTE, True, 100.0), after, has_work, 105.0).since_s == since_s


def test_a_rank_without_a_deadline_is_left_in_peace() -> None:
    seen = RankMark(stand=Stand.COMPUTE)
    assert hangs_s(look(None, seen, True, 0.0), seen, 1e6) is None


def test_a_machine_that_slept_makes_nobody_late() -> None:
    clock = AwakeClock()
    assert [clock.tick(at_s) for at_s in (1000.0, 1000.5, 1015.5, 1016.0)] == [0.0, 0.5, 0.5 + LATE_S, 1.0 + LATE_S]
