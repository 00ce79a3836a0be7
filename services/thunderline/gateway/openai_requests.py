"""OpenAI's request bodies: what is supported is checked, what is not is refused by name, nothing is ignored. Pure.

https://platform.openai.com/docs/api-reference/chat/create and .../completions/create
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thunderline.cluster.errors import InvalidRequest
from thunderline.v1 import cluster_pb2

CHOICE_COUNT_MAX = 8
PROMPT_COUNT_MAX = 16
TOKEN_ID_MAX = 2**32 - 1
SEED_MIN, SEED_MAX = -(2**63), 2**64 - 1
COMPLETION_TOKENS_DEFAULT = 16

# Parameters that OpenAI knows and we do not do yet, with the values that ask for nothing.
_NOTHING: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "parallel_tool_calls": (True, False),
    "store": (False,),
    "metadata": ({},),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "user": (),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _TextPart(_Strict):
    type: Literal["text"]
    text: str


class _Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]
    name: str | None = None
    # What an answer of ours has beside its content: clients send it back as it was.
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class _StreamOptions(_Strict):
    include_usage: bool = False
    # Padding against eavesdroppers that measure lengths; asking for none is what we do.
    include_obfuscation: Literal[False] = False


_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Common(_Strict):
    model: str = Field(min_length=1, max_length=256)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    temperature: _Number | None = Field(None, ge=0, le=2)
    top_p: _Number | None = Field(None, gt=0, le=1)
    # Extensions that most local servers have.
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    min_p: _Number | None = Field(None, ge=0, le=1)
    repetition_penalty: _Number | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=SEED_MIN, le=SEED_MAX)
    n: int | None = Field(None, ge=1, le=CHOICE_COUNT_MAX)
    presence_penalty: _Number | None = Field(None, ge=-2, le=2)
    frequency_penalty: _Number | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, _Number] | None = None


class _Chat(_Common):
    messages: list[_Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)


_TokenId = Annotated[int, Field(ge=0, le=TOKEN_ID_MAX)]


class _Completion(_Common):
    prompt: str | list[_TokenId] | list[str] | list[list[_TokenId]]
    logprobs: int | None = Field(None, ge=0, le=5)


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request: one Generation per choice, without ids; a seed in each when the client gave one or n > 1."""

    model: str
    is_chat: bool
    stream: bool
    include_usage: bool
    generations: tuple[cluster_pb2.Generation, ...]
    # Choices of one prompt; completions may have several prompts.
    choices_per_prompt: int
    logprobs: bool


def chat(body: Mapping[str, Any], drawn_seed: int) -> Asked:
    """`drawn_seed` is used where several choices need one and the client gave none.

    Raises InvalidRequest that names the parameter.
    """
    wish = _parsed(_Chat, body)
    if wish.max_tokens is not None and wish.max_completion_tokens is not None:
        raise _invalid("max_completion_tokens", "stands beside max_tokens; give one of them")
    if wish.top_logprobs and not wish.logprobs:
        raise _invalid("top_logprobs", "needs logprobs: true")
    messages = [
        cluster_pb2.ChatMessage(
            role="system" if one.role == "developer" else one.role, content=one.text, name=one.name or ""
        )
        for one in wish.messages
    ]
    base = cluster_pb2.Generation(
        chat=cluster_pb2.Chat(messages=messages),
        max_tokens=wish.max_completion_tokens or wish.max_tokens or 0,
        logprobs=bool(wish.logprobs),
        top_logprob_count=wish.top_logprobs or 0,
    )
    return _asked(wish, [base], True, drawn_seed)


def completion(body: Mapping[str, Any], drawn_seed: int) -> Asked:
    """As `chat`. Raises InvalidRequest that names the parameter."""
    wish = _parsed(_Completion, body)
    prompts = _prompts(wish.prompt)
    bases = []
    for prompt in prompts:
        base = cluster_pb2.Generation(
            max_tokens=wish.max_tokens or COMPLETION_TOKENS_DEFAULT,
            logprobs=wish.logprobs is not None,
            top_logprob_count=wish.logprobs or 0,
        )
        if isinstance(prompt, str):
            base.text = prompt
        else:
            base.prompt_token_ids.ids.extend(prompt)
        bases.append(base)
    return _asked(wish, bases, False, drawn_seed)


def _prompts(prompt: Any) -> list[str | list[int]]:
    """One entry per prompt. Raises InvalidRequest for empty ones."""
    several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    prompts = list(prompt) if several else [prompt]
    if len(prompts) > PROMPT_COUNT_MAX:
        raise _invalid("prompt", f"{len(prompts)} prompts, at most {PROMPT_COUNT_MAX} are allowed")
    if any(len(one) == 0 for one in prompts):
        raise _invalid("prompt", "is empty: at least one token is needed")
    return prompts


def _asked(wish: _Common, bases: list[cluster_pb2.Generation], is_chat: bool, drawn_seed: int) -> Asked:
    if wish.stream_options is not None and not wish.stream:
        raise _invalid("stream_options", "needs stream: true")
    count = wish.n or 1
    # n answers are n seeds in a row, also when the first is drawn.
    seed = wish.seed if wish.seed is not None or count == 1 else drawn_seed
    generations = []
    for base in bases:
        base.model = wish.model
        base.stop.extend([wish.stop] if isinstance(wish.stop, str) else wish.stop or [])
        _sample(base.sampling, wish)
        for number in range(count):
            one = cluster_pb2.Generation()
            one.CopyFrom(base)
            if seed is not None:
                one.sampling.seed = (seed + number) % 2**64
            generations.append(one)
    return Asked(
        model=wish.model,
        is_chat=is_chat,
        stream=bool(wish.stream),
        include_usage=bool(wish.stream_options and wish.stream_options.include_usage),
        generations=tuple(generations),
        choices_per_prompt=count,
        logprobs=bases[0].logprobs,
    )


def _sample(sampling: cluster_pb2.Sampling, wish: _Common) -> None:
    sampling.temperature = 1.0 if wish.temperature is None else wish.temperature
    sampling.top_p = 0.0 if wish.top_p is None else wish.top_p
    sampling.top_k = wish.top_k or 0
    sampling.min_p = wish.min_p or 0.0
    sampling.presence_penalty = wish.presence_penalty or 0.0
    sampling.frequency_penalty = wish.frequency_penalty or 0.0
    sampling.repetition_penalty = wish.repetition_penalty or 0.0
    for token, value in (wish.logit_bias or {}).items():
        if not token.isascii() or not token.isdigit() or int(token) > TOKEN_ID_MAX:
            raise _invalid("logit_bias", f"{token!r} is no token id")
        sampling.logit_bias[int(token)] = value


def _parsed(kind: type[Any], body: Mapping[str, Any]) -> Any:
    given = {key: value for key, value in body.items() if value is not None}
    for key, nothing in _NOTHING.items():
        if key in given:
            value = given.pop(key)
            if not any(type(value) is type(one) and value == one for one in nothing):
                raise _invalid(key, "is not supported yet")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _first(error) from None


def _first(found: ValidationError) -> InvalidRequest:
    """The first complaint, under the name of the parameter at its root."""
    first = found.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"] if not _is_branch(part))
    param = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return _invalid(str(param), "is not a parameter of this endpoint")
    if first["type"] == "missing":
        return InvalidRequest(f"{where}: is missing", param=param or "")
    return InvalidRequest(f"{where}: {first['msg']}", param=param or "")


def _is_branch(part: int | str) -> bool:
    """Names that pydantic gives to the branches of a union."""
    return isinstance(part, str) and ("[" in part or part in {"str", "float", "int", "_TextPart"})


def _invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {message}", param=param)
