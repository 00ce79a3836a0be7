"""API keys of the gateway: only their digests are kept, and a key is never shown again. Pure."""

import base64
import hashlib
import hmac
import re
from collections.abc import Collection

PREFIX = "thunderline-"
# 256 bits: as nobody can guess one, a plain digest keeps it secret.
KEY_BYTES = 32
DIGEST = re.compile(r"[0-9a-f]{64}")
# Longer than any key of anybody; it is hashed before it is refused.
KEY_LENGTH_MAX = 512


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def written(random: bytes) -> str:
    """A new key."""
    return PREFIX + base64.urlsafe_b64encode(random).decode().rstrip("=")


def refusal(authorization: str, digests: Collection[str]) -> str:
    """Why the value of this header lets nobody in, "" when it does; what was given is not in it.

    Without digests no key is asked for.
    """
    if not digests:
        return ""
    scheme, _, key = authorization.strip().partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        return "an API key is needed: send it in the header `Authorization: Bearer KEY`"
    shown = digest(key[:KEY_LENGTH_MAX])
    # All are compared, each in constant time: how long it takes says nothing.
    matches = [hmac.compare_digest(shown, one) for one in digests]
    if any(matches) and len(key) <= KEY_LENGTH_MAX:
        return ""
    return "this API key is not known here: `thunderline cluster key NAME` makes one"
