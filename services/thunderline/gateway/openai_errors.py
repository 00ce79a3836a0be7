"""The one table from domain errors to OpenAI's error objects and HTTP statuses. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thunderline.cluster import errors


@dataclass(frozen=True, slots=True)
class HttpError:
    """A status, the body's error object, and headers."""

    status: int
    error: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def body(self) -> Mapping[str, Any]:
        return {"error": self.error}


# Class, status, type; the nearest listed ancestor counts. Codes are the reasons in lower case but for OpenAI's own.
_TABLE: dict[type[errors.ClusterError], tuple[int, str]] = {
    errors.NotFound: (404, "invalid_request_error"),
    errors.InvalidRequest: (400, "invalid_request_error"),
    errors.Full: (429, "rate_limit_error"),
    errors.Unavailable: (503, "service_unavailable"),
    errors.Refused: (503, "service_unavailable"),
    errors.Superseded: (409, "conflict"),
    errors.RequestPoisoned: (500, "server_error"),
    errors.DeadlinePassed: (504, "timeout"),
    # It is we whom the scheduler did not take: a client's key is looked at before all this (keys.py).
    errors.Unauthenticated: (503, "service_unavailable"),
    errors.NotOffered: (501, "server_error"),
    errors.InternalError: (500, "server_error"),
}
# Worth another try, and nobody said when.
RETRY_AFTER_S = 1.0


def to_http(error: errors.ClusterError) -> HttpError:
    status, kind = next(_TABLE[one] for one in type(error).__mro__ if one in _TABLE)
    headers = {}
    after_s = error.retry_after_s
    if after_s is None and isinstance(error, errors.Unavailable):
        after_s = RETRY_AFTER_S
    if after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(after_s)))
    return http_error(status, kind, error.message, error.param, error.reason.lower(), headers)


def http_error(
    status: int,
    kind: str,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpError:
    return HttpError(status, {"message": message, "type": kind, "param": param, "code": code}, headers or {})
