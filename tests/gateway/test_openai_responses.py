"""Answers have the shape that the official client's own types read, strictly."""

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from thunderline.gateway.certain_logprobs import Placed
from thunderline.gateway.openai_responses import Answer, Choice, event
from thunderline.v1 import cluster_pb2

STOP, LENGTH = cluster_pb2.FINISH_REASON_STOP, cluster_pb2.FINISH_REASON_LENGTH


def answer(is_chat: bool, choices_per_prompt: int = 1) -> Answer:
    return Answer("id-1", 1_700_000_000, "demo", is_chat, choices_per_prompt)


def delta(text: str = "", *ids: int, finish: Any = 0, **usage: int) -> cluster_pb2.GenerationDelta:
    made = cluster_pb2.GenerationDelta(text=text, token_ids=ids, finish_reason=finish)
    if usage:
        made.usage.CopyFrom(cluster_pb2.Usage(**usage))
    return made


def with_logprobs(text: str) -> cluster_pb2.GenerationDelta:
    made = delta(text, 1)
    one = made.logprobs.add(token_id=1, token=text, token_bytes=text.encode(), logprob=-0.5)
    one.top.add(token_id=2, token="b", token_bytes=b"b", logprob=-0.25)
    return made


def choice(index: int = 0, prompt: int = 3, made: int = 2, cached: int = 1) -> Choice:
    one = Choice(index)
    one.add(delta("Hé", 1))
    one.add(delta("llo", 2, finish=STOP, prompt_tokens=prompt, completion_tokens=made, cached_tokens=cached))
    return one


def read(kind: type[BaseModel], body: Any) -> Any:
    """As the official client reads it, but nothing missing or of another type is let through."""
    return kind.model_validate_json(json.dumps(body), strict=True)


def test_a_whole_chat_is_read_by_the_official_types() -> None:
    found = read(ChatCompletion, answer(is_chat=True).whole([choice()]))
    assert found.object == "chat.completion"
    assert (found.id, found.created, found.model) == ("id-1", 1_700_000_000, "demo")
    (only,) = found.choices
    assert (only.index, only.finish_reason, only.logprobs) == (0, "stop", None)
    assert (only.message.role, only.message.content, only.message.refusal) == ("assistant", "Héllo", None)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (3, 2, 5)
    assert found.usage.prompt_tokens_details.cached_tokens == 1


def test_a_whole_completion_is_read_by_the_official_types() -> None:
    found = read(Completion, answer(is_chat=False).whole([choice()]))
    assert found.object == "text_completion"
    assert [(one.index, one.text, one.finish_reason) for one in found.choices] == [(0, "Héllo", "stop")]


def test_a_prompt_counts_once_for_all_its_choices() -> None:
    """Two prompts of 3 and 5 tokens with two choices each."""
    choices = [choice(0, prompt=3), choice(1, prompt=3), choice(2, prompt=5, made=4), choice(3, prompt=5, made=4)]
    assert answer(is_chat=False, choices_per_prompt=2).usage(choices) == {
        "prompt_tokens": 8,
        "completion_tokens": 12,
        "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


CHUNKS: dict[str, tuple[cluster_pb2.GenerationDelta, str | None, str | None]] = {
    "text": (delta("a", 1), "a", None),
    "no text yet": (delta("", 1), "", None),
    "the end token": (delta("", 9, finish=STOP), None, "stop"),
    "the last text and the limit": (delta("b", 9, finish=LENGTH), "b", "length"),
}


@pytest.mark.parametrize("case", CHUNKS)
def test_a_chunk_of_a_chat_says(case: str) -> None:
    given, content, finish = CHUNKS[case]
    found = read(ChatCompletionChunk, answer(is_chat=True).chunk(2, given, (), include_usage=False))
    assert found.object == "chat.completion.chunk"
    (only,) = found.choices
    assert (only.index, only.delta.content, only.finish_reason) == (2, content, finish)
    assert only.delta.role is None


@pytest.mark.parametrize("case", CHUNKS)
def test_a_chunk_of_a_completion_says(case: str) -> None:
    given, content, finish = CHUNKS[case]
    body = answer(is_chat=False).chunk(2, given, (), include_usage=False)
    (only,) = body["choices"]
    assert body["object"] == "text_completion"
    assert (only["index"], only["text"], only["finish_reason"]) == (2, content or "", finish)


def test_a_chat_begins_with_its_role() -> None:
    found = read(ChatCompletionChunk, answer(is_chat=True).first_chunk(1, include_usage=False))
    (only,) = found.choices
    assert (only.index, only.delta.role, only.delta.content, only.finish_reason) == (1, "assistant", "", None)


def test_only_with_include_usage_every_chunk_says_that_its_usage_is_null() -> None:
    one = answer(is_chat=True)
    for body in (one.first_chunk(0, True), one.chunk(0, delta("a", 1), (), True)):
        assert body["usage"] is None
    for body in (one.first_chunk(0, False), one.chunk(0, delta("a", 1), (), False)):
        assert "usage" not in body


def test_the_usage_chunk_has_no_choices() -> None:
    found = read(ChatCompletionChunk, answer(is_chat=True).usage_chunk([choice()]))
    assert found.choices == []
    assert found.usage.total_tokens == 5


def placed(text: str, in_text: bool = True) -> list[Placed]:
    return [Placed(one, 0, in_text) for one in with_logprobs(text).logprobs]


def test_logprobs_of_a_chat_have_bytes_and_the_others() -> None:
    body = answer(is_chat=True).chunk(0, delta("é", 1), placed("é"), include_usage=False)
    (one,) = read(ChatCompletionChunk, body).choices[0].logprobs.content
    assert (one.token, one.bytes, one.logprob) == ("é", [0xC3, 0xA9], -0.5)
    assert [(top.token, top.bytes, top.logprob) for top in one.top_logprobs] == [("b", [0x62], -0.25)]


def test_a_token_that_is_not_in_the_text_has_no_bytes() -> None:
    body = answer(is_chat=True).chunk(0, delta("é", 1), placed("<s>", in_text=False), include_usage=False)
    (one,) = read(ChatCompletionChunk, body).choices[0].logprobs.content
    assert (one.token, one.bytes) == ("<s>", None)


def test_only_logprobs_that_go_with_it_are_in_a_chunk() -> None:
    for is_chat in (True, False):
        body = answer(is_chat).chunk(0, with_logprobs("é"), (), include_usage=False)
        assert body["choices"][0]["logprobs"] is None


def test_logprobs_of_a_whole_answer_are_those_of_all_its_deltas() -> None:
    one = Choice(0, wants_logprobs=True)
    one.add(with_logprobs("é"))
    one.add(with_logprobs("b"))
    one.add(delta("", 9, finish=STOP, prompt_tokens=1, completion_tokens=3))
    chat = read(ChatCompletion, answer(is_chat=True).whole([one]))
    assert [entry.token for entry in chat.choices[0].logprobs.content] == ["é", "b"]
    completion = read(Completion, answer(is_chat=False).whole([one]))
    assert completion.choices[0].logprobs.tokens == ["é", "b"]
    assert completion.choices[0].logprobs.token_logprobs == [-0.5, -0.5]
    assert completion.choices[0].logprobs.top_logprobs == [{"b": -0.25}, {"b": -0.25}]
    assert completion.choices[0].logprobs.text_offset == [0, 1]


def test_who_asked_for_logprobs_gets_a_list_even_if_a_stop_string_left_nothing() -> None:
    one, nobody = Choice(0, wants_logprobs=True), Choice(0)
    for choice in (one, nobody):
        held = with_logprobs("é")
        held.text = ""
        choice.add(held)
        choice.add(delta("", 9, finish=STOP, prompt_tokens=1, completion_tokens=2))
    assert read(ChatCompletion, answer(is_chat=True).whole([one])).choices[0].logprobs.content == []
    assert read(ChatCompletion, answer(is_chat=True).whole([nobody])).choices[0].logprobs is None
    assert read(Completion, answer(is_chat=False).whole([one])).choices[0].logprobs.tokens == []


def test_every_token_id_counts_even_without_a_finish() -> None:
    one = Choice(0)
    one.add(delta("a", 1, 2))
    one.add(delta("", 3))
    assert (one.token_count, one.finish) == (3, None)


TEXTS = {
    "plain": "a",
    "line ends": "a\r\n\nb",
    "quotes": '"\\',
    "an emoji": "\U0001f9ca",
    "line separators": "\u2028\x85",
}


@pytest.mark.parametrize("case", TEXTS)
def test_an_event_is_one_line_of_data_whatever_the_text(case: str) -> None:
    made = event({"text": TEXTS[case]})
    assert made.startswith(b"data: ")
    assert made.endswith(b"\n\n")
    assert b"\n" not in made[:-2]
    assert b"\r" not in made
    assert json.loads(made[6:]) == {"text": TEXTS[case]}
