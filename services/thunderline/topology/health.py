"""How good a link is by its probes: a total table with hysteresis. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from statistics import median_low

from thunderline.cluster.links import RTT_LIMITS_US, LinkState
from thunderline.cluster.media import Medium

# At a probe each 2 s a link that gets slow is DEGRADED after 6 s, and a single late answer changes nothing.
DEGRADED_AFTER_COUNT = 3
# More than it takes to get DEGRADED, so that a link which is slow now and then is DEGRADED, not both by turns.
UP_AFTER_COUNT = 5
# Below this share of the limit an answer speaks for UP. Below half, a good Wi-Fi of 30 ms would never come back.
UP_SHARE = 0.8
DOWN_AFTER_COUNT = 3
# A refusal has crossed the link: the peer's role is away, not the peer. Three times the longest wait before a role is
# started again (10 s), at a probe each 2 s; so a crash loop of one role takes no link down at once.
DOWN_AFTER_REFUSED_COUNT = 15
RTT_COUNT = 5


class Signal(Enum):
    """What a probe says, together with those before it."""

    GOOD = auto()  # Within the limit.
    STEADILY_FAST = auto()  # The fifth one in a row clearly below it.
    SLOW = auto()  # Above the limit.
    STEADILY_SLOW = auto()  # The third one in a row.
    MISSED = auto()  # Not answered.
    LOST = auto()  # The third one in a row.


S = LinkState
# Total: every state answers every signal. What comes back from DOWN is as good as its first answer.
NEXT: dict[LinkState, dict[Signal, LinkState]] = {
    S.UP: {
        Signal.GOOD: S.UP,
        Signal.STEADILY_FAST: S.UP,
        Signal.SLOW: S.UP,
        Signal.STEADILY_SLOW: S.DEGRADED,
        Signal.MISSED: S.UP,
        Signal.LOST: S.DOWN,
    },
    S.DEGRADED: {
        Signal.GOOD: S.DEGRADED,
        Signal.STEADILY_FAST: S.UP,
        Signal.SLOW: S.DEGRADED,
        Signal.STEADILY_SLOW: S.DEGRADED,
        Signal.MISSED: S.DEGRADED,
        Signal.LOST: S.DOWN,
    },
    S.DOWN: {
        Signal.GOOD: S.UP,
        Signal.STEADILY_FAST: S.UP,
        Signal.SLOW: S.DEGRADED,
        Signal.STEADILY_SLOW: S.DEGRADED,
        Signal.MISSED: S.DOWN,
        Signal.LOST: S.DOWN,
    },
}


@dataclass(frozen=True, slots=True)
class Health:
    """A link, by its probes so far. `rtts_us`: the last five, the newest last; never empty."""

    state: LinkState
    rtts_us: tuple[int, ...]
    # In a row, and since the state began.
    fast_count: int = 0
    slow_count: int = 0
    silent_count: int = 0
    refused_count: int = 0

    @property
    def rtt_us(self) -> int:
        """A median that is one of them; of two the smaller, so that one late first answer is soon forgotten."""
        return median_low(self.rtts_us)


def answered(
    health: Health | None, rtt_us: int, medium: Medium, limits_us: Mapping[Medium, int] = RTT_LIMITS_US
) -> Health:
    """After a probe that crossed. The first one of a link decides what it is."""
    limit_us = limits_us.get(medium)
    is_slow = limit_us is not None and rtt_us > limit_us
    is_fast = limit_us is None or rtt_us < UP_SHARE * limit_us
    state = S.DOWN if health is None else health.state
    earlier = health.rtts_us if health is not None and state is not S.DOWN else ()
    slow_count = (health.slow_count if health else 0) + 1 if is_slow else 0
    fast_count = (health.fast_count if health else 0) + 1 if is_fast else 0
    if is_slow:
        signal = Signal.STEADILY_SLOW if slow_count >= DEGRADED_AFTER_COUNT else Signal.SLOW
    else:
        signal = Signal.STEADILY_FAST if fast_count >= UP_AFTER_COUNT else Signal.GOOD
    after = NEXT[state][signal]
    rtts_us = (*earlier, rtt_us)[-RTT_COUNT:]
    if after is not state:
        return Health(after, rtts_us)
    # More than enough is enough: equal values make equal reports.
    return Health(after, rtts_us, min(fast_count, UP_AFTER_COUNT), min(slow_count, DEGRADED_AFTER_COUNT))


def unanswered(health: Health | None, refused: bool = False) -> Health | None:
    """After a probe that did not cross. `refused`: the peer's host said that nobody listens there.

    Where none ever crossed there is no link, and none now. An unanswered probe neither adds to slow ones nor ends
    their row: slow and silent by turns is not good.
    """
    if health is None:
        return None
    silent_count = 0 if refused else min(health.silent_count + 1, DOWN_AFTER_COUNT)
    refused_count = min(health.refused_count + refused, DOWN_AFTER_REFUSED_COUNT)
    is_lost = silent_count >= DOWN_AFTER_COUNT or refused_count >= DOWN_AFTER_REFUSED_COUNT
    after = NEXT[health.state][Signal.LOST if is_lost else Signal.MISSED]
    if after is not health.state:
        return Health(after, health.rtts_us)
    return Health(after, health.rtts_us, 0, health.slow_count, silent_count, refused_count)
