"""The tree of errors: reasons are stable and single, and what its picture says is so."""

import re

import pytest

from thunderline.cluster import errors
from thunderline.cluster.errors import BY_REASON, ClusterError

# Only what a client may go on with elsewhere without a loss: design.md, section 7.
RESUMABLE = {"INSTANCE_FAILED", "RANK_HUNG", "ENGINE_RESET", "DRAINING", "UNREACHABLE"}


def tree(kind: type[ClusterError]) -> list[type[ClusterError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]


def test_no_two_errors_share_a_reason() -> None:
    reasons = [kind.__dict__["reason"] for kind in tree(ClusterError) if kind.__dict__.get("reason")]
    assert len(reasons) == len(set(reasons)) == len(BY_REASON)


@pytest.mark.parametrize("kind", BY_REASON.values(), ids=BY_REASON.keys())
def test_a_reason_leads_back_to_its_error(kind: type[ClusterError]) -> None:
    assert BY_REASON[kind.reason] is kind


def test_the_picture_above_the_tree_is_the_tree() -> None:
    drawn = dict(re.findall(r"[+x] (\w+) +([A-Z][A-Z_]+)", errors.__doc__ or ""))
    assert drawn == {kind.__name__: reason for reason, kind in BY_REASON.items()}


def test_the_picture_says_which_are_resumable() -> None:
    drawn = set(re.findall(r"([A-Z_]+) +resumable", errors.__doc__ or ""))
    assert drawn == RESUMABLE == {reason for reason, kind in BY_REASON.items() if kind.resumable}


def test_an_error_names_the_field_that_is_to_blame() -> None:
    error = errors.ContextLengthExceeded("too long", param="messages", context_tokens="2048")
    assert isinstance(error, errors.InvalidRequest)
    assert (error.param, error.facts["context_tokens"], str(error)) == ("messages", "2048", "too long")
    assert errors.Full("full", retry_after_s=1.5).param is None
