"""An API key lets in only as it was given, and what is refused is never repeated."""

import pytest

from thunderline.cluster.api_keys import DIGEST, KEY_BYTES, KEY_LENGTH_MAX, PREFIX, digest, refusal, written

KEY, OTHER = written(bytes(range(KEY_BYTES))), written(bytes(KEY_BYTES))
DIGESTS = [digest(OTHER), digest(KEY)]

LET_IN = {
    "one of several": (f"Bearer {KEY}", DIGESTS),
    "another of them": (f"Bearer {OTHER}", DIGESTS),
    "the scheme in lower case": (f"bearer {KEY}", DIGESTS),
    "spaces around it": (f"  Bearer   {KEY} ", DIGESTS),
    "no key where none is asked for": ("", []),
    "any key where none is asked for": ("Bearer none", []),
}
REFUSED = {
    "nothing": "",
    "only the scheme": "Bearer",
    "only the scheme and a space": "Bearer ",
    "no scheme": KEY,
    "another scheme": f"Basic {KEY}",
    "another key": f"Bearer {written(b'x' * KEY_BYTES)}",
    "its beginning": f"Bearer {KEY[:-1]}",
    "more than it": f"Bearer {KEY}x",
    "twice": f"Bearer {KEY} {KEY}",
    "its digest": f"Bearer {digest(KEY)}",
    "in other letters": f"Bearer {KEY.upper()}",
    "not ASCII": "Bearer é",
    "very long": f"Bearer {'x' * 100_000}",
    "long after a good beginning": f"Bearer {KEY}{' ' * KEY_LENGTH_MAX}x",
}


@pytest.mark.parametrize(("header", "digests"), LET_IN.values(), ids=LET_IN.keys())
def test_let_in(header: str, digests: list[str]) -> None:
    assert refusal(header, digests) == ""


@pytest.mark.parametrize("header", REFUSED.values(), ids=REFUSED.keys())
def test_refused_and_not_repeated(header: str) -> None:
    why = refusal(header, DIGESTS)
    assert "API key" in why
    given = header.rpartition(" ")[2]
    assert len(given) < 7 or given not in why


def test_a_long_key_whose_beginning_hashes_alike_is_another() -> None:
    long = "k" * KEY_LENGTH_MAX
    assert refusal(f"Bearer {long}", [digest(long)]) == ""
    assert refusal(f"Bearer {long}x", [digest(long)])


def test_a_key_is_one_word_and_its_digest_is_what_the_settings_take() -> None:
    assert KEY.startswith(PREFIX)
    assert len(KEY.split()) == 1
    assert KEY.isascii()
    assert DIGEST.fullmatch(digest(KEY))
    assert KEY != OTHER
