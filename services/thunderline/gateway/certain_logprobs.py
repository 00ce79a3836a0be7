"""Log-probabilities go as far as the text: what a stop string took back, or still may, does not show in them. Pure.

Tokens come at once, their text when it is certain. Where a token lies in the text is found by its bytes, for it may
hold a part of a character, and a special one has bytes and no text.
"""

import codecs
from collections import deque
from dataclasses import dataclass

from thunderline.v1 import cluster_pb2

BROKEN = "\N{REPLACEMENT CHARACTER}"
# What a text may have before a token whose bytes do not tell it: a vocabulary may lose a space when it decodes a token
# alone, or show every byte of a broken character.
UNTOLD = " " + BROKEN


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry, and the character of its choice's text in which it begins. Special tokens are not in the text."""

    entry: cluster_pb2.TokenLogprob
    offset: int
    in_text: bool = True


class CertainLogprobs:
    """Of one choice. However its answer is cut into deltas, the same entries go, in their order.

    An entry goes once the last character that it is a part of was sent; at the finish also one of which only a part was
    sent, for a stop string cut it. One without text goes with the next character.
    """

    def __init__(self) -> None:
        self._waiting: deque[cluster_pb2.TokenLogprob] = deque()
        # What was sent beyond the characters of placed entries, and where that begins.
        self._rest = ""
        self._offset = 0
        # Placed; they go when the next character has come.
        self._held: list[Placed] = []
        # Whether the first of them has characters before that one.
        self._is_begun = False
        # The bytes of that character which they have.
        self._unfinished = b""
        self._certain: list[Placed] = []

    def take(self, delta: cluster_pb2.GenerationDelta) -> list[Placed]:
        """The entries that go with this delta's text."""
        self._rest += delta.text
        self._waiting.extend(delta.logprobs)
        is_last = bool(delta.finish_reason)
        while self._waiting and self._place(self._waiting[0], is_last):
            self._waiting.popleft()
        certain, self._certain = self._certain, []
        return certain + self._begun() if is_last else certain

    def _begun(self) -> list[Placed]:
        """Of those that are held at the finish, what begins in the text."""
        if self._unfinished and self._rest.startswith(BROKEN):
            return self._held[: max(place for place, one in enumerate(self._held, 1) if one.in_text)]
        return self._held[:1] if self._is_begun else []

    def _place(self, entry: cluster_pb2.TokenLogprob, is_last: bool) -> bool:
        """Whether its place is known; at the finish, whether later ones may have one too."""
        reading = self._reading(entry.token_bytes, is_last)
        if reading is None:
            self._held.append(Placed(entry, self._offset, in_text=False))
            return True
        before, characters, unfinished = reading
        length = before + len(characters)
        placed = Placed(entry, self._offset + before)
        if len(self._rest) >= length:
            self._held.append(placed)
            self._advance(length, unfinished)
            if length:
                self._is_begun = bool(characters and unfinished)
            return True
        if is_last:
            # The text ends within it, or before it.
            if len(self._rest) > before:
                self._held.append(placed)
            self._advance(len(self._rest), b"")
        return False

    def _reading(self, data: bytes, is_last: bool) -> tuple[int, str, bytes] | None:
        """How a token goes on with the text, as far as that was sent: how many characters come before it, its own, and
        the bytes that begin one more. None: it is not in the text."""
        if _continues(self._unfinished, data):
            broken, (characters, unfinished) = "", _decoded(self._unfinished + data)
        else:
            # What the tokens before have begun stays unfinished.
            broken, (characters, unfinished) = BROKEN, _decoded(data)
        if _agree(self._rest, broken + characters):
            return len(broken), characters, unfinished
        rest = self._rest.lstrip(UNTOLD)
        characters, unfinished = _decoded(data)
        characters = characters.lstrip(UNTOLD)
        if characters and _agree(rest, characters) and (rest or not is_last):
            return len(self._rest) - len(rest), characters, unfinished
        return None

    def _advance(self, length: int, unfinished: bytes) -> None:
        """The held ones have so many characters now; the last has begun one more, where `unfinished` says so."""
        self._rest = self._rest[length:]
        self._offset += length
        self._unfinished = unfinished
        if length:
            count = len(self._held) - bool(unfinished)
            self._certain += self._held[:count]
            del self._held[:count]


def _agree(one: str, other: str) -> bool:
    """Whether they are the same, as far as both are known."""
    return one.startswith(other) or other.startswith(one)


def _decoded(data: bytes) -> tuple[str, bytes]:
    """Characters, broken ones replaced, and the bytes of an unfinished one at the end."""
    characters, length = codecs.utf_8_decode(data, "replace", False)
    return characters, data[length:]


def _continues(unfinished: bytes, data: bytes) -> bool:
    """Whether an unfinished character, if there is one, can go on with the first of these bytes."""
    if not unfinished:
        return True
    try:
        codecs.utf_8_decode(unfinished + data[:1], "strict", False)
    except UnicodeDecodeError:
        return False
    return True
