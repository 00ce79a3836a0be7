"""A join token is read back whole or not at all, and lets in one key, once, for an hour."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as some

from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.join_tokens import (
    AGAIN_S,
    KEPT_S,
    OFFER_COUNT_MAX,
    PREFIX,
    SECRET_BYTES,
    TOKEN_S,
    JoinToken,
    Offer,
    Verdict,
    digest,
    is_open,
    offer,
    read,
    redeem,
)

NOW_S = 1_790_000_000.0
SECRET = bytes(range(SECRET_BYTES))
TOKEN = JoinToken("192.168.4.1:7405", "ab" * 32, int(NOW_S) + TOKEN_S, SECRET)


@given(
    host=some.sampled_from(["192.168.4.1", "[fe80::1%en3]", "mac-one.local"]),
    port=some.integers(1, 65535),
    authority=some.binary(min_size=32, max_size=32),
    expires_s=some.integers(0, 2**40),
    secret=some.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
)
def test_a_token_is_read_back(host: str, port: int, authority: bytes, expires_s: int, secret: bytes) -> None:
    token = JoinToken(f"{host}:{port}", authority.hex(), expires_s, secret)
    assert read(f"  {token.text}\n") == token


def test_a_token_is_one_word_that_fits_a_line() -> None:
    assert TOKEN.text.startswith(PREFIX)
    assert len(TOKEN.text) < 140
    assert TOKEN.text.replace("-", "").replace("_", "").isalnum()


def test_a_token_in_a_log_shows_no_secret() -> None:
    assert str(SECRET) not in repr(TOKEN)


@pytest.mark.parametrize("position", range(len(PREFIX), len(TOKEN.text)))
def test_no_letter_of_it_may_be_another(position: int) -> None:
    other = "A" if TOKEN.text[position] != "A" else "Q"
    wrong = TOKEN.text[:position] + other + TOKEN.text[position + 1 :]
    if position == len(TOKEN.text) - 1 and _last_bits_are_spare(wrong):
        return
    with pytest.raises(InvalidRequest):
        read(wrong)


def _last_bits_are_spare(text: str) -> bool:
    """The last letter may hold bits that belong to no byte."""
    try:
        return read(text) == TOKEN
    except InvalidRequest:
        return False


NO_TOKENS = {
    "nothing": "",
    "a word": "hello",
    "only the beginning": PREFIX,
    "cut short": TOKEN.text[:-5],
    "without its beginning": TOKEN.text.removeprefix(PREFIX),
    "twice": TOKEN.text + TOKEN.text,
    "with a space": TOKEN.text[:60] + " " + TOKEN.text[60:],
    "not ASCII": PREFIX + "é" * 80,
    "no address": JoinToken("", "ab" * 32, 0, SECRET).text,
    "an address without a port": JoinToken("192.168.4.1", "ab" * 32, 0, SECRET).text,
    "a long address": JoinToken("a" * 300 + ":1", "ab" * 32, 0, SECRET).text,
}


@pytest.mark.parametrize("text", NO_TOKENS.values(), ids=NO_TOKENS.keys())
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(text)
    assert not text or text not in refused.value.message


KEY, OTHER = "key-1", "key-2"
OPEN = Offer(digest(SECRET), int(NOW_S) + TOKEN_S)
TAKEN = Offer(digest(SECRET), int(NOW_S) + TOKEN_S, KEY, NOW_S)
# What is known, who shows it, how long after it was made or taken.
REDEEMED = {
    "a new one": (OPEN, KEY, 0.0, Verdict.TAKEN),
    "in its last second": (OPEN, KEY, TOKEN_S - 1.0, Verdict.TAKEN),
    "at its end": (OPEN, KEY, float(TOKEN_S), Verdict.EXPIRED),
    "long after": (OPEN, KEY, 10.0 * TOKEN_S, Verdict.EXPIRED),
    "used, by another key": (TAKEN, OTHER, 1.0, Verdict.USED),
    "used, by the same key whose answer was lost": (TAKEN, KEY, AGAIN_S - 1.0, Verdict.AGAIN),
    "used, by the same key much later": (TAKEN, KEY, float(AGAIN_S), Verdict.USED),
    "used, and expired since": (TAKEN, OTHER, 2.0 * TOKEN_S, Verdict.USED),
    "one that was never made": (None, KEY, 0.0, Verdict.UNKNOWN),
}


@pytest.mark.parametrize(("known", "key", "after_s", "expected"), REDEEMED.values(), ids=REDEEMED.keys())
def test_redeemed(known: Offer | None, key: str, after_s: float, expected: Verdict) -> None:
    others = (Offer(digest(b"other"), int(NOW_S) + TOKEN_S),)
    offers = others if known is None else (*others, known)
    verdict, after = redeem(offers, SECRET, key, NOW_S + after_s)
    assert verdict is expected
    if verdict is Verdict.TAKEN:
        assert after == (*others, Offer(digest(SECRET), OPEN.expires_s, key, NOW_S + after_s))
    else:
        assert after == offers


def test_each_token_lets_in_one_key_whatever_the_order() -> None:
    secrets = [bytes([number]) * SECRET_BYTES for number in range(3)]
    shown = [(secret, key) for secret in secrets for key in (KEY, OTHER)]
    for order in itertools.permutations(shown):
        offers: tuple[Offer, ...] = ()
        for secret in secrets:
            offers = offer(offers, secret, NOW_S)
        verdicts = []
        for secret, key in order:
            verdict, offers = redeem(offers, secret, key, NOW_S)
            verdicts.append(verdict)
        assert verdicts.count(Verdict.TAKEN) == 3
        assert verdicts.count(Verdict.USED) == 3


def test_offers_are_bounded_and_old_ones_forgotten() -> None:
    offers: tuple[Offer, ...] = ()
    for number in range(OFFER_COUNT_MAX):
        offers = offer(offers, bytes([number]) * SECRET_BYTES, NOW_S)
    with pytest.raises(InvalidRequest):
        offer(offers, SECRET, NOW_S)
    assert len(offer(offers, SECRET, NOW_S + TOKEN_S + KEPT_S)) == 1


def test_tokens_that_are_used_leave_room_for_others() -> None:
    offers: tuple[Offer, ...] = ()
    for number in range(3 * OFFER_COUNT_MAX):
        secret, at_s = number.to_bytes(SECRET_BYTES, "big"), NOW_S + number * (AGAIN_S + 1)
        offers = redeem(offer(offers, secret, at_s), secret, "k", at_s)[1]
        assert offers[-1].digest == digest(secret)
    assert OFFER_COUNT_MAX <= len(offers) <= OFFER_COUNT_MAX + 1


DOORS = {
    "no token": ((), 0.0, False),
    "one that waits": ((OPEN,), 0.0, True),
    "one that expired": ((OPEN,), float(TOKEN_S), False),
    "one just used: its answer may be lost": ((TAKEN,), 1.0, True),
    "one used a while ago": ((TAKEN,), float(AGAIN_S), False),
    "one of several": ((TAKEN, OPEN), float(AGAIN_S), True),
}


@pytest.mark.parametrize(("offers", "after_s", "expected"), DOORS.values(), ids=DOORS.keys())
def test_the_enrolment_port_is_open_only_for_a_token(offers: tuple[Offer, ...], after_s: float, expected: bool) -> None:
    assert is_open(offers, NOW_S + after_s) is expected
