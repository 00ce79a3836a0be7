"""Token ids to text, piece by piece: the pieces joined are what decoding all at once gives. Pure."""

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"
# The bytes of an unfinished character: byte-fallback vocabularies show each of up to three as a broken character.
HELD_LENGTH_MAX = 3
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
        # Of the window's text, how much was given.
        self._given_length = 0

    def feed(self, ids: Sequence[int]) -> str:
        """The text that became certain."""
        return "".join([self._advance(token_id) for token_id in ids])

    def finish(self) -> str:
        """What was held back, broken characters included. Nothing may be fed afterwards."""
        text = self._decode(self._window)[self._given_length :]
        self._window.clear()
        self._given_length = 0
        return text

    def _advance(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._decode(self._window)
        certain_length = len(text) - _held_length(text)
        piece = text[self._given_length : certain_length]
        self._given_length = max(self._given_length, certain_length)
        if len(self._window) % WINDOW_TOKEN_COUNT == 0:
            self._shorten(text)
        return piece

    def _shorten(self, text: str) -> None:
        """Drops old tokens where the rest decodes to the same end: not inside a character.

        Some decoders strip the space before the first word, so the rest must hold a word where the window has one.
        """
        held_length = len(text) - self._given_length
        may_be_empty = not text or len(self._window) >= WINDOW_TOKEN_COUNT_MAX
        for start in range(len(self._window) - CONTEXT_TOKEN_COUNT, 0, -1):
            rest = self._decode(self._window[start:])
            if len(rest) >= held_length and text.endswith(rest) and (rest or may_be_empty):
                del self._window[:start]
                self._given_length = len(rest) - held_length
                return


def _held_length(text: str) -> int:
    """How many broken characters at the end may still become a whole one."""
    return min(len(text) - len(text.rstrip(BROKEN)), HELD_LENGTH_MAX)
