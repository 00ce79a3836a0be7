"""The bytes that a token of a vocabulary stands for, also where they are only a part of a character. Pure."""

from collections.abc import Mapping
from typing import Any


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes: https://github.com/openai/gpt-2/blob/master/src/encoder.py."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


def _kinds(decoder: Any) -> set[str]:
    """The decoders of a tokenizer.json, those of a sequence too."""
    if not isinstance(decoder, Mapping):
        return set()
    inner = decoder.get("decoders")
    nested = [_kinds(one) for one in inner] if isinstance(inner, list) else []
    return {str(decoder.get("type"))}.union(*nested)


class TokenBytes:
    """Reads a token as its vocabulary writes it. `tokenizer` is the tree of a tokenizer.json."""

    def __init__(self, tokenizer: Mapping[str, Any]) -> None:
        kinds = _kinds(tokenizer.get("decoder"))
        self._is_byte_level = "ByteLevel" in kinds
        self._falls_back = "ByteFallback" in kinds
        added = tokenizer.get("added_tokens")
        # Written as they are, whatever the vocabulary's alphabet.
        self._plain = {str(one.get("content")) for one in added if isinstance(one, Mapping)} if added else set()

    def __call__(self, token: str) -> bytes | None:
        """None when only the tokenizer's own decoder knows."""
        if token in self._plain:
            return token.encode()
        if self._is_byte_level and all(character in _ALPHABET for character in token):
            return bytes(_ALPHABET[character] for character in token)
        if self._falls_back and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                return None
        return None
