import pytest

from thunderline.cluster.rank_map import RankMark, Stand
from thunderline.cluster.ranks import RankState
from thunderline.runner.hang import UNATTACHED_S, UNTAKEN_S, is_idle, look, why


def mark(step: int = 7, stand: Stand = Stand.COMPUTE, allowed_s: float = 11.0, entered_s: float = 500.0) -> RankMark:
    deadline_s = entered_s + allowed_s if allowed_s else 0.0
    return RankMark(state=RankState.READY, step=step, stand=stand, entered_s=entered_s, deadline_s=deadline_s)


IDLE = mark(stand=Stand.IDLE)


@pytest.mark.parametrize(
    ("seen", "has_work", "attached", "after_s", "hangs"),
    [
        pytest.param(mark(), True, True, 10.9, False, id="a step may take what the rank allows it"),
        pytest.param(mark(), True, True, 11.1, True, id="and no longer"),
        pytest.param(mark(), False, True, 11.1, True, id="whoever waits for it"),
        pytest.param(mark(allowed_s=60), True, True, 59.0, False, id="a long prompt is no hang"),
        pytest.param(mark(allowed_s=0), True, True, 1e6, False, id="a rank without a deadline is left in peace"),
        pytest.param(IDLE, False, True, 9999.0, False, id="who has no work does not hang"),
        pytest.param(IDLE, True, True, UNTAKEN_S - 0.1, False, id="work may wait a little"),
        pytest.param(IDLE, True, True, UNTAKEN_S + 0.1, True, id="but is taken up by who lives"),
        pytest.param(IDLE, False, False, UNATTACHED_S - 0.1, False, id="a stream may break"),
        pytest.param(IDLE, False, False, UNATTACHED_S + 0.1, True, id="but who lives dials again"),
    ],
)
def test_hang(seen: RankMark, has_work: bool, attached: bool, after_s: float, hangs: bool) -> None:
    watched = look(None, seen, has_work, attached, 100.0)
    watched = look(watched, seen, has_work, attached, 100.0 + after_s)
    assert (why(watched, seen, 100.0 + after_s) is not None) is hangs


@pytest.mark.parametrize(
    ("after", "since_s"),
    [
        pytest.param(mark(), 100.0, id="nothing has moved"),
        pytest.param(mark(step=8), 105.0, id="a step"),
        pytest.param(IDLE, 105.0, id="the step has ended"),
        pytest.param(mark(entered_s=501.0), 105.0, id="it has looked about"),
    ],
)
def test_any_move_begins_anew(after: RankMark, since_s: float) -> None:
    assert look(look(None, mark(), True, True, 100.0), after, True, True, 105.0).since_s == since_s


def test_a_stream_that_breaks_under_a_hung_step_changes_nothing() -> None:
    watched = look(None, mark(), True, True, 100.0)
    for at_s, has_work, attached in ((105.0, True, False), (106.0, False, False), (111.5, False, False)):
        watched = look(watched, mark(), has_work, attached, at_s)
    assert "no step for 12 s" in (why(watched, mark(), 111.5) or "")


def test_clients_that_give_up_do_not_make_an_idle_rank_well() -> None:
    watched = look(None, IDLE, True, True, 100.0)
    for at_s in range(101, 111):
        watched = look(watched, IDLE, at_s % 2 == 0, True, float(at_s))
        assert not is_idle(watched)
    assert why(watched, IDLE, 110.5) is not None


def test_an_idle_rank_that_takes_what_needs_no_step_is_well() -> None:
    watched = look(None, IDLE, True, True, 100.0)
    watched = look(watched, mark(stand=Stand.IDLE, entered_s=501.0), False, True, 109.0)
    assert is_idle(watched)


def test_one_that_dials_in_again_is_well() -> None:
    watched = look(look(None, IDLE, False, False, 100.0), IDLE, False, True, 109.0)
    assert why(look(watched, IDLE, False, False, 111.0), IDLE, 111.5) is None
