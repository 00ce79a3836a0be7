"""A model's text side: tokenizer and chat template, read from its folder. No code of the model's runs."""

import asyncio
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from thunderline.cluster.errors import InvalidRequest
from thunderline.runner import model_files

# Tokenizing this many characters takes about a millisecond; more goes to a thread (tokenizers lets the loop run).
INLINE_LENGTH_MAX = 2000


@dataclass(frozen=True, slots=True)
class ModelText:
    """Everything that turns text into ids and back."""

    tokenizer: Tokenizer
    template: jinja2.Template | None
    # Names that templates use, such as bos_token.
    special: Mapping[str, str]
    end_token_ids: tuple[int, ...]
    vocabulary_size: int
    context_length_tokens: int

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def token_bytes(self, token_id: int) -> bytes:
        """What a single token stands for; parts of a character come as they decode."""
        return str(self.tokenizer.decode([token_id], skip_special_tokens=False)).encode()

    async def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Ids of a text; `add_special_tokens` as the tokenizer's own post-processor says (a BOS, mostly)."""
        if len(text) <= INLINE_LENGTH_MAX:
            return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)
        encoded = await asyncio.to_thread(self.tokenizer.encode, text, add_special_tokens=add_special_tokens)
        return list(encoded.ids)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt of a chat. Raises InvalidRequest when the template refuses it or there is none."""
        if self.template is None:
            text = "messages: this model has no chat template; use /v1/completions with a prompt"
            raise InvalidRequest(text, param="messages")
        try:
            return self.template.render(messages=messages, add_generation_prompt=True, tools=None, **self.special)
        except jinja2.TemplateError as error:
            text = f"messages: the model's chat template refuses them: {error}"
            raise InvalidRequest(text, param="messages") from None


def read(folder: Path) -> ModelText:
    """Raises OSError, ValueError (with the file's name) for files that are missing or broken."""
    config = _object(folder / "config.json")
    generation = _object(folder / "generation_config.json", required=False)
    settings = _object(folder / "tokenizer_config.json", required=False)
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise ValueError(f"{folder / 'tokenizer.json'}: {error}") from None
    special = {key: text for key in _SPECIAL if (text := _token(settings.get(key))) is not None}
    values = {**config, **config["text_config"]} if isinstance(config.get("text_config"), dict) else config
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return ModelText(
        tokenizer=tokenizer,
        template=_template(folder, settings),
        special=special,
        end_token_ids=model_files.end_token_ids(config, generation, special.get("eos_token"), vocabulary),
        vocabulary_size=int(values.get("vocab_size") or len(vocabulary)),
        context_length_tokens=model_files.facts(config, 0, [], 4).context_length_tokens,
    )


_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def _token(value: Any) -> str | None:
    """A special token: a string, or an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _object(path: Path, required: bool = True) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    tree = json.loads(path.read_text())
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds no object")
    return tree


def _template(folder: Path, settings: Mapping[str, Any]) -> jinja2.Template | None:
    file = folder / "chat_template.jinja"
    source: Any = file.read_text() if file.exists() else settings.get("chat_template")
    if isinstance(source, list):
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        return None
    try:
        return _ENVIRONMENT.from_string(source)
    except jinja2.TemplateError as error:
        raise ValueError(f"the chat template of {folder}: {error}") from None


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False, **_: Any) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)


def _now(layout: str) -> str:
    return datetime.datetime.now().strftime(layout)


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers' chat templates expect: https://huggingface.co/docs/transformers/chat_templating."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals.update({"raise_exception": _raise, "strftime_now": _now})
    environment.filters["tojson"] = _tojson
    return environment


_ENVIRONMENT = _environment()
