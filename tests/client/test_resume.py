"""What is passed on, what is asked next, and what follows on each error: tables, and a law for every cut."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderline.client.resume import FRUITLESS_COUNT_MAX, UNREACHABLE_S, End, HeldRequest, Resume
from thunderline.cluster.errors import (
    BY_REASON,
    RANK_LOST_FACT,
    ClusterError,
    DeadlinePassed,
    Draining,
    EngineReset,
    Full,
    InstanceFailed,
    RankHung,
    RequestPoisoned,
    Unreachable,
)
from thunderline.v1 import cluster_pb2

Delta = cluster_pb2.GenerationDelta
STOP = cluster_pb2.FINISH_REASON_STOP
WISH = cluster_pb2.Generation(
    request_id="a" * 32,
    model="m",
    chat=cluster_pb2.Chat(messages=[cluster_pb2.ChatMessage(role="user", content="Hello")]),
    sampling=cluster_pb2.Sampling(seed=7, temperature=0.5),
    max_tokens=20,
    stop=["\n"],
    logprobs=True,
    top_logprob_count=2,
)
PROMPT = Delta(prompt_token_ids=[1, 2])


def lost() -> InstanceFailed:
    return InstanceFailed("the rank died", retry_after_s=None, **{RANK_LOST_FACT: "SIGKILL"})


def held(deadline_s: float = 600.0) -> HeldRequest:
    return HeldRequest(WISH, deadline_s)


def copy(delta: cluster_pb2.GenerationDelta) -> cluster_pb2.GenerationDelta:
    made = Delta()
    made.CopyFrom(delta)
    return made


def attempt(
    one: HeldRequest,
    error: ClusterError | None,
    *deltas: cluster_pb2.GenerationDelta,
    now_s: float = 0,
    lasted_s: float = 0,
) -> Any:
    """One whole attempt and its verdict."""
    one.next_request(now_s - lasted_s)
    for delta in deltas:
        one.take(copy(delta))
    return one.after(error, now_s)


# What is asked.


def test_the_first_request_is_the_callers() -> None:
    assert held().next_request(0.0) == WISH


def test_a_resume_asks_for_the_rest_and_never_has_the_prompt_rendered_again() -> None:
    one = held()
    attempt(one, lost(), PROMPT, Delta(token_ids=[3, 4], text="a b"))
    request = one.next_request(0.0)
    expected = cluster_pb2.Generation()
    expected.CopyFrom(WISH)
    expected.prompt_token_ids.ids.extend([1, 2])
    expected.resume_token_ids.extend([3, 4])
    expected.lost_rank_count = 1
    expected.resume = True
    assert request == expected
    assert one.wish == WISH, "the caller's own is not changed"


def test_tokens_that_the_caller_brought_come_before_those_delivered() -> None:
    one = HeldRequest(cluster_pb2.Generation(resume_token_ids=[8, 9]), 600)
    attempt(one, lost(), Delta(prompt_token_ids=[1], token_ids=[3]))
    assert list(one.next_request(0.0).resume_token_ids) == [8, 9, 3]


def test_a_resume_names_who_had_it_last_and_a_new_request_nobody() -> None:
    one = held()
    assert one.next_request(0.0).instance == ""
    attempt(one, lost(), Delta(prompt_token_ids=[1, 2], instance="a"), Delta(token_ids=[3]))
    assert one.next_request(0.0).instance == "a"
    attempt(one, lost(), Delta(prompt_token_ids=[1, 2], instance="b"))
    attempt(one, Unreachable("refused"))
    assert one.next_request(0.0).instance == "b"


UNHEARD: dict[str, tuple[ClusterError, bool, int]] = {
    "nobody was reached: still a new request": (Unreachable("refused"), False, 0),
    "the instance has had it": (lost(), True, 1),
    "the runner took nothing any more": (Draining("stopping"), True, 0),
}


@pytest.mark.parametrize(("error", "resume", "lost_count"), UNHEARD.values(), ids=UNHEARD.keys())
def test_with_nothing_delivered_the_same_prompt_is_asked_again(
    error: ClusterError, resume: bool, lost_count: int
) -> None:
    one = held()
    attempt(one, error)
    request = one.next_request(0.0)
    assert (request.chat, request.resume, request.lost_rank_count) == (WISH.chat, resume, lost_count)


# What is passed on.

NEWS: dict[str, tuple[cluster_pb2.GenerationDelta, cluster_pb2.GenerationDelta | None]] = {
    "the prompt a second time": (PROMPT, None),
    "an empty one": (Delta(), None),
    "the prompt a second time, and a token": (Delta(prompt_token_ids=[1, 2], token_ids=[4]), Delta(token_ids=[4])),
    "text alone": (Delta(text="x"), Delta(text="x")),
    "the finish alone": (Delta(finish_reason=STOP), Delta(finish_reason=STOP)),
}


@pytest.mark.parametrize(("came", "passed"), NEWS.values(), ids=NEWS.keys())
def test_after_a_break_is_passed_on(
    came: cluster_pb2.GenerationDelta, passed: cluster_pb2.GenerationDelta | None
) -> None:
    one = held()
    attempt(one, lost(), PROMPT, Delta(token_ids=[3]))
    one.next_request(0.0)
    delta = copy(came)
    assert one.take(delta) is (passed is not None)
    assert passed is None or delta == passed
    assert one.finished is bool(came.finish_reason)


def test_the_prompts_ids_are_passed_on_once() -> None:
    one = held()
    one.next_request(0.0)
    delta = copy(PROMPT)
    assert one.take(delta)
    assert delta == PROMPT


# What follows.


@pytest.mark.parametrize("kind", BY_REASON.values(), ids=BY_REASON.keys())
def test_only_what_is_resumable_is_resumed(kind: type[ClusterError]) -> None:
    error = kind("no", param="x")
    verdict = attempt(held(), error, PROMPT, Delta(token_ids=[3]))
    # A queue is full for new requests.
    assert verdict == (Resume(0.1) if kind.resumable or kind is Full else End(error))


def test_a_full_queue_refuses_a_new_request_and_no_other() -> None:
    full = Full("256 requests are at this rank", retry_after_s=1.0)
    assert attempt(held(), full) == End(full)
    one = held()
    assert attempt(one, InstanceFailed("its runner died")) == Resume(0.1)
    waits = [attempt(one, full).wait_s for _ in range(FRUITLESS_COUNT_MAX - 2)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    verdict = attempt(one, full)
    assert isinstance(verdict, End) and isinstance(verdict.error, Full) and "tried 8 times" in verdict.error.message


def test_a_stream_without_a_finish_is_resumed() -> None:
    assert attempt(held(), None, Delta(token_ids=[3])) == Resume(0.1)


def test_eight_attempts_without_a_token_end_it_with_the_last_ones_error() -> None:
    one = held()
    assert attempt(one, Draining("x"), PROMPT, Delta(token_ids=[3, 4])) == Resume(0.1)
    waits = [attempt(one, Draining("x")).wait_s for _ in range(FRUITLESS_COUNT_MAX - 1)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    verdict = attempt(one, InstanceFailed("not READY", retry_after_s=3.0, param="p"))
    assert isinstance(verdict, End) and isinstance(verdict.error, InstanceFailed)
    assert verdict.error.message == "not READY (tried 9 times; 2 tokens were delivered)"
    assert (verdict.error.retry_after_s, verdict.error.facts) == (3.0, {"param": "p"})


def test_a_new_token_starts_the_count_and_the_waits_over() -> None:
    one = held()
    for _ in range(FRUITLESS_COUNT_MAX - 1):
        attempt(one, Draining("x"))
    assert attempt(one, Draining("x"), Delta(token_ids=[3])) == Resume(0.1)
    for _ in range(FRUITLESS_COUNT_MAX - 1):
        assert isinstance(attempt(one, Draining("x"), PROMPT), Resume), "the prompt's ids are no new token"
    assert isinstance(attempt(one, Draining("x")), End)


def test_who_reaches_no_scheduler_is_not_counted_and_waits_by_the_outage() -> None:
    one = held()
    attempt(one, lost(), Delta(token_ids=[3]))
    now_s, waits = 5.0, []
    while now_s < 100:
        verdict = attempt(one, Unreachable("refused"), now_s=now_s)
        waits.append(verdict.wait_s)
        now_s += verdict.wait_s
    assert waits[:5] == [0.1] * 5
    assert waits == sorted(waits)
    assert waits[-1] == 2.0
    assert one.fruitless_count == 0


def test_a_scheduler_that_dies_after_it_was_heard_is_counted() -> None:
    one = held()
    for _ in range(FRUITLESS_COUNT_MAX - 1):
        attempt(one, Unreachable("socket closed"), PROMPT)
    assert isinstance(attempt(one, Unreachable("socket closed"), PROMPT), End)


def test_a_new_request_gives_up_when_no_scheduler_was_reached_for_ten_seconds() -> None:
    one = held()
    assert isinstance(attempt(one, Unreachable("refused"), now_s=50), Resume)
    assert isinstance(attempt(one, Unreachable("refused"), now_s=50 + UNREACHABLE_S - 0.1), Resume)
    verdict = attempt(one, Unreachable("refused"), now_s=50 + UNREACHABLE_S)
    assert isinstance(verdict, End) and isinstance(verdict.error, Unreachable)


LASTED_S = {"it waited at a scheduler meanwhile": (1.5, Resume), "nobody took it": (0.3, End)}


@pytest.mark.parametrize(("lasted_s", "verdict"), LASTED_S.values(), ids=LASTED_S.keys())
def test_a_second_outage_is_told_from_one_that_lasts_by_how_long_the_attempt_was(
    lasted_s: float, verdict: type[Resume | End]
) -> None:
    one = held()
    assert attempt(one, Unreachable("refused"), now_s=50) == Resume(0.1)
    assert isinstance(attempt(one, Unreachable("socket closed"), now_s=70, lasted_s=lasted_s), verdict)


def test_the_second_outage_has_its_own_ten_seconds_and_its_own_waits() -> None:
    one = held()
    attempt(one, Unreachable("refused"), now_s=50)
    assert attempt(one, Unreachable("socket closed"), now_s=70, lasted_s=19) == Resume(0.1)
    assert not one.next_request(70.1).resume, "it is still a new request"
    assert isinstance(attempt(one, Unreachable("refused"), now_s=70 + UNREACHABLE_S - 0.1), Resume)
    assert isinstance(attempt(one, Unreachable("refused"), now_s=70 + UNREACHABLE_S), End)


@pytest.mark.parametrize("error", [lost(), Unreachable("refused")], ids=lambda error: error.reason)
def test_nothing_is_tried_beyond_the_deadline(error: ClusterError) -> None:
    one = held(deadline_s=10.0)
    assert attempt(one, error, Delta(token_ids=[3]), now_s=9.8) == Resume(0.1)
    verdict = attempt(one, error, now_s=9.9)
    assert isinstance(verdict, End) and isinstance(verdict.error, DeadlinePassed)
    assert "tried 2 times; 1 tokens were delivered" in verdict.error.message


LOSES: dict[str, tuple[ClusterError, int]] = {
    "the engine was reset": (EngineReset("reset"), 1),
    "the rank hung": (RankHung("hung"), 1),
    "the rank died": (lost(), 1),
    "the runner was lost": (InstanceFailed("the runner was lost"), 0),
    "the scheduler died": (Unreachable("closed"), 0),
    "the runner drains": (Draining("stopping"), 0),
}


@pytest.mark.parametrize(("error", "count"), LOSES.values(), ids=LOSES.keys())
def test_lost_ranks_are_counted_until_a_new_token(error: ClusterError, count: int) -> None:
    one = held()
    for round_number in (1, 2):
        attempt(one, error)
        assert one.next_request(0.0).lost_rank_count == round_number * count
    one.take(copy(PROMPT))
    assert one.next_request(0.0).lost_rank_count == 2 * count
    one.take(Delta(token_ids=[3]))
    assert one.next_request(0.0).lost_rank_count == 0


def test_the_third_lost_rank_in_a_row_ends_it() -> None:
    one = held()
    attempt(one, lost(), Delta(token_ids=[3]))
    attempt(one, EngineReset("reset"))
    verdict = attempt(one, RankHung("no step for 60 s"))
    assert isinstance(verdict, End) and isinstance(verdict.error, RequestPoisoned)
    assert "3 ranks" in verdict.error.message and "no step for 60 s" in verdict.error.message


# The law.

ERRORS: list[ClusterError | None] = [
    None,
    InstanceFailed("x"),
    lost(),
    EngineReset("x"),
    Draining("x"),
    Unreachable("x"),
]
# For each attempt: the sizes of the deltas that come, and how it breaks.
SCHEDULES = st.lists(st.tuples(st.lists(st.integers(1, 4), max_size=4), st.sampled_from(ERRORS)), max_size=12)


def stream_of(request: cluster_pb2.Generation, answer: list[int], sizes: list[int], joined: bool) -> list[Any]:
    """The far side, by the rule of protocols F: the prompt's ids, and what follows the tokens that it is told."""
    rest = answer[len(request.resume_token_ids) :]
    assert [*request.resume_token_ids, *rest] == answer
    stream = [copy(PROMPT)]
    for size in sizes:
        ids, rest = rest[:size], rest[size:]
        stream.append(Delta(token_ids=ids, finish_reason=cluster_pb2.FINISH_REASON_UNSPECIFIED if rest else STOP))
        if not rest:
            break
    if joined and len(stream) > 1:
        stream[1].MergeFrom(stream.pop(0))
    return stream


@given(answer=st.lists(st.integers(0, 99), min_size=1, max_size=30), schedule=SCHEDULES, joined=st.booleans())
def test_every_token_is_passed_on_once_wherever_streams_break(
    answer: list[int], schedule: list[tuple[list[int], ClusterError | None]], joined: bool
) -> None:
    one, passed, prompt_count, now_s = held(), list[int](), 0, 0.0
    for sizes, error in [*schedule, ([len(answer)], None)]:
        for delta in stream_of(one.next_request(now_s), answer, sizes, joined):
            if one.take(delta):
                passed.extend(delta.token_ids)
                prompt_count += bool(delta.prompt_token_ids)
        assert passed == answer[: len(passed)]
        if one.finished:
            break
        verdict = one.after(error, now_s)
        if isinstance(verdict, End):
            assert one.fruitless_count == FRUITLESS_COUNT_MAX or one.lost_rank_count == 3
            return
        now_s += verdict.wait_s
    assert passed == answer
    assert prompt_count == 1
