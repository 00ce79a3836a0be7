"""What a request must be before anything of it reaches the rank. Pure: raises InvalidRequest that names the field.

An exception inside the engine can change the tokens of other requests, so nothing unchecked gets there.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from thunderline.cluster.errors import ContextLengthExceeded, InvalidRequest

STOP_COUNT_MAX = 16
STOP_LENGTH_MAX = 256
TOP_LOGPROB_COUNT_MAX = 20
LOGIT_BIAS_COUNT_MAX = 1024
# An answer whose length nobody bounds is given this much: its room in KV is reserved as a whole, and with all of a long
# context for each two such requests would fill the batch.
ANSWER_TOKENS_DEFAULT = 8192


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the model and its instance allow; 0 tokens: not known, so no limit."""

    vocabulary_size: int
    context_length_tokens: int
    kv_budget_tokens: int


@dataclass(frozen=True, slots=True)
class Wish:
    """The numbers of a request. 0 means "not set" where the API says so."""

    temperature: float = 0.0
    top_p: float = 0.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    max_tokens: int = 0
    stop: Sequence[str] = ()
    top_logprob_count: int = 0
    logprobs: bool = False


def invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {message}", param=param)


# Field, what it must be, and the test. NaN fails every comparison.
_NUMBERS: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("temperature", "must be between 0 and 2", lambda v: 0 <= v <= 2),
    ("top_p", "must be above 0 and at most 1", lambda v: 0 <= v <= 1),
    ("min_p", "must be between 0 and 1", lambda v: 0 <= v <= 1),
    ("presence_penalty", "must be between -2 and 2", lambda v: -2 <= v <= 2),
    ("frequency_penalty", "must be between -2 and 2", lambda v: -2 <= v <= 2),
    # 0 is how the wire says "not set"; a logit divided by a tiny or a huge number is none that a sampler can use.
    ("repetition_penalty", "must be between 0.01 and 100", lambda v: v == 0 or 0.01 <= v <= 100),
    ("max_tokens", "must not be negative", lambda v: v >= 0),
    ("top_logprobs", f"must be between 0 and {TOP_LOGPROB_COUNT_MAX}", lambda v: 0 <= v <= TOP_LOGPROB_COUNT_MAX),
)


def check_wish(wish: Wish, bounds: Bounds) -> None:
    """Raises InvalidRequest."""
    for param, demand, allowed in _NUMBERS:
        value = wish.top_logprob_count if param == "top_logprobs" else getattr(wish, param)
        if not allowed(value):
            raise invalid(param, f"{value} is not allowed; it {demand}")
    if not 0 <= wish.top_k < bounds.vocabulary_size:
        raise invalid("top_k", f"{wish.top_k} is not allowed; the vocabulary has {bounds.vocabulary_size} tokens")
    if wish.top_logprob_count and not wish.logprobs:
        raise invalid("top_logprobs", "needs logprobs")
    _check_bias(wish.logit_bias or {}, bounds.vocabulary_size)
    check_stops(wish.stop)


def _check_bias(bias: Mapping[int, float], vocabulary_size: int) -> None:
    if len(bias) > LOGIT_BIAS_COUNT_MAX:
        raise invalid("logit_bias", f"has {len(bias)} entries, at most {LOGIT_BIAS_COUNT_MAX} are allowed")
    for token_id, value in bias.items():
        if not 0 <= token_id < vocabulary_size:
            raise invalid("logit_bias", f"token {token_id} is not in the vocabulary of {vocabulary_size}")
        if not -100 <= value <= 100:
            raise invalid("logit_bias", f"{value} is not allowed; it must be between -100 and 100")


def check_stops(stops: Sequence[str]) -> None:
    """Raises InvalidRequest."""
    if len(stops) > STOP_COUNT_MAX:
        raise invalid("stop", f"{len(stops)} strings, at most {STOP_COUNT_MAX} are allowed")
    for stop in stops:
        if not 1 <= len(stop) <= STOP_LENGTH_MAX:
            raise invalid("stop", f"a stop string must have 1 to {STOP_LENGTH_MAX} characters")


def check_request_id(request_id: str) -> None:
    """Raises InvalidRequest."""
    try:
        uuid.UUID(request_id)
    except ValueError:
        raise invalid("request_id", "must be a UUID, made by the client for each request") from None


def check_ids(param: str, ids: Sequence[int], vocabulary_size: int) -> None:
    """Raises InvalidRequest for a token that the model does not have."""
    if ids and max(ids) >= vocabulary_size:
        raise invalid(param, f"token {max(ids)} is not in the vocabulary of {vocabulary_size}")


# Of a model that names no context.
CONTEXT_LENGTH_UNKNOWN = 8192


def room(bounds: Bounds) -> tuple[int, str]:
    """Tokens that prompt and answer may have together, and what sets that."""
    known = [
        (tokens, what)
        for tokens, what in (
            (bounds.context_length_tokens, "context"),
            (bounds.kv_budget_tokens, "KV budget of this deployment"),
        )
        if tokens > 0
    ]
    return min(known, key=lambda pair: pair[0], default=(CONTEXT_LENGTH_UNKNOWN, "context"))


def tokens_to_make(param: str, prompt_token_count: int, max_tokens: int, bounds: Bounds) -> int:
    """How many tokens the answer may have; resumed ones count as part of it.

    Raises InvalidRequest for an empty prompt, ContextLengthExceeded with both figures.
    """
    if prompt_token_count == 0:
        raise invalid(param, "is empty: at least one token is needed")
    room_tokens, limit = room(bounds)
    wanted = max_tokens or 1
    if prompt_token_count + wanted > room_tokens:
        answer = f" plus max_tokens {max_tokens}" if max_tokens else ""
        alone = prompt_token_count >= room_tokens or not max_tokens
        raise ContextLengthExceeded(
            f"{param}: {prompt_token_count} tokens{answer} do not fit the {limit} of {room_tokens} tokens",
            param=param if alone else "max_tokens",
            prompt_tokens=str(prompt_token_count),
            room_tokens=str(room_tokens),
        )
    return max_tokens or min(room_tokens - prompt_token_count, ANSWER_TOKENS_DEFAULT)
