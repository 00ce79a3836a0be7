"""The benchmark's order and figures."""

import pytest

from thunderline.cli.bench.cells import BARE, OURS, PEER, Cell, Run, cells, order, percentile, prompts, summary


def run(tokens_per_s: float, cpu_s: float | None = None) -> Run:
    return Run(tokens=100, wall_s=100 / tokens_per_s, first_token_s=(0.1, 0.3), gap_p95_s=0.02, cpu_outside_s=cpu_s)


def test_every_contender_goes_first_equally_often() -> None:
    cell = Cell(streams=4, sampled=False)
    firsts = [order(cell, number)[0] for number in range(9)]
    assert {firsts.count(name) for name in (BARE, PEER, OURS)} == {3}


def test_a_seeded_cell_has_no_bare_loop() -> None:
    assert set(order(Cell(8, sampled=True, seeded=True), 0)) == {PEER, OURS}


def test_no_two_prompts_share_a_beginning() -> None:
    cell = Cell(streams=8, sampled=True)
    made = [prompt for n in range(3) for who in (BARE, PEER, OURS) for prompt in prompts(cell, n, who)]
    assert len({prompt[:6] for prompt in made}) == len(made)
    assert made[:8] == prompts(cell, 0, BARE), "the same run asks the same"


def test_the_ratio_is_taken_within_a_round() -> None:
    rounds = [
        {BARE: run(10), OURS: run(9)},
        {BARE: run(100), OURS: run(95)},  # the machine was ten times faster: the ratio is not
        {BARE: run(10), OURS: run(10)},
    ]
    assert summary(rounds)["ours_to_bare"]["median"] == pytest.approx(0.95)


def test_cpu_is_told_per_token() -> None:
    found = summary([{OURS: run(10, cpu_s=0.2)}])
    assert found[OURS]["cpu_ms_per_token_outside"] == pytest.approx(2.0)


def test_cells_cover_every_load_once() -> None:
    names = [cell.name for cell in cells([1, 8], [8])]
    assert names == ["1-greedy", "1-sampled", "8-greedy", "8-sampled", "8-seeded"]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        pytest.param([], 0.5, 0.0, id="nothing_is_zero"),
        pytest.param([3.0, 1.0, 2.0], 0.5, 2.0, id="the_middle_of_three"),
        pytest.param([1.0, 2.0], 0.95, 2.0, id="the_last_of_two"),
    ],
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected
