"""Token ids to text, piece by piece: the pieces joined are what decoding all at once gives. Pure."""

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"
# The bytes of an unfinished character: byte-fallback vocabularies show each of up to three as a broken character.
HELD_LENGTH_MAX = 3
# They also show a whole run of bytes as broken until its last character is whole; one that stays so is really broken.
REWRITTEN_COUNT_MAX = 4
# Decoded again with each token, so that the text of a token may depend on its neighbours; a character has at most
# four bytes, so an unfinished one never begins before this window.
CONTEXT_TOKEN_COUNT = 6
# The window is shortened to the context each time that it has grown by this.
WINDOW_TOKEN_COUNT = 16
# Special tokens have no text to recognise the window's start by; more of them than this are not kept for it.
WINDOW_TOKEN_COUNT_MAX = 64


class Detokenizer:
    """Decodes a growing sequence, keeping back the end that a later token may still change.

    `decode` is the tokenizer's, without special tokens. Method: decode a short window of the newest tokens and give
    what goes beyond the part of its text that was given before.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._shorten_at = WINDOW_TOKEN_COUNT
        # Of the window's text, what was given.
        self._given = ""
        self._rewritten_count = 0

    def feed(self, ids: Sequence[int]) -> str:
        """The text that became certain."""
        return "".join([self._advance(token_id) for token_id in ids])

    def finish(self) -> str:
        """What was held back, broken characters included. Nothing may be fed afterwards."""
        return self._decode(self._window)[len(self._given) :]

    def _advance(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._decode(self._window)
        if not text.startswith(self._given):
            self._rewritten_count += 1
            if text.endswith(BROKEN) and self._rewritten_count < REWRITTEN_COUNT_MAX:
                return ""
        self._rewritten_count = 0
        certain_length = max(len(self._given), len(text) - _held_length(text))
        piece = text[len(self._given) : certain_length]
        self._given = text[:certain_length]
        if len(self._window) >= self._shorten_at:
            self._shorten(text)
            self._shorten_at = len(self._window) + WINDOW_TOKEN_COUNT
        return piece

    def _shorten(self, text: str) -> None:
        """Drops old tokens where the rest decodes to the same end: not inside a character.

        Some decoders strip the space before the first word, so the rest must hold a word where the window has one.
        """
        held_length = len(text) - len(self._given)
        may_be_empty = not text or len(self._window) >= WINDOW_TOKEN_COUNT_MAX
        for start in range(len(self._window) - CONTEXT_TOKEN_COUNT, 0, -1):
            rest = self._decode(self._window[start:])
            if len(rest) >= held_length and text.endswith(rest) and (rest or may_be_empty):
                del self._window[:start]
                self._given = rest[: len(rest) - held_length]
                return


def _held_length(text: str) -> int:
    """How many broken characters at the end may still become a whole one."""
    return min(len(text) - len(text.rstrip(BROKEN)), HELD_LENGTH_MAX)
