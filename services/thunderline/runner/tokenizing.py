"""A model's text side, read from its folder: tokenizer, chat template, end tokens. No code of the model's own runs."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from thunderline.runner import model_files
from thunderline.runner.chat_template import ChatTemplate, source
from thunderline.runner.token_bytes import TokenBytes

# Tokenizing this many characters takes about a millisecond; more goes to a thread (tokenizers lets the loop run).
INLINE_LENGTH_MAX = 2000
# Names that templates use.
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True, slots=True)
class ModelText:
    """Everything that turns text into ids and back."""

    tokenizer: Tokenizer
    template: ChatTemplate
    bos_token: str | None
    end_token_ids: tuple[int, ...]
    bytes_of: TokenBytes

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def token_bytes(self, token_id: int) -> bytes:
        """What a single token stands for; for a part of a character these bytes are no text."""
        token = self.tokenizer.id_to_token(token_id)
        found = self.bytes_of(token) if token is not None else None
        if found is not None:
            return found
        return str(self.tokenizer.decode([token_id], skip_special_tokens=False)).encode()

    async def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text, with what the tokenizer's post-processor adds (a BOS, mostly), unless the text brings it."""
        has_bos = self.bos_token is not None and text.startswith(self.bos_token)
        return await self._encode(text, add_special_tokens=not has_bos)

    async def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of a chat; its template writes its own BOS. Raises InvalidRequest."""
        return await self._encode(self.template.render(messages), add_special_tokens=False)

    async def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        if len(text) <= INLINE_LENGTH_MAX:
            return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)
        # `encode` holds the interpreter's lock all the while, `encode_batch` does not: 2.1 s against 0.05 for 4 MB.
        (encoded,) = await asyncio.to_thread(self.tokenizer.encode_batch, [text], add_special_tokens=add_special_tokens)
        return list(encoded.ids)


def read(folder: Path) -> ModelText:
    """Raises OSError, ValueError (with the file's name) for files that are missing or broken."""
    config = _object(folder / "config.json")
    generation = _object(folder / "generation_config.json", required=False)
    settings = _object(folder / "tokenizer_config.json", required=False)
    tree = _object(folder / "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise ValueError(f"{folder / 'tokenizer.json'}: {error}") from None
    # Settings of somebody's training, saved along: they would cut or fill prompts silently.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = {key: text for key in SPECIAL_TOKENS if (text := _token(settings.get(key))) is not None}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    file = folder / "chat_template.jinja"
    return ModelText(
        tokenizer=tokenizer,
        template=ChatTemplate(source(file.read_text() if file.exists() else None, settings), special),
        bos_token=special.get("bos_token"),
        end_token_ids=model_files.end_token_ids(config, generation, special.get("eos_token"), vocabulary),
        bytes_of=TokenBytes(tree),
    )


def _token(value: Any) -> str | None:
    """A special token: a string, or an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _object(path: Path, required: bool = True) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    try:
        tree = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds no object")
    return tree
