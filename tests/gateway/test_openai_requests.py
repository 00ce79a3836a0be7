"""What a body may hold: every bad one is refused under the name of its parameter, every good one is understood."""

import itertools
from typing import Any

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

from gateway.malformed import BOTH, CHAT, COMPLETIONS, HELLO
from thunderline.cluster.errors import InvalidRequest
from thunderline.gateway.openai_requests import Asked, chat, completion
from thunderline.v1 import cluster_pb2

DRAWN_SEED = 2**63 - 2


def asked_chat(**fields: Any) -> Asked:
    return chat({"model": "demo", "messages": HELLO, **fields}, DRAWN_SEED)


def asked_completion(**fields: Any) -> Asked:
    return completion({"model": "demo", "prompt": "a", **fields}, DRAWN_SEED)


@pytest.mark.parametrize("case", [*BOTH, *CHAT])
def test_a_malformed_chat_is_refused_by_name(case: str) -> None:
    fields, param = (BOTH | CHAT)[case]
    with pytest.raises(InvalidRequest) as refusal:
        asked_chat(**fields)
    assert refusal.value.param == param
    assert refusal.value.message.startswith(param)


@pytest.mark.parametrize("case", [*BOTH, *COMPLETIONS])
def test_a_malformed_completion_is_refused_by_name(case: str) -> None:
    fields, param = (BOTH | COMPLETIONS)[case]
    with pytest.raises(InvalidRequest) as refusal:
        asked_completion(**fields)
    assert refusal.value.param == param
    assert refusal.value.message.startswith(param)


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_chat_without_what_it_needs_says_what_is_missing(missing: str) -> None:
    given = {"model": "demo", "messages": HELLO}
    del given[missing]
    with pytest.raises(InvalidRequest, match=f"{missing}: is missing") as refusal:
        chat(given, DRAWN_SEED)
    assert refusal.value.param == missing


OFFICIAL = {
    "chat": (chat_create_params.CompletionCreateParamsBase.__annotations__, asked_chat),
    "completion": (completion_create_params.CompletionCreateParamsBase.__annotations__, asked_completion),
}


@pytest.mark.parametrize("kind", OFFICIAL)
def test_no_parameter_of_the_official_client_is_ignored(kind: str) -> None:
    """A value of a wrong type shows it: what is read complains about the type, what is not read is refused."""
    names, ask = OFFICIAL[kind]
    for name in {*names, "stream"}:
        with pytest.raises(InvalidRequest) as refusal:
            ask(**{name: object()})
        assert refusal.value.param == name


@pytest.mark.parametrize("kind", OFFICIAL)
def test_null_means_not_given(kind: str) -> None:
    names, ask = OFFICIAL[kind]
    optional = set(names) - {"model", "messages", "prompt"}
    assert ask(**dict.fromkeys([*optional, "stream", "top_k", "min_p", "repetition_penalty"])) == ask()


WITHOUT_EFFECT: dict[str, Any] = {
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "response_format": {"type": "text"},
    "store": False,
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "service_tier": "auto",
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": 0,
    "stop": [],
    "n": 1,
    "stream": False,
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_a_value_without_effect_is_accepted(name: str) -> None:
    assert asked_chat(**{name: WITHOUT_EFFECT[name]}) == asked_chat()


def test_a_chat_becomes_a_generation() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hi"}], "name": "bo"},
        {"role": "assistant", "content": "hi"},
    ]
    sampling = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.25,
        "presence_penalty": -2,
        "frequency_penalty": 2,
        "repetition_penalty": 1.5,
        "seed": 11,
    }
    found = asked_chat(
        messages=messages,
        max_completion_tokens=9,
        stop="END",
        logit_bias={"7": -100},
        logprobs=True,
        top_logprobs=4,
        **sampling,
    )
    said = [
        cluster_pb2.ChatMessage(role="system", content="Be brief."),
        cluster_pb2.ChatMessage(role="user", content="Say hi", name="bo"),
        cluster_pb2.ChatMessage(role="assistant", content="hi"),
    ]
    expected = cluster_pb2.Generation(
        model="demo",
        chat=cluster_pb2.Chat(messages=said),
        sampling=cluster_pb2.Sampling(logit_bias={7: -100}, **sampling),  # type: ignore[arg-type]
        max_tokens=9,
        stop=["END"],
        logprobs=True,
        top_logprob_count=4,
    )
    assert found.generations == (expected,)
    assert found.logprobs


def test_defaults_are_openais() -> None:
    (chatted,), (completed,) = asked_chat().generations, asked_completion().generations
    assert (chatted.max_tokens, completed.max_tokens) == (0, 16)
    for one in (chatted, completed):
        assert one.sampling.temperature == 1.0
        # 0 and 1 both mean off.
        assert one.sampling.top_p in {0.0, 1.0}
        assert not one.logprobs


PROMPTS: dict[str, tuple[Any, list[str | list[int]]]] = {
    "a string": ("ab", ["ab"]),
    "strings": (["ab", "c"], ["ab", "c"]),
    "token ids": ([1, 2], [[1, 2]]),
    "lists of token ids": ([[1, 2], [3]], [[1, 2], [3]]),
}


@pytest.mark.parametrize("case", PROMPTS)
def test_a_prompt_may_be(case: str) -> None:
    given, expected = PROMPTS[case]
    found = [
        one.text if one.WhichOneof("prompt") == "text" else list(one.prompt_token_ids.ids)
        for one in asked_completion(prompt=given).generations
    ]
    assert found == expected


SEEDS = {
    "small": (7, [7, 8, 9]),
    "zero": (0, [0, 1, 2]),
    "negative, as its 64 bits": (-1, [2**64 - 1, 0, 1]),
    "the least": (-(2**63), [2**63, 2**63 + 1, 2**63 + 2]),
    "the greatest signed one": (2**63 - 1, [2**63 - 1, 2**63, 2**63 + 1]),
}


@pytest.mark.parametrize("case", SEEDS)
def test_the_choices_of_a_prompt_have_consecutive_seeds(case: str) -> None:
    seed, expected = SEEDS[case]
    assert [one.sampling.seed for one in asked_chat(n=3, seed=seed).generations] == expected


def test_two_prompts_with_two_choices_each_are_in_order_of_index() -> None:
    found = asked_completion(prompt=["a", "b"], n=2, seed=1)
    assert [(one.text, one.sampling.seed) for one in found.generations] == list(itertools.product("ab", (1, 2)))
    assert found.choices_per_prompt == 2


STREAMS: dict[str, tuple[dict[str, Any], tuple[bool, bool]]] = {
    "neither": ({}, (False, False)),
    "a stream": ({"stream": True}, (True, False)),
    "a stream with usage": ({"stream": True, "stream_options": {"include_usage": True}}, (True, True)),
    "a stream without padding": ({"stream": True, "stream_options": {"include_obfuscation": False}}, (True, False)),
}


@pytest.mark.parametrize("case", STREAMS)
def test_stream_and_usage_are_as_asked(case: str) -> None:
    fields, expected = STREAMS[case]
    found = asked_chat(**fields)
    assert (found.stream, found.include_usage) == expected


def test_logprobs_of_a_completion_are_a_count() -> None:
    (none,), (zero,), (three,) = (asked_completion(logprobs=count).generations for count in (None, 0, 3))
    assert [(one.logprobs, one.top_logprob_count) for one in (none, zero, three)] == [(False, 0), (True, 0), (True, 3)]
