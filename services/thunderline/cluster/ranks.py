"""The states of a rank, and which may follow which."""

from enum import Enum


class RankState(Enum):
    """Numbers are those of RankState in cluster.proto."""

    STARTING = 1  # Exec'd; has not said hello yet.
    PREPARED = 2  # Imports are done; waits for its goal to become READY.
    CONNECTING = 3  # Inside init, with the other ranks.
    VERIFYING = 4  # Proves that the group is the one that was placed.
    LOADING = 5  # Reads weights.
    WARMING = 6  # Makes one real token.
    READY = 7  # Takes requests.
    STOPPING = 8  # Was told to end.
    ABSENT = 9  # No process, port or map is left.
    FAILED = 10  # Has a cause; the process may still be there.
    UNKNOWN = 11  # Its runner cannot be asked.


S = RankState

# What may follow each state. FAILED and STOPPING may follow any with a process; a rank alone skips the group's two.
NEXT: dict[RankState, frozenset[RankState]] = {
    S.STARTING: frozenset({S.PREPARED, S.FAILED, S.STOPPING}),
    S.PREPARED: frozenset({S.CONNECTING, S.LOADING, S.FAILED, S.STOPPING}),
    S.CONNECTING: frozenset({S.VERIFYING, S.FAILED, S.STOPPING}),
    S.VERIFYING: frozenset({S.LOADING, S.FAILED, S.STOPPING}),
    S.LOADING: frozenset({S.WARMING, S.FAILED, S.STOPPING}),
    S.WARMING: frozenset({S.READY, S.FAILED, S.STOPPING}),
    S.READY: frozenset({S.FAILED, S.STOPPING}),
    S.STOPPING: frozenset({S.ABSENT, S.FAILED}),
    S.ABSENT: frozenset(),
    S.FAILED: frozenset({S.STOPPING, S.ABSENT}),
    S.UNKNOWN: frozenset(S),
}

# States in which the rank's process may exist and hold memory.
LIVING = frozenset(S) - {S.ABSENT}


def may_follow(before: RankState, after: RankState) -> bool:
    """Whether a report of `after` is news, and no late echo of an older state."""
    return after in NEXT[before]
