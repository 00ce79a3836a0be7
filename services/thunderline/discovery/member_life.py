"""What becomes of a member at each signal, after which silence, and which time counts as silence. Pure."""

from dataclasses import dataclass
from enum import Enum, auto

from thunderline.cluster.members import MemberState
from thunderline.discovery.values import Life, Member


class Signal(Enum):
    """What is learnt of a member, or not."""

    HEARD = auto()  # A card of the life that is known.
    REPLACED = auto()  # Another life takes its place: a newer one, or one that is heard where this one is not.
    BELIED = auto()  # A card of a life that only others have said to have left.
    ECHO = auto()  # A card of another life, that does not.
    QUIET = auto()  # No card for `suspect_s`.
    LOST = auto()  # No card for `dead_s`.
    LEAVES = auto()  # It says so, or the scheduler node; of one that is DEAD anybody who has heard it.


S = MemberState


def _row(stays: MemberState, moves: dict[Signal, MemberState]) -> dict[Signal, MemberState]:
    return {signal: moves.get(signal, stays) for signal in Signal}


# Total: every state answers every signal.
LIFE: dict[MemberState, dict[Signal, MemberState]] = {
    S.ALIVE: _row(S.ALIVE, {Signal.QUIET: S.SUSPECT, Signal.LOST: S.DEAD, Signal.LEAVES: S.LEFT}),
    S.SUSPECT: _row(
        S.SUSPECT, {Signal.HEARD: S.ALIVE, Signal.REPLACED: S.ALIVE, Signal.LOST: S.DEAD, Signal.LEAVES: S.LEFT}
    ),
    # The same life comes back too: its cable was out, or its machine slept.
    S.DEAD: _row(S.DEAD, {Signal.HEARD: S.ALIVE, Signal.REPLACED: S.ALIVE, Signal.LEAVES: S.LEFT}),
    # A card of the life that left was on its way.
    S.LEFT: _row(S.LEFT, {Signal.REPLACED: S.ALIVE, Signal.BELIED: S.ALIVE}),
}


def is_farewell(known: Member, life: Life, is_hearsay: bool, is_own: bool) -> bool:
    """Whether the word counts that this life of a member has left.

    Of a newer life than the known one while we do not hear the member; of an older one never. Hearsay counts of the
    dead alone, so that who was away learns of it: nobody is thrown out by another's word while we hear it.
    """
    is_known = life == known.card.life
    if is_hearsay:
        return known.state is S.DEAD and life >= known.card.life
    is_unheard_of = not is_own and life > known.card.life and known.state is not S.ALIVE
    is_old_news = is_known and known.state is S.LEFT and not known.is_hearsay
    return (is_known or is_unheard_of) and not is_old_news


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds."""

    heartbeat_s: float = 1.0
    suspect_s: float = 2.0
    dead_s: float = 4.0

    @property
    def tick_s(self) -> float:
        """How often the roster has to be looked at, at the least."""
        return self.heartbeat_s / 4

    @property
    def late_s(self) -> float:
        """A look that comes later after the one before says that we slept, or were starved: a heartbeat late."""
        return self.tick_s + self.heartbeat_s


def silence(silent_s: float, waits: Waits) -> Signal | None:
    """What it means that no card came for so long."""
    if silent_s >= waits.dead_s:
        return Signal.LOST
    return Signal.QUIET if silent_s >= waits.suspect_s else None


@dataclass(frozen=True, slots=True)
class Clock:
    """Counts the time in which we were awake: what nobody could hear is nobody's silence."""

    # As it was read last.
    read_s: float
    awake_s: float = 0.0
    # Nobody is judged before this (awake): who is there gets a heartbeat to be heard after we come late.
    judges_s: float = 0.0

    @property
    def judges(self) -> bool:
        return self.awake_s >= self.judges_s


def look(clock: Clock, now_s: float, waits: Waits) -> tuple[Clock, bool]:
    """The clock at `now_s`, and whether so much was slept that what is known is as old as after a start.

    A clock that was set back has counted nothing.
    """
    gap_s = now_s - clock.read_s
    if 0 <= gap_s <= waits.late_s:
        return Clock(now_s, clock.awake_s + gap_s, clock.judges_s), False
    awake_s = clock.awake_s + min(max(gap_s, 0.0), waits.late_s)
    return Clock(now_s, awake_s, awake_s + waits.heartbeat_s), gap_s >= waits.dead_s
