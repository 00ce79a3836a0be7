"""One request's text side, fed by hand: what is joined, what is held back, how it ends."""

import asyncio
from typing import Any

import pytest

from runner.little_model import make
from thunderline.cluster.errors import DeadlinePassed, InstanceFailed
from thunderline.cluster.limits import DEFAULTS
from thunderline.runner import tokenizing
from thunderline.runner.generation import DELTA_TOKENS_MAX, Generation
from thunderline.runner.tokenizing import ModelText
from thunderline.v1 import cluster_pb2, rank_pb2

S = cluster_pb2
SOON_S = 5.0


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> ModelText:
    return tokenizing.read(make(tmp_path_factory.mktemp("generation") / "little"))


def generation(words: ModelText, max_tokens: int = 1000, **wish: Any) -> Generation:
    return Generation(S.Generation(**wish), [5, 6], max_tokens, words)


def news(*ids: int, **more: Any) -> rank_pb2.SequenceTokens:
    return rank_pb2.SequenceTokens(key=1, token_ids=ids, **more)


def ids_of(words: ModelText, text: str) -> list[int]:
    return list(words.tokenizer.encode(text, add_special_tokens=False).ids)


async def rest(made: Generation) -> list[S.GenerationDelta]:
    return [delta async for delta in made.deltas(asyncio.get_running_loop().time() + SOON_S)]


async def test_a_reader_that_comes_late_gets_one_delta(words: ModelText) -> None:
    made = generation(words)
    ids = ids_of(words, "the quick brown fox jumps over the lazy dog" * 5)
    for token in ids:
        made.on_tokens(news(token))
    made.on_tokens(news(2, finish_reason=S.FINISH_REASON_STOP))
    (delta,) = await rest(made)
    assert list(delta.prompt_token_ids) == [5, 6]
    assert list(delta.token_ids) == [*ids, 2]
    assert delta.text == words.decode(ids)
    assert delta.usage.completion_tokens == len(ids) + 1


async def test_what_a_late_reader_gets_is_cut_to_what_a_message_may_hold(words: ModelText) -> None:
    made = generation(words, max_tokens=100_000)
    tops = list(range(20))
    logprobs = [rank_pb2.SequenceLogprobs(logprob=-1.0, top_token_ids=tops, top_logprobs=[-2.0] * 20)]
    count = 2 * DELTA_TOKENS_MAX + 100
    for number in range(count):
        made.on_tokens(news(10 + number % 50, logprobs=logprobs))
    made.on_tokens(news(2, finish_reason=S.FINISH_REASON_STOP))
    deltas = await rest(made)
    assert [len(delta.token_ids) for delta in deltas] == [DELTA_TOKENS_MAX, DELTA_TOKENS_MAX, 101]
    assert sum(len(delta.logprobs) for delta in deltas) == count
    assert max(delta.ByteSize() for delta in deltas) < DEFAULTS.message_bytes_max / 2
    assert "".join(delta.text for delta in deltas) == words.decode([10 + number % 50 for number in range(count)])


@pytest.mark.parametrize("before", [0, 100], ids=["nothing waits", "some waits"])
async def test_one_large_news_is_cut_as_well(words: ModelText, before: int) -> None:
    made = generation(words, max_tokens=100_000)
    count = 2 * DELTA_TOKENS_MAX + 50
    ids = [10 + number % 50 for number in range(count)]
    logprobs = [rank_pb2.SequenceLogprobs(logprob=-float(number)) for number in range(count)]
    if before:
        made.on_tokens(news(*ids[:before], logprobs=logprobs[:before]))
    made.on_tokens(news(*ids[before:], logprobs=logprobs[before:], finish_reason=S.FINISH_REASON_LENGTH))
    deltas = await rest(made)
    assert [len(delta.token_ids) for delta in deltas] == [DELTA_TOKENS_MAX, DELTA_TOKENS_MAX, 50]
    assert [token for delta in deltas for token in delta.token_ids] == ids
    assert [one.token_id for delta in deltas for one in delta.logprobs] == ids
    assert [one.logprob for delta in deltas for one in delta.logprobs] == [-float(number) for number in range(count)]
    assert "".join(delta.text for delta in deltas) == words.decode(ids)
    assert [bool(delta.finish_reason) for delta in deltas] == [False, False, True]


async def test_the_prompt_ids_come_before_the_first_token(words: ModelText) -> None:
    made = generation(words)
    deltas = made.deltas(asyncio.get_running_loop().time() + SOON_S)
    first = await anext(deltas)
    assert (list(first.prompt_token_ids), list(first.token_ids)) == ([5, 6], [])


async def test_half_a_character_waits_for_the_other_half_and_its_ids_do_not(words: ModelText) -> None:
    made = generation(words)
    ids = ids_of(words, "𝄞")
    deltas = made.deltas(asyncio.get_running_loop().time() + SOON_S)
    await anext(deltas)
    made.on_tokens(news(ids[0]))
    half = await anext(deltas)
    assert (half.text, list(half.token_ids)) == ("", ids[:1])
    made.on_tokens(news(*ids[1:]))
    assert (await anext(deltas)).text == "𝄞"


async def test_tokens_behind_a_stop_string_are_not_taken(words: ModelText) -> None:
    made = generation(words, stop=["brown"])
    ids = ids_of(words, "the quick brown fox jumps")
    made.on_tokens(news(*ids, logprobs=[rank_pb2.SequenceLogprobs(logprob=-1)] * len(ids)))
    (delta,) = await rest(made)
    assert delta.text == "the quick "
    assert len(delta.token_ids) < len(ids)
    assert len(delta.logprobs) == len(delta.token_ids)
    assert made.finished
    made.on_tokens(news(5))
    assert delta.usage.completion_tokens == len(delta.token_ids)


async def test_what_came_before_an_error_is_given_first(words: ModelText) -> None:
    made = generation(words)
    made.on_tokens(news(*ids_of(words, "the fox")))
    made.fail(InstanceFailed("it died"))
    deltas = made.deltas(asyncio.get_running_loop().time() + SOON_S)
    assert (await anext(deltas)).text == "the fox"
    with pytest.raises(InstanceFailed):
        await anext(deltas)


async def test_an_error_after_the_finish_changes_nothing(words: ModelText) -> None:
    made = generation(words, max_tokens=1)
    made.on_tokens(news(*ids_of(words, "the")))
    made.fail(InstanceFailed("it died"))
    assert (await rest(made))[-1].finish_reason == S.FINISH_REASON_LENGTH


async def test_without_news_the_deadline_ends_it(words: ModelText) -> None:
    made = generation(words)
    deltas = made.deltas(asyncio.get_running_loop().time() + 0.05)
    await anext(deltas)
    with pytest.raises(DeadlinePassed):
        await anext(deltas)


async def test_held_back_text_of_a_resume_that_is_over_comes_with_its_finish(words: ModelText) -> None:
    ids = ids_of(words, "the brow")
    made = generation(words, max_tokens=len(ids), stop=["brown"], resume_token_ids=ids)
    (delta,) = await rest(made)
    assert (delta.text, delta.finish_reason) == ("brow", S.FINISH_REASON_LENGTH)
    assert list(delta.token_ids) == []
    assert delta.usage.completion_tokens == len(ids)
