"""Pieces of text joined are what decoding everything at once gives, for every cut."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from runner.little_model import EOS, PAGE, SPECIAL, VOCABULARY_SIZE, tokenizer
from thunderline.runner.detokenize import BROKEN, Detokenizer

TOKENIZER = tokenizer()


def decode(ids: Sequence[int]) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=True))


def pieces(ids: Sequence[int], cuts: Sequence[int]) -> list[str]:
    detokenizer = Detokenizer(decode)
    borders = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    return [detokenizer.feed(ids[a:b]) for a, b in itertools.pairwise(borders)] + [detokenizer.finish()]


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet=st.sampled_from(PAGE), max_size=60) | st.text(max_size=30), cuts=st.lists(st.integers(0, 80))
)
def test_text_of_any_script_comes_back_whole_for_every_cut(text: str, cuts: list[int]) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    found = pieces(ids, cuts)
    assert "".join(found) == decode(ids)
    if BROKEN not in text:
        assert not any(BROKEN in piece for piece in found)


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=80), cuts=st.lists(st.integers(0, 80)))
def test_any_ids_at_all_come_back_as_decoding_at_once_has_them(ids: list[int], cuts: list[int]) -> None:
    """Random ids are mostly broken characters, with special tokens between."""
    assert "".join(pieces(ids, cuts)) == decode(ids)


def test_a_character_of_several_tokens_comes_whole() -> None:
    ids = TOKENIZER.encode("𝄞", add_special_tokens=False).ids
    assert len(ids) > 1, "the test needs a character that is no token"
    found = pieces(ids, range(len(ids)))
    assert [piece for piece in found if piece] == ["𝄞"]


def test_half_a_character_at_the_end_comes_with_the_finish() -> None:
    ids = TOKENIZER.encode("𝄞", add_special_tokens=False).ids[:-1]
    detokenizer = Detokenizer(decode)
    assert detokenizer.feed(ids) == ""
    assert detokenizer.finish() == decode(ids)


def test_a_leading_space_is_kept() -> None:
    ids = TOKENIZER.encode(" the", add_special_tokens=False).ids
    assert "".join(pieces(ids, [])) == " the"


def test_thousands_of_special_tokens_neither_show_nor_slow_it_down() -> None:
    looked_at = 0

    def counting(ids: Sequence[int]) -> str:
        nonlocal looked_at
        looked_at += len(ids)
        return decode(ids)

    end = SPECIAL.index(EOS)
    hello = TOKENIZER.encode("hello 你好", add_special_tokens=False).ids
    ids = [*hello, *[end] * 5000, *hello]
    detokenizer = Detokenizer(counting)
    assert detokenizer.feed(ids) + detokenizer.finish() == "hello 你好hello 你好"
    assert looked_at < 100 * len(ids)


def byte_fallback() -> Tokenizer:
    """As Llama 2's: pieces with a mark for the space, and single bytes for what is no piece."""
    words = ["<unk>", "▁Hello", "▁world", "!", *(f"<0x{byte:02X}>" for byte in range(256))]
    made = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, [], byte_fallback=True, unk_token="<unk>"))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


FALLBACK_TEXTS = ["你😀é", "😀" * 40, "a" + "😀é" * 40, "é你" * 30]


@pytest.mark.parametrize("repeats", [1, 3, 10])
@pytest.mark.parametrize("text", FALLBACK_TEXTS)
def test_a_vocabulary_with_byte_fallback_keeps_spaces_and_characters(text: str, repeats: int) -> None:
    made = byte_fallback()
    ids = [1, 2, *(4 + byte for byte in text.encode()), 3, 1] * repeats

    def decode_these(some: Sequence[int]) -> str:
        return str(made.decode(some, skip_special_tokens=True))

    detokenizer = Detokenizer(decode_these)
    found = [detokenizer.feed([token]) for token in ids] + [detokenizer.finish()]
    assert "".join(found) == decode_these(ids)
    assert not any(BROKEN in piece for piece in found)


def test_broken_bytes_of_a_fallback_vocabulary_do_not_hold_the_rest_back() -> None:
    made = byte_fallback()
    ids = [1, *(4 + byte for byte in "é".encode()), 4 + 0xFF, 2, 3, 1]
    detokenizer = Detokenizer(lambda some: str(made.decode(some)))
    found = "".join([detokenizer.feed([token]) for token in ids])
    assert found.startswith("Helloé")
    assert found.endswith(" world! Hello")
