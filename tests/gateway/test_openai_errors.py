"""Every domain error has a status and an OpenAI error object; the table is that of design and README."""

import pytest

from thunderline.cluster import errors
from thunderline.gateway.openai_errors import to_http

# Reason: status, and whether a client is told to come back.
EXPECTED: dict[str, tuple[int, bool]] = {
    "MODEL_NOT_FOUND": (404, False),
    "INVALID_REQUEST": (400, False),
    "CONTEXT_LENGTH_EXCEEDED": (400, False),
    "QUEUE_FULL": (429, True),
    "NO_READY_INSTANCE": (503, True),
    "INSTANCE_FAILED": (503, True),
    "RANK_HUNG": (503, True),
    "ENGINE_RESET": (503, True),
    "DRAINING": (503, True),
    "UNREACHABLE": (503, True),
    "PLACEMENT_IMPOSSIBLE": (503, False),
    "CRASH_LOOP": (503, False),
    "REQUEST_POISONED": (500, False),
    "DEADLINE": (504, False),
    "UNAUTHENTICATED": (503, False),
    "INTERNAL_ERROR": (500, False),
}


def made(reason: str) -> errors.ClusterError:
    """As the scheduler raises it: only a full queue says itself when to come back."""
    kind = errors.BY_REASON[reason]
    return kind("why", retry_after_s=1.0) if kind is errors.Full else kind("why")


@pytest.mark.parametrize("reason", EXPECTED)
def test_the_status_of(reason: str) -> None:
    status, comes_back = EXPECTED[reason]
    found = to_http(made(reason))
    assert found.status == status
    assert ("Retry-After" in found.headers) is comes_back


@pytest.mark.parametrize("reason", errors.BY_REASON)
def test_every_reason_has_an_error_object(reason: str) -> None:
    found = to_http(made(reason))
    assert 400 <= found.status < 600
    assert set(found.body["error"]) == {"message", "type", "param", "code"}
    assert found.body["error"]["message"] == "why"
    assert found.body["error"]["code"] == reason.lower()


def test_the_error_names_its_parameter() -> None:
    assert to_http(errors.InvalidRequest("top_k: too large", param="top_k")).body["error"]["param"] == "top_k"
    assert to_http(errors.InternalError("a bug")).body["error"]["param"] is None


RETRIES = {"a fraction": (0.2, "1"), "one and a half": (1.5, "2"), "whole": (30.0, "30"), "at once": (0.0, "1")}


@pytest.mark.parametrize("case", RETRIES)
def test_retry_after_is_in_whole_seconds_and_never_zero(case: str) -> None:
    after_s, header = RETRIES[case]
    assert to_http(errors.NoReadyInstance("why", retry_after_s=after_s)).headers["Retry-After"] == header
