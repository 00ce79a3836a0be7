"""Hostile requests, each with what it must be answered: a fixed list, and others that hypothesis draws."""

import json
import math
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

from gateway.malformed import BOTH, CHAT, COMPLETIONS, HELLO
from installation import DEMO
from thunderline.v1 import cluster_pb2

# Of the demo model.
VOCABULARY_SIZE = 49152
CONTEXT_TOKENS = 8192
CHATS, TEXTS = "chat/completions", "completions"
PATHS = (CHATS, TEXTS)

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A body over HTTP: refused under one of `params` (None: it is no JSON), or answered as the `plain` ones are."""

    path: str
    body: Mapping[str, Any]
    params: frozenset[str | None] = frozenset()
    plain: tuple[Mapping[str, Any], ...] = ()


def good(path: str, **fields: Any) -> dict[str, Any]:
    """The seed makes its answer always the same."""
    asked = {"messages": HELLO} if path == CHATS else {"prompt": "a"}
    return {"model": DEMO, "max_tokens": 2, "seed": 7, **asked, **fields}


def refused(path: str, fields: Mapping[str, Any], *params: str) -> Case:
    body = {**good(path), **fields}
    return Case(path, body, frozenset(params if _is_json(body) else [None]))


def _is_json(body: Mapping[str, Any]) -> bool:
    """Python writes NaN and infinities, which JSON does not have."""
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        return False
    return True


# Each of these ends the generation thread of mlx-lm's own server, or makes it answer wrongly.
KILLERS: dict[str, Case] = {
    "an empty prompt": refused(TEXTS, {"prompt": ""}, "prompt"),
    "a list of prompts": Case(
        TEXTS, good(TEXTS, prompt=["One,", "Two,"]), plain=(good(TEXTS, prompt="One,"), good(TEXTS, prompt="Two,"))
    ),
    "a stop with null": refused(TEXTS, {"stop": [None]}, "stop"),
    "a top_k above the vocabulary": refused(TEXTS, {"temperature": 1, "top_k": 60000}, "top_k"),
    "a token id just above the vocabulary": refused(TEXTS, {"prompt": [VOCABULARY_SIZE]}, "prompt"),
    "a token id far above the vocabulary": refused(TEXTS, {"prompt": [2**31]}, "prompt"),
    "a negative token id": refused(TEXTS, {"prompt": [-1]}, "prompt"),
    "an empty list of ids": refused(TEXTS, {"prompt": []}, "prompt"),
    "a prompt of numbers as text": refused(TEXTS, {"prompt": [1.5]}, "prompt"),
    "no messages": refused(CHATS, {"messages": []}, "messages"),
    "an image": refused(
        CHATS,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
        "messages",
    ),
    "another model to load": refused(CHATS, {"model": "/etc"}, "model"),
    "an end token as prompt": Case(TEXTS, good(TEXTS, prompt=[2]), plain=(good(TEXTS, prompt="<|im_end|>"),)),
    "a bias on a token that is not there": refused(TEXTS, {"logit_bias": {"60000": 1}}, "logit_bias"),
}


def corpus() -> list[Case]:
    """The fixed list, for each endpoint that it is of."""
    chats = [refused(CHATS, fields, param) for fields, param in (*CHAT.values(), *BOTH.values())]
    return chats + [refused(TEXTS, fields, param) for fields, param in (*COMPLETIONS.values(), *BOTH.values())]


def drawn(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """The same ones each time: nothing here is left to chance."""
    found: list[T] = []

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(strategy)
    def take(one: T) -> None:
        found.append(one)

    take()
    return found


Values = st.SearchStrategy[Any]

_WORDS = st.text(max_size=8)
_SOME_WORDS = st.text(min_size=1, max_size=8)
_LISTS = st.lists(st.integers(0, 9), max_size=2)
_SOME_LISTS = st.lists(st.integers(0, 9), min_size=1, max_size=2)
_OBJECTS = st.dictionaries(_WORDS, st.integers(0, 9), max_size=2)
_FRACTIONS = st.floats(-1e9, 1e9)
_WHOLE = st.integers(-(2**70), 2**70)
_NO_NUMBER: Values = _WORDS | st.booleans() | _LISTS | _OBJECTS
_NO_TRUTH: Values = _WORDS | _WHOLE | _FRACTIONS | _LISTS | _OBJECTS
_ANYTHING: Values = _NO_TRUTH | st.booleans()


def _beyond(low: float, high: float) -> Values:
    return st.floats(-1e300, low - 0.001) | st.floats(high + 0.001, 1e300) | _NO_NUMBER


def _whole_beyond(low: int, high: int) -> Values:
    return st.integers(-(2**70), low - 1) | st.integers(high + 1, 2**70) | _FRACTIONS | _NO_NUMBER


_NO_IDS = st.integers(-(2**40), -1) | st.integers(VOCABULARY_SIZE, 2**40)
_IDS = st.integers(0, VOCABULARY_SIZE - 1)

# What is no value of each field, also by the model's own bounds.
_WRONG_IN_BOTH: dict[str, Values] = {
    "model": _SOME_WORDS | st.just("") | st.just("m" * 257) | _WHOLE | _LISTS | _OBJECTS | st.booleans(),
    "temperature": _beyond(0, 2),
    "top_p": _beyond(0, 1) | st.just(0),
    "min_p": _beyond(0, 1),
    "top_k": _whole_beyond(0, VOCABULARY_SIZE - 1),
    "presence_penalty": _beyond(-2, 2),
    "frequency_penalty": _beyond(-2, 2),
    "repetition_penalty": _beyond(0, 10) | st.just(0),
    "seed": _whole_beyond(-(2**63), 2**64 - 1),
    "n": _whole_beyond(1, 8),
    "max_tokens": _whole_beyond(1, CONTEXT_TOKENS - 1),
    "stop": (
        _WHOLE
        | _SOME_LISTS
        | _OBJECTS
        | st.just("")
        | st.text(min_size=257, max_size=300)
        | st.lists(_SOME_WORDS, min_size=17, max_size=20)
        | st.lists(_SOME_WORDS, max_size=3).map(lambda words: [*words, ""])
    ),
    "logit_bias": (
        _WORDS
        | _WHOLE
        | _LISTS
        | st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=4), st.just(1), min_size=1, max_size=2)
        | st.dictionaries(_NO_IDS.map(str), st.floats(-100, 100), min_size=1, max_size=2)
        | st.dictionaries(st.just("5"), _beyond(-100, 100), min_size=1)
    ),
    "stream": _NO_TRUTH,
    # None is right where there is no stream.
    "stream_options": _ANYTHING | st.just({"include_usage": True}),
}
_GOOD_MESSAGE: dict[str, Any] = {"role": "user", "content": "a"}
_WRONG_MESSAGE: Values = (
    _ANYTHING
    | _SOME_WORDS.map(lambda role: {**_GOOD_MESSAGE, "role": f"{role}x"})
    | (_WHOLE | _OBJECTS | _SOME_LISTS | st.booleans()).map(lambda content: {**_GOOD_MESSAGE, "content": content})
    | _SOME_WORDS.map(lambda kind: {**_GOOD_MESSAGE, "content": [{"type": f"{kind}x", "text": "a"}]})
    | _SOME_WORDS.map(lambda name: {**_GOOD_MESSAGE, f"{name}x": 1})
    | st.sampled_from([{"role": "user"}, {"content": "a"}])
)
_MORE_MESSAGES = st.lists(st.just(_GOOD_MESSAGE), max_size=2)
WRONG: dict[str, dict[str, Values]] = {
    CHATS: {
        **_WRONG_IN_BOTH,
        "messages": (
            _ANYTHING
            | st.tuples(_MORE_MESSAGES, _WRONG_MESSAGE, _MORE_MESSAGES).map(lambda some: [*some[0], some[1], *some[2]])
        ),
        "logprobs": _NO_TRUTH,
        # Also a right one is wrong without logprobs, and beside max_tokens.
        "top_logprobs": _whole_beyond(0, 0),
        "max_completion_tokens": _ANYTHING,
    },
    TEXTS: {
        **_WRONG_IN_BOTH,
        "prompt": (
            _WHOLE
            | _FRACTIONS
            | _OBJECTS
            | st.booleans()
            | st.sampled_from(["", [], [[]], [None], [1, "a"], ["a", 1], [[1], "a"]])
            | st.tuples(st.lists(_IDS, max_size=3), _NO_IDS).map(lambda some: [*some[0], some[1]])
            | st.lists(_FRACTIONS, min_size=1, max_size=3)
            | st.lists(_SOME_WORDS, min_size=17, max_size=20)
            | st.lists(_SOME_WORDS, max_size=3).map(lambda words: [*words, ""])
            | st.lists(st.lists(_IDS, min_size=1, max_size=3), max_size=3).map(lambda prompts: [*prompts, []])
        ),
        "logprobs": _whole_beyond(0, 5),
    },
}
# Nobody's value is a number above one.
_NOT_YET = "tools tool_choice functions function_call response_format parallel_tool_calls store metadata best_of echo "
_NOT_YET += "suffix modalities service_tier user audio prediction reasoning_effort verbosity web_search_options"
_KNOWN = {
    *chat_create_params.CompletionCreateParamsBase.__annotations__,
    *completion_create_params.CompletionCreateParamsBase.__annotations__,
    *("stream", "top_k", "min_p", "repetition_penalty"),
    *_NOT_YET.split(),
}
_UNKNOWN_NAMES = st.text(max_size=12).filter(lambda name: name not in _KNOWN)


def _wrong(path: str) -> st.SearchStrategy[tuple[str, Any]]:
    """A field and what it must not be; or a field that is not supported, or that nobody knows."""
    named = [st.tuples(st.just(name), values) for name, values in WRONG[path].items()]
    others = [st.tuples(st.sampled_from(_NOT_YET.split()), st.integers(2, 99)), st.tuples(_UNKNOWN_NAMES, _ANYTHING)]
    return st.one_of([*named, *others])


@st.composite
def faults(draw: st.DrawFn) -> Case:
    """A good body with one fault."""
    path = draw(st.sampled_from(PATHS))
    name, value = draw(_wrong(path))
    return refused(path, {name: value}, name)


@st.composite
def pairs(draw: st.DrawFn) -> Case:
    """A good body with two: either may be named."""
    path = draw(st.sampled_from(PATHS))
    both = draw(st.lists(_wrong(path), min_size=2, max_size=2, unique_by=lambda field: field[0]))
    return refused(path, dict(both), *(name for name, _ in both))


# Field, an odd way to write it, and the plain way to say the same.
_ODD_IN_BOTH: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("n", {"n": 1}, {}),
    ("stop", {"stop": []}, {}),
    ("stop", {"stop": "zq"}, {"stop": ["zq"]}),
    ("logit_bias", {"logit_bias": {}}, {}),
    ("logit_bias", {"logit_bias": {"007": 5}}, {"logit_bias": {"7": 5.0}}),
    ("stream", {"stream": False}, {}),
    ("stream", {"stream": None}, {}),
    ("seed", {"seed": -1}, {"seed": 2**64 - 1}),
    ("temperature", {"temperature": 1}, {"temperature": 1.0}),
    ("temperature", {"temperature": None}, {}),
    ("temperature", {"temperature": 0}, {"temperature": 0.0, "seed": 8}),
    ("top_p", {"top_p": 1}, {}),
    ("top_k", {"top_k": 0}, {}),
    ("min_p", {"min_p": 0}, {}),
    ("presence_penalty", {"presence_penalty": -0.0}, {}),
    ("frequency_penalty", {"frequency_penalty": 0}, {}),
    ("repetition_penalty", {"repetition_penalty": 1}, {}),
    ("tools", {"tools": []}, {}),
    ("tool_choice", {"tool_choice": "none"}, {}),
    ("response_format", {"response_format": {"type": "text"}}, {}),
    ("store", {"store": False}, {}),
    ("metadata", {"metadata": {}}, {}),
    ("user", {"user": None}, {}),
]
_PARTS = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
_SENT_BACK: dict[str, Any] = {"role": "user", "content": "Hello", "name": None, "refusal": None, "tool_calls": []}
ODD: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
    CHATS: [
        *_ODD_IN_BOTH,
        ("messages", {"messages": [{"role": "user", "content": _PARTS}]}, {}),
        ("messages", {"messages": [_SENT_BACK]}, {}),
        (
            "messages",
            {"messages": [{"role": "developer", "content": "Be brief."}, *HELLO]},
            {"messages": [{"role": "system", "content": "Be brief."}, *HELLO]},
        ),
        ("max_tokens", {"max_tokens": None, "max_completion_tokens": 2}, {}),
        ("logprobs", {"logprobs": False}, {}),
        ("top_logprobs", {"top_logprobs": 0}, {}),
    ],
    TEXTS: [
        *_ODD_IN_BOTH,
        ("prompt", {"prompt": ["a"]}, {}),
        ("prompt", {"prompt": [[81, 9]]}, {"prompt": [81, 9]}),
        ("echo", {"echo": False}, {}),
        ("suffix", {"suffix": ""}, {}),
        ("best_of", {"best_of": 1}, {}),
    ],
}


@st.composite
def oddities(draw: st.DrawFn) -> Case:
    """A good body, oddly written in up to three places."""
    path = draw(st.sampled_from(PATHS))
    chosen = draw(st.lists(st.sampled_from(ODD[path]), min_size=1, max_size=3, unique_by=lambda one: one[0]))
    odd, plain = good(path), good(path)
    for _, strange, usual in chosen:
        odd.update(strange)
        plain.update(usual)
    return Case(path, odd, plain=(plain,))


def _sampling(name: str) -> Callable[[cluster_pb2.Generation, Any], None]:
    return lambda wish, value: setattr(wish.sampling, name, value)


def _field(name: str) -> Callable[[cluster_pb2.Generation, Any], None]:
    return lambda wish, value: setattr(wish, name, value)


def _prompt_ids(wish: cluster_pb2.Generation, ids: list[int]) -> None:
    wish.prompt_token_ids.SetInParent()
    wish.prompt_token_ids.ids.extend(ids)


def _float_beyond(low: float, high: float) -> Values:
    """Far enough for 32 bits."""
    return st.floats(max_value=low - 0.5, width=32) | st.floats(min_value=high + 0.5, width=32) | st.just(math.nan)


_ABOVE = st.integers(VOCABULARY_SIZE, 2**32 - 1)
_NEGATIVE = st.integers(-(2**31), -1)
# The parameter that is named, what it must not be, and how that gets into a good request.
WRONG_WISHES: list[tuple[str, Values, Callable[[cluster_pb2.Generation, Any], object]]] = [
    ("request_id", st.text("xyz-", max_size=40) | st.just("0" * 40), _field("request_id")),
    ("temperature", _float_beyond(0, 2), _sampling("temperature")),
    ("top_p", _float_beyond(0, 1), _sampling("top_p")),
    ("min_p", _float_beyond(0, 1), _sampling("min_p")),
    ("presence_penalty", _float_beyond(-2, 2), _sampling("presence_penalty")),
    ("frequency_penalty", _float_beyond(-2, 2), _sampling("frequency_penalty")),
    ("repetition_penalty", _float_beyond(0, 100), _sampling("repetition_penalty")),
    ("top_k", _NEGATIVE | st.integers(VOCABULARY_SIZE, 2**31 - 1), _sampling("top_k")),
    (
        "logit_bias",
        st.dictionaries(_ABOVE, st.just(1.0), min_size=1, max_size=3)
        | st.dictionaries(_IDS, _float_beyond(-100, 100), min_size=1, max_size=3)
        | st.just(dict.fromkeys(range(1025), 1.0)),
        lambda wish, value: wish.sampling.logit_bias.update(value),
    ),
    ("max_tokens", _NEGATIVE | st.integers(CONTEXT_TOKENS, 2**31 - 1), _field("max_tokens")),
    (
        "stop",
        st.lists(_SOME_WORDS, max_size=3).map(lambda words: [*words, ""])
        | st.lists(_SOME_WORDS, min_size=17, max_size=20)
        | st.lists(st.text(min_size=257, max_size=300), min_size=1, max_size=2),
        lambda wish, value: wish.stop.extend(value),
    ),
    # 1 to 20 are wrong without logprobs.
    ("top_logprobs", _NEGATIVE | st.integers(1, 2**31 - 1), _field("top_logprob_count")),
    ("prompt", st.tuples(st.lists(_IDS, max_size=3), _ABOVE).map(lambda some: [*some[0], some[1]]), _prompt_ids),
    ("prompt", st.just([]), _prompt_ids),
    ("prompt", st.just(""), _field("text")),
    ("prompt", st.just("text"), lambda wish, value: wish.ClearField(value)),
    (
        "resume_token_ids",
        st.lists(_ABOVE, min_size=1, max_size=3),
        lambda wish, value: wish.resume_token_ids.extend(value),
    ),
    ("messages", st.just(None), lambda wish, value: wish.chat.SetInParent()),
]


@st.composite
def wrong_wishes(draw: st.DrawFn) -> tuple[cluster_pb2.Generation, str]:
    """A generation by gRPC with one fault, and the parameter that its refusal names."""
    wish = cluster_pb2.Generation(request_id=str(draw(st.uuids())), model=DEMO, text="a", max_tokens=2)
    wish.sampling.seed = 1
    param, values, put_in = draw(st.sampled_from(WRONG_WISHES))
    put_in(wish, draw(values))
    return wish, param
