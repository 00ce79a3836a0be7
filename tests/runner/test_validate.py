"""What a request must be before anything of it reaches the rank."""

import math
from typing import Any

import pytest

from thunderline.cluster.errors import ContextLengthExceeded, InvalidRequest
from thunderline.runner.validate import Bounds, Wish, check_ids, check_request_id, check_wish, tokens_to_make

BOUNDS = Bounds(vocabulary_size=1000, context_length_tokens=100, kv_budget_tokens=80)

REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a_negative_temperature": ("temperature", {"temperature": -0.1}),
    "a_temperature_above_two": ("temperature", {"temperature": 2.1}),
    "a_temperature_that_is_no_number": ("temperature", {"temperature": math.nan}),
    "an_infinite_temperature": ("temperature", {"temperature": math.inf}),
    "a_top_p_above_one": ("top_p", {"top_p": 1.1}),
    "a_negative_top_p": ("top_p", {"top_p": -0.1}),
    "a_top_p_that_is_no_number": ("top_p", {"top_p": math.nan}),
    "a_negative_top_k": ("top_k", {"top_k": -1}),
    "a_top_k_as_large_as_the_vocabulary": ("top_k", {"top_k": 1000}),
    "a_min_p_above_one": ("min_p", {"min_p": 1.5}),
    "a_presence_penalty_above_two": ("presence_penalty", {"presence_penalty": 2.5}),
    "a_frequency_penalty_below_minus_two": ("frequency_penalty", {"frequency_penalty": -3}),
    "a_negative_repetition_penalty": ("repetition_penalty", {"repetition_penalty": -1}),
    "a_tiny_repetition_penalty": ("repetition_penalty", {"repetition_penalty": 1e-40}),
    "an_infinite_repetition_penalty": ("repetition_penalty", {"repetition_penalty": math.inf}),
    "negative_max_tokens": ("max_tokens", {"max_tokens": -1}),
    "more_than_twenty_top_logprobs": ("top_logprobs", {"top_logprob_count": 21, "logprobs": True}),
    "top_logprobs_without_logprobs": ("top_logprobs", {"top_logprob_count": 2}),
    "an_empty_stop_string": ("stop", {"stop": [""]}),
    "a_stop_string_of_257_characters": ("stop", {"stop": ["x" * 257]}),
    "seventeen_stop_strings": ("stop", {"stop": ["x"] * 17}),
    "a_bias_for_a_token_that_does_not_exist": ("logit_bias", {"logit_bias": {1000: 1.0}}),
    "a_bias_that_is_no_number": ("logit_bias", {"logit_bias": {1: math.nan}}),
    "a_bias_above_one_hundred": ("logit_bias", {"logit_bias": {1: 101.0}}),
    "too_many_biases": ("logit_bias", {"logit_bias": dict.fromkeys(range(1025), 0.0)}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_by_name(case: str) -> None:
    param, fields = REFUSED[case]
    with pytest.raises(InvalidRequest) as caught:
        check_wish(Wish(**fields), BOUNDS)
    assert caught.value.param == param
    assert param in caught.value.message


ACCEPTED: dict[str, dict[str, Any]] = {
    "nothing_set": {},
    "the_upper_ends": {"temperature": 2.0, "top_p": 1.0, "top_k": 999, "min_p": 1.0, "presence_penalty": 2.0},
    "the_lower_ends": {"presence_penalty": -2.0, "frequency_penalty": -2.0, "repetition_penalty": 0.01},
    "sixteen_stop_strings_of_256_characters": {"stop": ["x" * 256] * 16},
    "twenty_top_logprobs": {"top_logprob_count": 20, "logprobs": True},
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_it_is_accepted(case: str) -> None:
    check_wish(Wish(**ACCEPTED[case]), BOUNDS)


@pytest.mark.parametrize("request_id", ["", "7", "not-a-uuid", "x" * 4000])
def test_a_request_id_must_be_a_uuid(request_id: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_request_id(request_id)
    assert caught.value.param == "request_id"


def test_ids_outside_the_vocabulary_are_refused() -> None:
    check_ids("prompt", [0, 999], 1000)
    with pytest.raises(InvalidRequest) as caught:
        check_ids("prompt", [5, 1000], 1000)
    assert caught.value.param == "prompt"


# prompt tokens, max_tokens, bounds -> tokens to make
ROOM: dict[str, tuple[int, int, Bounds, int]] = {
    "what_was_asked_for": (10, 20, BOUNDS, 20),
    "zero_is_as_many_as_the_budget_allows": (10, 0, BOUNDS, 70),
    "zero_is_as_many_as_the_context_allows": (10, 0, Bounds(1000, 100, 1000), 90),
    "zero_is_a_bounded_answer_in_a_long_context": (10, 0, Bounds(1000, 131_072, 262_144), 8192),
    "what_was_asked_for_may_be_longer": (10, 100_000, Bounds(1000, 131_072, 262_144), 100_000),
    "exactly_the_room": (60, 20, BOUNDS, 20),
    "an_unknown_budget_is_no_limit": (10, 0, Bounds(1000, 100, 0), 90),
    "an_unknown_context_is_no_limit": (10, 0, Bounds(1000, 0, 80), 70),
    "nothing_known_is_a_modest_context": (10, 0, Bounds(1000, 0, 0), 8182),
}


@pytest.mark.parametrize("case", ROOM)
def test_room(case: str) -> None:
    prompt, max_tokens, bounds, expected = ROOM[case]
    assert tokens_to_make("prompt", prompt, max_tokens, bounds) == expected


# prompt tokens, max_tokens -> the field to blame
TOO_LONG: dict[str, tuple[int, int, str]] = {
    "a_prompt_alone": (80, 0, "prompt"),
    "a_prompt_far_too_long": (500, 5, "prompt"),
    "an_answer_that_does_not_fit": (60, 21, "max_tokens"),
}


@pytest.mark.parametrize("case", TOO_LONG)
def test_what_does_not_fit_is_refused_with_both_figures(case: str) -> None:
    prompt, max_tokens, param = TOO_LONG[case]
    with pytest.raises(ContextLengthExceeded) as caught:
        tokens_to_make("prompt", prompt, max_tokens, BOUNDS)
    assert str(prompt) in caught.value.message
    assert "80" in caught.value.message
    assert caught.value.param == param


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        tokens_to_make("messages", 0, 5, BOUNDS)
    assert caught.value.param == "messages"
