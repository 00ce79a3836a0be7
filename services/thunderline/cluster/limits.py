"""Every time limit and size limit, once. All are settings ([limits] in config.toml); README.md has the table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Defaults; seconds unless the name says otherwise."""

    # A reconcile pass follows a change within this time, and comes at least this often times four.
    reconcile_s: float = 0.25
    # Each node shows its card to each other this often; then no card for so long makes it SUSPECT, and DEAD.
    heartbeat_s: float = 1.0
    suspect_s: float = 2.0
    dead_s: float = 4.0
    # Every address of every peer is probed this often, and has so long to answer.
    probe_period_s: float = 2.0
    probe_timeout_s: float = 1.0
    # Imports of mlx on a cold disk took 20 s; three times that.
    prepare_s: float = 60.0
    # Without a byte read for this long a load has stalled.
    load_stall_s: float = 120.0
    warm_up_s: float = 60.0
    # A role restarts after this, doubled at each failure, reset after `restart_reset_s` of life.
    restart_wait_min_s: float = 0.2
    restart_wait_max_s: float = 10.0
    restart_reset_s: float = 10.0
    # Requests in flight get this long to finish when a role is told to stop.
    drain_s: float = 30.0
    # A request waits this long for a READY instance.
    queue_wait_s: float = 30.0
    request_deadline_s: float = 600.0
    sse_keep_alive_s: float = 10.0
    # A rank ends itself when it had no runner for this long.
    rank_without_runner_s: float = 60.0
    # A READY rank that was idle for this long makes one token, to show that it can.
    canary_every_s: float = 60.0
    # SIGTERM, then this long, then SIGKILL.
    rank_stop_grace_s: float = 5.0
    # The next epoch of an instance that failed waits this long, doubled at each failure; after one that served, not.
    epoch_wait_min_s: float = 0.5
    epoch_wait_max_s: float = 30.0
    # Requests that wait for one deployment; more are refused.
    queue_size_max: int = 256
    # Requests at one rank, waiting or running.
    rank_request_count_max: int = 256
    # Open connections of HTTP clients: twice as many as one deployment's requests, waiting and running.
    connection_count_max: int = 1024
    # A connection without a whole request header for this long is closed; clients let go of theirs after 5 s.
    connection_idle_s: float = 30.0
    # Header of an HTTP request; cookies and long keys are some kilobytes.
    header_bytes_max: int = 64 * 1024
    # Body of an HTTP request.
    body_bytes_max: int = 4 * 1024 * 1024
    # One gRPC message: a 128 k token prompt is 0.7 MB, a long chat 4 MB.
    message_bytes_max: int = 16 * 1024 * 1024


DEFAULTS = Limits()

# With 0 nobody waits there. Of any other limit 0 makes no sense: a period would never rest, nothing would ever fit.
MAY_BE_ZERO = frozenset({"drain_s", "queue_wait_s", "rank_stop_grace_s", "queue_size_max"})
# The first is below the second: else members are SUSPECT between two heartbeats, or DEAD before they are SUSPECT.
BELOW = (("heartbeat_s", "suspect_s"), ("suspect_s", "dead_s"))
AT_MOST = (("restart_wait_min_s", "restart_wait_max_s"), ("epoch_wait_min_s", "epoch_wait_max_s"))


def out_of_order(limits: Limits) -> tuple[str, str, str] | None:
    """Two limits that contradict each other, and how the one has to stand to the other; None when none do."""
    for one, other in BELOW:
        if not getattr(limits, one) < getattr(limits, other):
            return one, "below", other
    for one, other in AT_MOST:
        if not getattr(limits, one) <= getattr(limits, other):
            return one, "at most", other
    return None
