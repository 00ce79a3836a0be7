"""Join tokens: how one is written, and that it lets in one node, once, for a while. Pure.

A token holds the address of the enrolment port, the fingerprint of the cluster's authority and a secret (protocols H,
point 1). The scheduler node keeps only the secret's digest: an offer.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from thunderline.cluster.errors import InvalidRequest

PREFIX = "thunderline-join-"
VERSION = 1
# 128 bits: nobody guesses them, within the life of a token or after it.
SECRET_BYTES = 16
FINGERPRINT_BYTES, EXPIRES_BYTES, CHECK_BYTES = 32, 8, 4
ADDRESS_BYTES_MAX = 260
TEXT_LENGTH_MAX = 512
# Long enough to walk to the other machine.
TOKEN_S = 3_600
# An answer may be lost: the same key may ask again in the same name for this long, and no other.
AGAIN_S = 60
# Offers that ended are kept this long, to tell a used token from an unknown one.
KEPT_S = 86_400
# Of those that are open; and as many of those that ended are kept.
OFFER_COUNT_MAX = 64


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`address` is "host:port"; `authority` the SHA-256 of its certificate in hex; `expires_s` since 1970."""

    address: str
    authority: str
    expires_s: int
    secret: bytes = field(repr=False)

    @property
    def text(self) -> str:
        body = (
            bytes([VERSION])
            + self.expires_s.to_bytes(EXPIRES_BYTES, "big")
            + bytes.fromhex(self.authority)
            + self.secret
            + self.address.encode()
        )
        return PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


def read(text: str) -> JoinToken:
    """Raises InvalidRequest; the message never holds what was given."""
    # At the enrolment port anybody may send anything.
    raw = text.strip() if len(text) <= TEXT_LENGTH_MAX else ""
    encoded = raw.removeprefix(PREFIX)
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    fixed = 1 + EXPIRES_BYTES + FINGERPRINT_BYTES + SECRET_BYTES
    if not raw.startswith(PREFIX) or len(body) <= fixed or check != _check(body):
        raise InvalidRequest("this is no join token, or not all of it: copy it whole", param="token")
    if body[0] != VERSION:
        raise InvalidRequest("this join token is of another version of thunderline", param="token")
    parts, start = [], 1
    for size in (EXPIRES_BYTES, FINGERPRINT_BYTES, SECRET_BYTES):
        parts.append(body[start : start + size])
        start += size
    address = body[start:].decode(errors="replace")
    if len(address.encode()) > ADDRESS_BYTES_MAX or not address.rpartition(":")[2].isdigit():
        raise InvalidRequest("this join token names no address", param="token")
    return JoinToken(address, parts[1].hex(), int.from_bytes(parts[0], "big"), parts[2])


def _check(body: bytes) -> bytes:
    """Finds a token that was cut or mistyped; it protects nothing."""
    return hashlib.sha256(body).digest()[:CHECK_BYTES]


def digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


@dataclass(frozen=True, slots=True)
class Offer:
    """A token as the scheduler node keeps it. `used_by` is who took it, "KEY'S FINGERPRINT/NODE"; "" before."""

    digest: str
    expires_s: int
    used_by: str = ""
    used_s: float = 0.0


class Verdict(Enum):
    TAKEN = auto()  # Sign, after the offer is on disk.
    AGAIN = auto()  # Sign once more: the answer to the same one was lost.
    USED = auto()
    EXPIRED = auto()
    UNKNOWN = auto()


REFUSALS = {
    Verdict.USED: "this join token has been used",
    Verdict.EXPIRED: "this join token has expired",
    Verdict.UNKNOWN: "this join token is not known here",
}
ANOTHER = "run `thunderline cluster init` on the scheduler node for another"


def offer(offers: Sequence[Offer], secret: bytes, now_s: float) -> tuple[Offer, ...]:
    """The offers with a new one. Raises InvalidRequest when too many are open."""
    opened = [one for one in offers if is_open([one], now_s)]
    if len(opened) >= OFFER_COUNT_MAX:
        raise InvalidRequest(f"there are {OFFER_COUNT_MAX} join tokens open: wait until some have expired")
    ended = [one for one in offers if one not in opened and now_s < one.expires_s + KEPT_S]
    newest = sorted(ended, key=lambda one: (one.expires_s, one.digest))[-OFFER_COUNT_MAX:]
    return (*newest, *opened, Offer(digest(secret), int(now_s) + TOKEN_S))


def seen(offers: Sequence[Offer], secret: bytes, now_s: float) -> Verdict:
    """What a token is good for before it is known who shows it: AGAIN for one that somebody may show again."""
    known = _known(offers, secret)
    if known is None:
        return Verdict.UNKNOWN
    if known.used_by:
        return Verdict.AGAIN if now_s < known.used_s + AGAIN_S else Verdict.USED
    return Verdict.EXPIRED if now_s >= known.expires_s else Verdict.TAKEN


def _known(offers: Sequence[Offer], secret: bytes) -> Offer | None:
    shown = digest(secret)
    return next((one for one in offers if hmac.compare_digest(one.digest, shown)), None)


def redeem(offers: Sequence[Offer], secret: bytes, taker: str, now_s: float) -> tuple[Verdict, tuple[Offer, ...]]:
    """What a token is good for, shown by `taker`, and the offers after it."""
    verdict, known = seen(offers, secret, now_s), _known(offers, secret)
    if verdict is Verdict.AGAIN and known is not None and known.used_by != taker:
        return Verdict.USED, tuple(offers)
    if verdict is not Verdict.TAKEN or known is None:
        return verdict, tuple(offers)
    used = replace(known, used_by=taker, used_s=now_s)
    return Verdict.TAKEN, tuple(used if one is known else one for one in offers)


def is_open(offers: Iterable[Offer], now_s: float) -> bool:
    """Whether the enrolment port listens: while somebody could still get an answer there."""
    return any(now_s < (one.used_s + AGAIN_S if one.used_by else one.expires_s) for one in offers)
