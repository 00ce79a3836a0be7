"""Token ids to text, piece by piece: the pieces joined are what decoding all at once gives. Pure."""

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"
# A character of a byte-level vocabulary takes at most four tokens; one that stays broken for longer is really broken.
HELD_TOKEN_COUNT_MAX = 16
# Decoded again with each token, so that the text of a token may depend on its neighbours.
CONTEXT_TOKEN_COUNT = 6


class Detokenizer:
    """Decodes a growing sequence, keeping back the end that a later token may still change.

    `decode` is the tokenizer's, without special tokens. Method: decode a short window twice, with and without the
    newest tokens, and take the difference (as vLLM's and TGI's incremental detokenizers do).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._window_start = 0
        self._read_to = 0

    def feed(self, ids: Sequence[int]) -> str:
        """The text that became certain."""
        pieces = []
        for token_id in ids:
            self._ids.append(token_id)
            pieces.append(self._advance(final=False))
        return "".join(pieces)

    def finish(self) -> str:
        """What was held back, broken characters included."""
        return self._advance(final=True)

    def _advance(self, final: bool) -> str:
        before = self._decode(self._ids[self._window_start : self._read_to])
        now = self._decode(self._ids[self._window_start :])
        held = len(self._ids) - self._read_to
        if now.endswith(BROKEN) and not final and held < HELD_TOKEN_COUNT_MAX:
            return ""
        if not now.startswith(before):
            # A decoder that rewrites what stood: give what follows the part that both share.
            shared = next((n for n, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), len(now))
            before = now[:shared]
        if len(now) <= len(before) and not final:
            return ""
        self._read_to = len(self._ids)
        self._window_start = max(self._window_start, self._read_to - CONTEXT_TOKEN_COUNT)
        self._window_start = self._clean_start()
        return now[len(before) :]

    def _clean_start(self) -> int:
        """A window start at which decoding begins with a whole character."""
        start = self._window_start
        while start > 0 and self._decode(self._ids[start : self._read_to]).startswith(BROKEN):
            start -= 1
        return start
