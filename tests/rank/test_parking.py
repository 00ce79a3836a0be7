"""Parked sequences: found by their request, safe for a while, first to go, gone after a minute."""

from dataclasses import dataclass
from typing import Any

import pytest

from rank.test_engine import PROMPTS, SAMPLED, Story, alone, story
from thunderline.rank import wire
from thunderline.rank.parking import PARKED_S, SAFE_S, Parked, Parking
from thunderline.rank.values import Insert
from thunderline.v1 import cluster_pb2, rank_pb2


def parked(request_id: str = "a", since_s: float = 0.0, tokens: tuple[int, ...] = (7, 8, 9)) -> Parked[str]:
    return Parked(
        len(request_id), request_id, (1, 2), tokens, kv_tokens=10, since_s=since_s, kept=f"KV of {request_id}"
    )


def parking(*several: Parked[str]) -> Parking[str]:
    found: Parking[str] = Parking()
    for one in several:
        found.put(one)
    return found


@pytest.mark.parametrize(
    ("request_id", "prompt", "resumed", "found"),
    [
        pytest.param("a", (1, 2), (), True, id="nothing was delivered"),
        pytest.param("a", (1, 2), (7, 8), True, id="some was delivered"),
        pytest.param("a", (1, 2), (7, 8, 9), True, id="all was delivered"),
        pytest.param("a", (1, 2), (7, 9), False, id="the client has other tokens"),
        pytest.param("a", (1, 2), (7, 8, 9, 10), False, id="the client has more tokens"),
        pytest.param("a", (1, 3), (7,), False, id="another prompt"),
        pytest.param("b", (1, 2), (7,), False, id="another request"),
    ],
)
def test_take(request_id: str, prompt: tuple[int, ...], resumed: tuple[int, ...], found: bool) -> None:
    here = parking(parked())
    assert (here.take(request_id, prompt, resumed) is not None) is found
    assert here.take("a", (1, 2), ()) is None or request_id == "b", "taken once"


def test_the_young_are_safe_and_the_oldest_goes_first() -> None:
    here = parking(parked("old", 0.0), parked("older than safe", 1.0), parked("young", 100.0))
    now_s = 100.0 + SAFE_S - 0.1
    assert [here.give_way(now_s, "mine") for _ in range(3)] == [True, True, False]
    assert here.take("young", (1, 2), ()) is not None


def test_nobody_drives_out_what_it_comes_to_resume() -> None:
    here = parking(parked("mine", 0.0), parked("old", 1.0), parked("young", 100.0))
    now_s = 100.0 + SAFE_S - 0.1
    assert (here.kv_tokens, here.kv_tokens_beside("mine"), here.safe_kv_tokens(now_s, "mine")) == (30, 20, 10)
    assert [here.give_way(now_s, "mine") for _ in range(2)] == [True, False]
    assert here.holds("mine") and not here.holds("old")


def test_a_client_that_left_frees_it_at_once() -> None:
    here = parking(parked("a"), parked("bb"))
    here.remove(len("a"))
    assert here.take("a", (1, 2), ()) is None
    assert here.take("bb", (1, 2), ()) is not None


def test_a_minute_later_it_is_forgotten() -> None:
    here = parking(parked("old", 0.0), parked("new", 1.0))
    here.expire(PARKED_S)
    assert len(here) == 1
    assert here.kv_tokens == 10


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def lost_at(model: Any, number: int, delivered: int, **more: Any) -> tuple[Story, list[int]]:
    """A story in which the reader of one sequence is lost once so many tokens came, beside another that goes on."""
    one = story(model, **more)
    key = one.insert(PROMPTS[number], SAMPLED[number], top=2)
    one.insert(PROMPTS[5], SAMPLED[0])
    one.run(until=lambda: len(one.tokens[key]) >= delivered)
    one.engine.park(key)
    return one, one.tokens[key]


def resume(one: Story, number: int, delivered: list[int]) -> int:
    """The same request again, as a client does that has these tokens."""
    key = len(one.tokens) + 1
    one.tokens[key], one.logprobs[key] = [], []
    one.engine.insert(
        Insert(key, "request 1", PROMPTS[number], tuple(delivered), SAMPLED[number], 24, True, 2, ignore_eos=True)
    )
    return key


@pytest.mark.parametrize("number", range(len(PROMPTS)), ids=lambda number: f"sampling {number}")
@pytest.mark.parametrize("behind", [0, 3], ids=["all delivered", "three not delivered"])
def test_a_parked_sequence_goes_on_without_a_prefill(tiny: Any, number: int, behind: int) -> None:
    wanted = alone(tiny, PROMPTS[number], SAMPLED[number])
    one, had = lost_at(tiny, number, 8)
    assert one.engine.parked_count == 1
    delivered = had[: len(had) - behind]
    key = resume(one, number, delivered)
    prefilled = sum(report.prefill_tokens for report in one.reports)
    one.run()
    assert delivered + one.tokens[key] == wanted
    assert len(one.logprobs[key]) == len(one.tokens[key])
    assert one.engine.parked_count == 0
    assert sum(report.prefill_tokens for report in one.reports) == prefilled


def test_each_resume_is_told_again_what_was_cached_of_its_prompt(tiny: Any) -> None:
    prompt = PROMPTS[3] * 20
    one = story(tiny)
    one.insert(prompt)
    one.run()
    key = first = one.insert(prompt)
    had: list[int] = []
    for _ in range(2):
        one.run(until=lambda key=key: len(one.tokens[key]) >= 4)  # type: ignore[misc]
        assert one.cached[key] == len(prompt) - 1
        one.engine.park(key)
        had += one.tokens[key]
        key = len(one.tokens) + 1
        one.tokens[key], one.logprobs[key] = [], []
        one.engine.insert(Insert(key, f"request {first}", tuple(prompt), tuple(had), SAMPLED[0], 24, ignore_eos=True))
    one.run()
    assert one.cached[key] == len(prompt) - 1


def test_the_neighbours_of_a_parked_sequence_keep_their_tokens(tiny: Any) -> None:
    one, _ = lost_at(tiny, 3, 6)
    one.run()
    assert one.tokens[2] == alone(tiny, PROMPTS[5], SAMPLED[0])


def test_a_resume_whose_tokens_end_the_request_is_finished_at_once(tiny: Any) -> None:
    wanted = alone(tiny, PROMPTS[3], SAMPLED[3])
    one = story(tiny)
    first = one.insert(PROMPTS[3], SAMPLED[3])
    one.run(until=lambda: len(one.tokens[first]) >= 23)
    one.engine.park(first)
    key = resume(one, 3, wanted[:20])
    one.run()
    assert one.tokens[key] == wanted[20:]
    assert one.finish[key] == "length"


def test_a_sequence_that_has_not_begun_to_answer_is_not_parked(tiny: Any) -> None:
    one = story(tiny)
    key = one.insert(PROMPTS[5])
    one.engine.park(key)
    assert one.engine.parked_count == 0
    assert not one.engine.has_work


def test_parked_kv_gives_way_to_an_admitted_request_after_five_seconds(tiny: Any) -> None:
    clock = Clock()
    one, _ = lost_at(tiny, 3, 6, kv_budget_tokens=160, clock_s=clock)
    one.run()
    waiting = one.insert(PROMPTS[5], max_tokens=60)
    one.step()
    assert not one.tokens[waiting]
    assert one.engine.parked_count == 1, "safe for now"
    clock.now_s = SAFE_S
    one.run()
    assert one.engine.parked_count == 0
    assert len(one.tokens[waiting]) == 60


def test_parked_kv_expires(tiny: Any) -> None:
    clock = Clock()
    one, _ = lost_at(tiny, 3, 6, clock_s=clock)
    clock.now_s = PARKED_S
    one.engine.expire()
    assert one.engine.parked_count == 0


def test_where_one_runs_at_a_time_a_resume_waits_for_its_turn(tiny: Any) -> None:
    wanted = [alone(tiny, PROMPTS[number], SAMPLED[number]) for number in (3, 5)]
    one = story(tiny, batch_size_max=1)
    first = one.insert(PROMPTS[3], SAMPLED[3])
    one.run(until=lambda: len(one.tokens[first]) >= 8)
    one.engine.park(first)
    other = one.insert(PROMPTS[5], SAMPLED[5])
    one.step()
    key = resume(one, 3, one.tokens[first])
    one.run()
    assert max(report.running_count for report in one.reports) == 1
    assert one.tokens[other] == wanted[1]
    assert one.tokens[first] + one.tokens[key] == wanted[0]


@pytest.mark.parametrize(
    ("more", "order"),
    [
        pytest.param({"resume": True}, ["runs", "this", "new"], id="nothing was delivered"),
        pytest.param({"resume_token_ids": [7]}, ["runs", "this", "new"], id="a token was delivered"),
        pytest.param({}, ["runs", "new", "this"], id="a new one"),
    ],
)
def test_a_resume_goes_before_new_requests_though_nothing_is_parked(
    tiny: Any, more: dict[str, Any], order: list[str]
) -> None:
    one = story(tiny, batch_size_max=1)
    names = {one.insert(PROMPTS[3]): "runs", one.insert(PROMPTS[5]): "new", 9: "this"}
    one.step()
    given: dict[str, Any] = {"key": 9, "request_id": "lost", "prompt_token_ids": PROMPTS[3], "max_tokens": 4}
    one.engine.insert(wire.insert(rank_pb2.Insert(**given, sampling=cluster_pb2.Sampling(), **more)))
    assert [names[key] for key in one.engine.running_keys] == order


def test_a_resume_that_is_lost_while_it_waits_stays_parked_and_one_that_is_cancelled_does_not(tiny: Any) -> None:
    one, had = lost_at(tiny, 3, 8)
    again = resume(one, 3, had)
    one.engine.park(again)
    assert one.engine.parked_count == 1
    one.engine.remove(resume(one, 3, had))
    assert one.engine.parked_count == 0


def test_parked_ones_give_way_only_where_that_is_enough(tiny: Any) -> None:
    now_s = 0.0
    one = story(tiny, kv_budget_tokens=100, clock_s=lambda: now_s)
    key = one.insert(PROMPTS[2], max_tokens=40)
    one.run(until=lambda: len(one.tokens[key]) >= 8)
    one.engine.park(key)
    now_s = SAFE_S
    fits, too_long = one.insert(PROMPTS[2], max_tokens=50), one.insert(PROMPTS[2], max_tokens=91)
    one.step()
    # 49 are parked, 59 run: the parked one was in the way.
    assert (one.engine.parked_count, one.engine.running_keys) == (0, [fits, too_long])
    one.engine.park(fits)
    one.step()
    assert one.engine.parked_count == 0
