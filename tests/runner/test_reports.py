"""Causes as the wire has them."""

from thunderline.cluster.ranks import RankState
from thunderline.runner.exit_cause import ExitCause
from thunderline.runner.reports import cause_to_proto
from thunderline.v1 import cluster_pb2

HANG = ExitCause("RANK_HUNG", "no step for 12 s: it is in step 7, compute", RankState.READY, 7, 1.5)
RAISED = ExitCause("ENGINE_EXCEPTION", "[metal::malloc] Resource limit (499000) exceeded", RankState.READY, 7, 1.5)
KNOWN = ExitCause("SIGNAL", "SIGABRT", RankState.READY, 7, 1.5, signature="Metal (exo#1804)", remedy="send fewer")


def test_a_cause_says_all_that_is_known() -> None:
    assert cause_to_proto(KNOWN) == cluster_pb2.ExitCause(
        name="SIGNAL",
        detail="SIGABRT",
        state=cluster_pb2.RANK_STATE_READY,
        pid=7,
        uptime_s=1.5,
        signature="Metal (exo#1804)",
        remedy="send fewer",
    )


def test_what_was_said_of_a_living_one_is_recognised_too() -> None:
    assert cause_to_proto(RAISED).signature.startswith("too many live Metal buffers")
    assert cause_to_proto(RAISED).remedy


def test_what_nobody_has_met_has_no_signature() -> None:
    assert (cause_to_proto(HANG).signature, cause_to_proto(HANG).remedy) == ("", "")
