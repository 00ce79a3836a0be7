"""What becomes of a rank at each signal, how long a phase may last, and how hard it is pushed to end. Pure."""

from enum import Enum, auto

from thunderline.cluster.limits import Limits
from thunderline.cluster.ranks import RankState


class Signal(Enum):
    """What a runner learns of a rank, or wants of it."""

    SAYS_PREPARED = auto()
    SAYS_CONNECTING = auto()
    SAYS_VERIFYING = auto()
    SAYS_LOADING = auto()
    SAYS_WARMING = auto()
    SAYS_READY = auto()
    SAYS_FAILED = auto()
    DEADLINE = auto()  # The phase lasts longer than it may.
    HUNG = auto()  # It has work, and makes no step.
    UNSERVABLE = auto()  # The runner cannot do its own half, the text.
    TOLD_TO_END = auto()  # Goal ABSENT.
    GONE = auto()  # No process is left.


S = RankState

SAYS: dict[RankState, Signal] = {
    S.PREPARED: Signal.SAYS_PREPARED,
    S.CONNECTING: Signal.SAYS_CONNECTING,
    S.VERIFYING: Signal.SAYS_VERIFYING,
    S.LOADING: Signal.SAYS_LOADING,
    S.WARMING: Signal.SAYS_WARMING,
    S.READY: Signal.SAYS_READY,
    S.FAILED: Signal.SAYS_FAILED,
}

# From every state with a process that has not failed yet.
_ENDINGS = {
    Signal.SAYS_FAILED: S.FAILED,
    Signal.HUNG: S.FAILED,
    Signal.UNSERVABLE: S.FAILED,
    Signal.TOLD_TO_END: S.STOPPING,
    Signal.GONE: S.ABSENT,
}
_LATE = {Signal.DEADLINE: S.FAILED}
# In the order in which a rank passes them.
_PHASES = (S.STARTING, S.PREPARED, S.CONNECTING, S.VERIFYING, S.LOADING, S.WARMING, S.READY)


def _row(stays: RankState, moves: dict[Signal, RankState]) -> dict[Signal, RankState]:
    """Every other signal is a late echo and changes nothing."""
    return {signal: moves.get(signal, stays) for signal in Signal}


def _phase(state: RankState, *more: dict[Signal, RankState]) -> dict[Signal, RankState]:
    """A rank only goes forward, over any number of phases: the news of some may have been lost with a stream."""
    moves = {SAYS[later]: later for later in _PHASES[_PHASES.index(state) + 1 :]} | _ENDINGS
    for one in more:
        moves |= one
    return _row(state, moves)


# Total: every state answers every signal.
LIFE: dict[RankState, dict[Signal, RankState]] = {
    S.STARTING: _phase(S.STARTING, _LATE),
    # Waits for its goal as long as the scheduler likes: no deadline.
    S.PREPARED: _phase(S.PREPARED),
    S.CONNECTING: _phase(S.CONNECTING, _LATE),
    S.VERIFYING: _phase(S.VERIFYING, _LATE),
    S.LOADING: _phase(S.LOADING, _LATE),
    S.WARMING: _phase(S.WARMING, _LATE),
    S.READY: _phase(S.READY),
    S.STOPPING: _row(S.STOPPING, {Signal.GONE: S.ABSENT}),
    S.FAILED: _row(S.FAILED, {Signal.TOLD_TO_END: S.STOPPING, Signal.GONE: S.ABSENT}),
    S.ABSENT: _row(S.ABSENT, {}),
    # Said of ranks whose runner cannot be asked; a runner itself never has one.
    S.UNKNOWN: _row(S.UNKNOWN, {Signal.GONE: S.ABSENT}),
}


def allowed_s(state: RankState, limits: Limits) -> float | None:
    """How long a phase may last; for LOADING, without a byte read. None: as long as it likes."""
    return {
        S.STARTING: limits.prepare_s,
        S.LOADING: limits.load_stall_s,
        S.WARMING: limits.warm_up_s,
    }.get(state)


class Push(Enum):
    NONE = auto()
    TERMINATE = auto()  # SIGTERM.
    KILL = auto()  # SIGKILL, last: killed Metal processes can leak wired memory.


def push(
    state: RankState,
    in_state_s: float,
    terminated_s: float | None,
    unheard: bool,
    grace_s: float,
    hung: bool = False,
) -> Push:
    """What to send to a living process now. `terminated_s`: seconds since SIGTERM was sent, None before.

    A rank that said itself that it failed may finish its last words for the grace; one that we failed (`unheard`)
    may not. One that is `hung` would not hear SIGTERM.
    """
    if state not in {S.STOPPING, S.FAILED}:
        return Push.NONE
    if hung:
        return Push.KILL
    if terminated_s is not None:
        return Push.KILL if terminated_s >= grace_s else Push.NONE
    waits = state is S.FAILED and not unheard and in_state_s < grace_s
    return Push.NONE if waits else Push.TERMINATE
