"""Which log-probabilities go with which text: a table, and laws for every cut of an answer into deltas."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.little_model import PAGE, SPECIAL, VOCABULARY_SIZE, tokenizer
from thunderline.gateway.certain_logprobs import CertainLogprobs, Placed
from thunderline.runner.detokenize import Detokenizer
from thunderline.runner.stop_strings import StopMatcher
from thunderline.runner.token_bytes import TokenBytes
from thunderline.v1 import cluster_pb2

STOP = cluster_pb2.FINISH_REASON_STOP
TOKENIZER = tokenizer()
# Special tokens are written as they are, as in a tokenizer.json.
BYTES_OF = TokenBytes({"decoder": {"type": "ByteLevel"}, "added_tokens": [{"content": one} for one in SPECIAL]})
END = b"<|im_end|>"


def entry(data: bytes) -> cluster_pb2.TokenLogprob:
    return cluster_pb2.TokenLogprob(token=data.decode(errors="replace"), token_bytes=data, logprob=-1.0)


def delta(text: str, tokens: Sequence[bytes] = (), is_last: bool = False) -> cluster_pb2.GenerationDelta:
    made = cluster_pb2.GenerationDelta(text=text, logprobs=[entry(one) for one in tokens])
    if is_last:
        made.finish_reason = STOP
    return made


def shown(found: Sequence[Placed]) -> list[bytes]:
    return [one.entry.token_bytes for one in found]


# An answer: its tokens, the text of each that was certain with it, and what came with the finish; then the tokens that
# went with each of these. The last token comes with the finish.
Said = list[tuple[bytes, str, list[bytes]]]
STEPS: dict[str, Said] = {
    "each token has its text": [(b"a", "a", [b"a"]), (b" b", " b", [b" b"])],
    "the end token has no text": [(b"a", "a", [b"a"]), (END, "", [])],
    "an end token without bytes": [(b"a", "a", [b"a"]), (b"", "", [])],
    "the stop string is one token": [(b"Hi", "Hi", [b"Hi"]), (b" there", "", [])],
    "the stop string is of several tokens": [(b"Hi", "Hi", [b"Hi"]), (b" the", "", []), (b"re", "", [])],
    "the stop string begins in a token": [(b"Hi", "Hi", [b"Hi"]), (b" the", " ", [b" the"])],
    "the stop string begins in a token and ends in another": [
        (b"Hi", "H", []),
        (b" the", "", []),
        (b"re!", "", [b"Hi"]),
    ],
    "what might have been a stop string was none": [
        (b"Hi", "Hi", [b"Hi"]),
        (b" the", "", []),
        (b"se", " these", [b" the", b"se"]),
        (b".", ".", [b"."]),
    ],
    "the end token after held text": [(b"Hi", "", []), (END, "Hi", [b"Hi"])],
    "the stop string is all there is": [(b"a", "", []), (b"b", "", [])],
    "a character of two tokens": [
        (b"\xf0\x9d", "", []),
        (b"\x84\x9e", "𝄞", [b"\xf0\x9d", b"\x84\x9e"]),
        (b"a", "a", [b"a"]),
    ],
    "tokens that begin and end within characters": [
        (b"\xe4\xbd", "", []),
        (b"\xa0\xe5", "你", [b"\xe4\xbd"]),
        (b"\xa5\xbd", "好", [b"\xa0\xe5", b"\xa5\xbd"]),
        (END, "", []),
    ],
    "a stop string that is a character of two tokens": [
        (b" \xf0\x9d", " ", []),
        (b"\x84\x9e", "", [b" \xf0\x9d"]),
    ],
    "half a character at the end": [(b"a", "a", [b"a"]), (b"\xf0\x9d", "\ufffd", [b"\xf0\x9d"])],
    "half a character of two tokens at the end": [
        (b"a", "a", [b"a"]),
        (b"\xf0", "", []),
        (b"\x9d", "\ufffd", [b"\xf0", b"\x9d"]),
    ],
    "half a character before the end token": [(b"\xf0\x9d", "", []), (END, "\ufffd", [b"\xf0\x9d"])],
    "half a character before a letter": [(b"\xf0\x9d", "", []), (b"a", "\ufffda", [b"\xf0\x9d", b"a"]), (END, "", [])],
    "half a character before the stop string": [(b"\xf0\x9d", "", []), (b"a", "\ufffd", [b"\xf0\x9d"])],
    "half a character before a stop string's second half": [
        (b"\xef", "", []),
        (b"ab", "\ufffda", [b"\xef", b"ab"]),
    ],
    "half a character twice": [
        (b"\xf0\x9d", "", []),
        (b"\xf0", "\ufffd", [b"\xf0\x9d"]),
        (b"\x9d", "\ufffd", [b"\xf0", b"\x9d"]),
    ],
    "the replacement character itself, in two tokens": [
        (b"\xef\xbf", "", []),
        (b"\xbd", "\ufffd", [b"\xef\xbf", b"\xbd"]),
    ],
    "every byte of a broken character is shown": [
        (b"\xf0", "", []),
        (b"\x9d", "", []),
        (b"a", "\ufffd\ufffda", [b"\xf0", b"\x9d", b"a"]),
        (END, "", []),
    ],
    "a token without bytes goes with the next character": [
        (b"a", "a", [b"a"]),
        (b"", "", []),
        (b"b", "b", [b"", b"b"]),
    ],
    "a special token goes with the next character": [
        (b"a", "a", [b"a"]),
        (END, "", []),
        (b"b", "b", [END, b"b"]),
        (END, "", []),
    ],
    "a special token within a character": [
        (b"\xf0\x9d", "", []),
        (END, "", []),
        (b"\x84\x9e", "𝄞", [b"\xf0\x9d", END, b"\x84\x9e"]),
    ],
    "a special token that begins as the text does": [
        (END, "", []),
        (b"<", "<", []),
        (b"b", "b", [END, b"<", b"b"]),
    ],
    "a space that its token's bytes do not tell": [
        (b"the", "the", [b"the"]),
        (b"fox", " fox", [b"fox"]),
        (b"", " ", []),
        (b"jumps", " jumps", [b"", b"jumps"]),
        (END, "", []),
    ],
    "a stop string behind a space that its token's bytes do not tell": [(b"the", "the", [b"the"]), (b"fox", " ", [])],
}


def played(said: Said, cuts: set[int]) -> list[list[Placed]]:
    """What went with each delta; `cuts` are the steps after which one ends."""
    certain, text = CertainLogprobs(), ""
    tokens: list[bytes] = []
    found = []
    for number, (token, piece, _) in enumerate(said):
        text, tokens = text + piece, [*tokens, token]
        is_last = number == len(said) - 1
        if is_last or number in cuts:
            found.append(certain.take(delta(text, tokens, is_last)))
            text, tokens = "", []
    return found


@pytest.mark.parametrize("case", STEPS)
def test_an_entry_goes_with_its_text(case: str) -> None:
    said = STEPS[case]
    assert [shown(one) for one in played(said, set(range(len(said))))] == [went for _, _, went in said]


@pytest.mark.parametrize("case", STEPS)
def test_the_same_entries_go_for_every_cut(case: str) -> None:
    said = STEPS[case]
    expected = [one for found in played(said, set(range(len(said)))) for one in found]
    for mask in range(2 ** (len(said) - 1)):
        cuts = {step for step in range(len(said)) if mask >> step & 1}
        assert [one for found in played(said, cuts) for one in found] == expected


OFFSETS: dict[str, tuple[list[bytes], str, list[tuple[int, bool]]]] = {
    "characters, not bytes": (
        ["é".encode(), b"a", "𝄞".encode(), b"b"],
        "éa𝄞b",
        [(0, True), (1, True), (2, True), (3, True)],
    ),
    "within a character": ([b"a", b"\xf0\x9d", b"\x84\x9e!"], "a𝄞!", [(0, True), (1, True), (1, True)]),
    "a broken character": ([b"a", b"\xf0\x9d", b"b"], "a\ufffdb", [(0, True), (1, True), (2, True)]),
    "a special token": ([b"a", END, b"b"], "ab", [(0, True), (1, False), (1, True)]),
    "an untold space": ([b"a", b"b"], "a b", [(0, True), (2, True)]),
}


@pytest.mark.parametrize("case", OFFSETS)
def test_an_entry_says_where_it_begins_and_whether_it_is_in_the_text(case: str) -> None:
    tokens, text, expected = OFFSETS[case]
    found = CertainLogprobs().take(delta(text, tokens, is_last=True))
    assert [(one.offset, one.in_text) for one in found] == expected


# Laws, with the runner's own text side.


@dataclass
class Told:
    """An answer cut into deltas: the whole text, what went, and how far both were after each delta."""

    text: str
    found: list[Placed]
    steps: list[tuple[str, list[Placed]]]
    is_stopped: bool


def token_bytes(token_id: int) -> bytes:
    token = TOKENIZER.id_to_token(token_id)
    assert token is not None
    found = BYTES_OF(token)
    assert found is not None
    return found


def told(ids: Sequence[int], stop: Sequence[str], cuts: set[int]) -> Told:
    """As the runner tells it: ids at once, text when it is certain."""
    detokenizer = Detokenizer(lambda some: str(TOKENIZER.decode(some, skip_special_tokens=True)))
    stops = StopMatcher(stop)
    certain, text = CertainLogprobs(), ""
    tokens: list[bytes] = []
    made = Told("", [], [], False)
    for number, token_id in enumerate(ids):
        tokens.append(token_bytes(token_id))
        text += stops.feed(detokenizer.feed((token_id,)))
        is_last = stops.hit is not None or number == len(ids) - 1
        if is_last and stops.hit is None:
            text += stops.feed(detokenizer.finish())
            text += stops.finish()
        if is_last or number in cuts:
            made.text += text
            made.found += certain.take(delta(text, tokens, is_last))
            made.steps.append((made.text, list(made.found)))
            text, tokens = "", []
        if is_last:
            break
    made.is_stopped = stops.hit is not None
    return made


def joined(found: Sequence[Placed]) -> bytes:
    return b"".join(one.entry.token_bytes for one in found if one.in_text)


TEXTS = st.text(alphabet=st.sampled_from(PAGE), min_size=1, max_size=40) | st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<\ufffd"), min_size=1, max_size=15
)
CUTS = st.sets(st.integers(0, 60))
STOPS = st.lists(st.text(alphabet=st.sampled_from(PAGE), min_size=1, max_size=3), max_size=2)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, stop=STOPS, cuts=CUTS)
def test_for_every_cut_the_same_entries_go_and_never_before_their_text(
    text: str, stop: list[str], cuts: set[int]
) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    whole, made = told(ids, stop, set()), told(ids, stop, cuts)
    assert (made.text, made.found) == (whole.text, whole.found)
    sent = made.text.encode()
    if made.is_stopped:
        # At most the last one goes on beyond the text, and it begins in it.
        assert joined(made.found).startswith(sent)
        assert not made.found or len(joined(made.found[:-1])) < len(sent)
    else:
        assert joined(made.found) == sent
    for text_so_far, found_so_far in made.steps[:-1]:
        assert text_so_far.encode().startswith(joined(found_so_far))


# A special token and what is written like one cannot be told apart while only its beginning is known.
IDS = [one for one in range(VOCABULARY_SIZE) if one < len(SPECIAL) or not token_bytes(one).startswith(b"<")]


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=40), cuts=CUTS)
def test_any_ids_at_all_tell_the_text(ids: list[int], cuts: set[int]) -> None:
    """Mostly broken characters, with special tokens between."""
    whole, made = told(ids, [], set()), told(ids, [], cuts)
    assert (made.text, made.found) == (whole.text, whole.found)
    assert joined(made.found).decode(errors="replace") == made.text
    assert shown(made.found) == [token_bytes(one) for one in ids[: len(made.found)]]
