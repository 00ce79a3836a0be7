"""The benchmark's order and figures."""

import itertools

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from thunderline.cli.bench.cells import BARE, OURS, PEER, Cell, Run, cells, order, percentile, prompts, summary, warm_up
from thunderline.cli.bench.contenders import long_steps

STREAMS, SEEDED, BESIDE, EIGHT, TWICE, HOP = cells([4], [8], waits=True, hop=True)


def run(tokens_per_s: float = 10, cpu_s: float | None = None, firsts: tuple[float, ...] = (0.1, 0.3)) -> Run:
    return Run(100, 100 / tokens_per_s, firsts, gap_p95_s=0.02, gap_max_s=0.05, cpu_outside_s=cpu_s)


def rounds_of(cell: Cell, **runs: Run) -> list[dict[str, Run]]:
    """One round; turns that are not named are like all others."""
    return [{turn.name: runs.get(turn.name.replace(" ", "_"), run()) for turn in cell.turns}]


def test_cells_cover_every_load_once() -> None:
    names = [cell.name for cell in cells([1, 8], [8], waits=True, hop=True)]
    assert names == [
        "1 streams",
        "8 streams",
        "8 seeded streams",
        "1500 tokens beside 4 streams",
        "8 x 1000 tokens beside 4 streams",
        "1000 tokens twice",
        "8 streams of a tiny model",
    ]


def test_greedy_and_sampled_are_taken_side_by_side() -> None:
    names = {f"{who} {kind}" for who in (BARE, PEER, OURS) for kind in ("greedy", "sampled")}
    assert {turn.name for turn in STREAMS.turns} == names


def test_every_turn_goes_first_and_follows_others_equally_often() -> None:
    orders = [order(STREAMS, number) for number in range(12)]
    assert {[one[0] for one in orders].count(turn) for turn in STREAMS.turns} == {2}
    pairs = [pair for one in orders for pair in itertools.pairwise(one)]
    assert all(pairs.count((a, b)) == pairs.count((b, a)) for a, b in pairs)


def test_each_shape_is_warmed_up_once() -> None:
    assert len(warm_up(STREAMS)) == len(STREAMS.turns)
    assert [turn.contender for turn in warm_up(BESIDE)] == [OURS, BARE]


def test_a_seeded_cell_has_no_bare_loop() -> None:
    assert {turn.contender for turn in SEEDED.turns} == {PEER, OURS}


def test_who_is_compared_gets_the_same_prompts_and_nobody_gets_one_twice() -> None:
    for name in (BARE, PEER, OURS):
        mine = [turn for turn in STREAMS.turns if turn.contender == name]
        made = [prompt for n in range(3) for turn in mine for prompt in prompts(STREAMS, n, turn, 4)]
        assert len({prompt[:6] for prompt in made}) == len(made)
    greedy = [turn for turn in STREAMS.turns if turn.name.endswith("greedy")]
    assert len({tuple(prompts(STREAMS, 0, turn, 4)) for turn in greedy}) == 1


def test_the_ratio_is_taken_within_a_round() -> None:
    rounds = [
        *rounds_of(STREAMS, bare_greedy=run(10), ours_greedy=run(9)),
        # The machine was ten times faster: the ratio is not.
        *rounds_of(STREAMS, bare_greedy=run(100), ours_greedy=run(95)),
        *rounds_of(STREAMS, bare_greedy=run(10), ours_greedy=run(10)),
    ]
    assert summary(STREAMS, rounds)["ours_to_bare_greedy"]["median"] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("cell", "runs", "figure", "expected"),
    [
        pytest.param(
            STREAMS,
            {"ours_sampled": run(9.5), "ours_greedy": run(10)},
            "ours_sampled_to_greedy",
            0.95,
            id="what sampling costs us",
        ),
        pytest.param(STREAMS, {"ours_sampled": run(12)}, "ours_to_peer_sampled", 1.2, id="against the server"),
        pytest.param(
            STREAMS,
            {"ours_greedy": run(firsts=(0.112, 0.5))},
            "first_token_later_than_bare_ms",
            12,
            id="how much later the first token comes",
        ),
        pytest.param(SEEDED, {"ours": run(40)}, "ours_to_peer", 4, id="with seeds"),
        pytest.param(
            BESIDE,
            {
                "chunks_of_64": run(firsts=(12.0,)),
                "chunks_of_512": run(firsts=(10.0,)),
                "chunks_of_128": run(firsts=(11.0,)),
                "ours": run(firsts=(12.5,)),
            },
            "first_token_to_best_chunk",
            1.25,
            id="a long prompt against the best chunk",
        ),
        pytest.param(
            EIGHT,
            {"all_at_once": run(firsts=(47.0, 48.0)), "ours": run(firsts=(60.0, 12.0))},
            "first_answer_to_all_at_once",
            0.255,
            id="the first of eight long prompts",
        ),
        pytest.param(TWICE, {"ours": run(firsts=(4.0, 0.2))}, "second_time_to_first", 0.05, id="a prompt again"),
        # 49 steps after the first tokens, which do not count: 200 ms, and 298 ms.
        pytest.param(
            HOP,
            {"engine": run(100 / 0.5), "runner": run(100 / 0.698, firsts=(0.2, 0.4))},
            "runner_adds_ms_per_step",
            2,
            id="the hop",
        ),
    ],
)
def test_figures(cell: Cell, runs: dict[str, Run], figure: str, expected: float) -> None:
    assert summary(cell, rounds_of(cell, **runs))[figure]["median"] == pytest.approx(expected, abs=1e-3)


def test_cpu_is_told_per_token() -> None:
    found = summary(STREAMS, rounds_of(STREAMS, ours_greedy=run(cpu_s=0.2)))
    assert found["ours greedy"]["cpu_ms_per_token_outside"] == pytest.approx(2.0)


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


def test_steps_of_more_than_a_second_are_counted_from_the_runners_metrics() -> None:
    registry = CollectorRegistry()
    steps = Histogram("thunderline_step_seconds", "Engine steps.", buckets=(0.5, 1, 2), registry=registry)
    for seconds in (0.1, 0.9, 1.0, 1.1, 7):
        steps.observe(seconds)
    assert long_steps(generate_latest(registry).decode()) == 2
    assert long_steps("") == 0
