import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.rank.admission import fits, padded_tokens
from thunderline.rank.engine import Engine
from thunderline.rank.sampler import Params
from thunderline.rank.values import Insert


@pytest.mark.parametrize(
    ("running", "tokens", "held", "expected"),
    [
        pytest.param([], 1000, 0, True, id="one that fills the budget exactly"),
        pytest.param([], 1001, 0, False, id="one token too many"),
        pytest.param([500], 500, 0, True, id="two of the same length"),
        pytest.param([501], 400, 0, False, id="a short one is padded to the long one's length"),
        pytest.param([10] * 9, 200, 0, False, id="and short ones that run are padded to a long newcomer's"),
        pytest.param([100] * 9, 100, 0, True, id="ten of the same length"),
        pytest.param([100], 100, 801, False, id="what is parked takes its room"),
    ],
)
def test_fits(running: Sequence[int], tokens: int, held: int, expected: bool) -> None:
    assert fits(running, tokens, held, budget_tokens=1000) is expected


@given(st.lists(st.integers(1, 1200), max_size=32), st.integers(1, 1200), st.integers(0, 1000))
def test_never_more_than_the_budget(running: list[int], tokens: int, held: int) -> None:
    if fits(running, tokens, held, budget_tokens=1000):
        assert padded_tokens([*running, tokens]) + held <= 1000
        assert sum(running) + tokens <= 1000


BUDGET_TOKENS = 1000


def held(rows: Sequence[int]) -> int:
    """Each row is as long as the longest."""
    return len(rows) * max(rows, default=0)


@dataclass
class Line:
    """Sequences by number of arrival. Whoever came first starts first, as soon as there is room."""

    tokens: dict[int, int] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)

    def rows(self) -> list[int]:
        return [self.tokens[one] for one in self.running]

    def arrive(self, tokens: int) -> None:
        number = len(self.tokens)
        self.tokens[number] = tokens
        self.waiting.append(number)
        self.turn()

    def end(self, which: int) -> None:
        if self.running:
            self.running.pop(which % len(self.running))
            self.turn()

    def turn(self) -> None:
        while self.waiting and fits(self.rows(), self.tokens[self.waiting[0]], 0, BUDGET_TOKENS):
            self.running.append(self.waiting.pop(0))
            self.started.append(self.running[-1])


# An arrival of so many tokens, or (0, which) the end of one that runs.
ARRIVAL, END = st.tuples(st.integers(1, BUDGET_TOKENS), st.just(0)), st.tuples(st.just(0), st.integers(0, 40))


@given(st.lists(ARRIVAL | END, max_size=60))
def test_whoever_arrives_gets_a_turn_in_order_and_the_budget_holds(story: list[tuple[int, int]]) -> None:
    line = Line()

    def check() -> None:
        assert held(line.rows()) <= BUDGET_TOKENS
        assert line.started == list(range(len(line.started)))
        assert line.running or not line.waiting, "the machine is idle while somebody waits"

    for tokens, which in story:
        if tokens:
            line.arrive(tokens)
        else:
            line.end(which)
        check()
    # Nobody starves: when nobody comes any more, each end of the one that runs longest lets the line move on.
    for _ in line.tokens:
        line.end(0)
        check()
    assert len(line.started) == len(line.tokens)


@dataclass
class Watched:
    """What an engine has admitted, looked at in each of its steps, when it has just done so. Keys grow by arrival."""

    budget_tokens: int
    batch_size_max: int
    kv_tokens: dict[int, int] = field(default_factory=dict)
    started: list[int] = field(default_factory=list)
    waited_count: int = 0

    def look(self, engine: Engine) -> None:
        count = engine.report().running_count
        running, waiting = engine.running_keys[:count], engine.running_keys[count:]
        rows = [self.kv_tokens[key] for key in running]
        assert held(rows) <= self.budget_tokens
        assert engine.report().kv_tokens <= self.budget_tokens, "with the cache"
        self.started += sorted(set(running) - set(self.started))
        assert self.started == sorted(self.started)
        assert all(key < min(waiting, default=key + 1) for key in self.started)
        if waiting and len(running) < self.batch_size_max:
            assert held([*rows, self.kv_tokens[waiting[0]]]) > self.budget_tokens, "there was room"
        self.waited_count += bool(waiting)


def test_an_engine_admits_in_order_whoever_comes_and_leaves(tiny: Any) -> None:
    watched = Watched(budget_tokens=120, batch_size_max=6)
    engine = Engine(tiny, [511], 120, batch_size_max=6, on_step=watched.look)
    draw = random.Random(3)
    left: set[int] = set()
    ended: set[int] = set()
    for key in range(1, 41):
        prompt = tuple(draw.choices(range(3, 500), k=draw.choice([1, 5, 12, 40, 90])))
        insert = Insert(key, f"request {key}", prompt, (), Params(), draw.randint(1, 12), ignore_eos=True)
        watched.kv_tokens[key] = insert.kv_tokens
        engine.insert(insert)
        for _ in range(draw.choice([0, 0, 1, 4])):
            if engine.has_work:
                ended |= {news.key for news in engine.step().news if news.finish}
        if engine.running_keys and draw.random() < 0.3:
            gone = draw.choice(engine.running_keys)
            engine.remove(gone)
            left.add(gone)
    for _ in range(1000):
        if not engine.has_work:
            break
        ended |= {news.key for news in engine.step().news if news.finish}
    assert ended | left == set(watched.kv_tokens) and not ended & left
    assert watched.waited_count > 10, "there was room for all, all the time"
