"""A model's chat template: foreign code, run in jinja2's sandbox. Pure but for `strftime_now`, which templates ask for.

As transformers has it: https://huggingface.co/docs/transformers/chat_templating.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from thunderline.cluster.errors import InvalidRequest

# A refusal is one line for a client.
REFUSAL_LENGTH_MAX = 300


class GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012  the base class has it so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's own it escapes no HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(layout: str) -> str:
    return datetime.datetime.now().strftime(layout)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
    )
    environment.globals.update({"raise_exception": _raise, "strftime_now": _now})
    environment.filters["tojson"] = _to_json
    return environment


_ENVIRONMENT = _environment()


def source(file: str | None, settings: Mapping[str, Any]) -> str | None:
    """The template: chat_template.jinja's text, else tokenizer_config.json's; of several named ones "default"."""
    found: Any = file if file is not None else settings.get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


class ChatTemplate:
    """Renders chats to prompts. Without a usable template it refuses each, with the reason and what to do instead."""

    def __init__(self, source: str | None, special_tokens: Mapping[str, str]) -> None:
        self._special_tokens = dict(special_tokens)
        self._template: jinja2.Template | None = None
        self._why = "this model has no chat template"
        if source is None:
            return
        try:
            self._template = _ENVIRONMENT.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            self._why = f"this model's chat template cannot be read ({error})"

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt, ready for the assistant's answer. Raises InvalidRequest (param: messages)."""
        if self._template is None:
            raise InvalidRequest(f"messages: {self._why}; use /v1/completions with a prompt", param="messages")
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **self._special_tokens,
            )
        # The border to the model's own code: it may raise anything (a TypeError for a role that it does not expect).
        except Exception as error:
            words = " ".join(str(error).split())[:REFUSAL_LENGTH_MAX]
            raise InvalidRequest(
                f"messages: the model's chat template refuses them: {words}", param="messages"
            ) from None
